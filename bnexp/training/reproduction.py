"""At the end of a run: what it has saved must give its results again, as bnexp-eval would."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bnexp.compute.process_tuning import default_dtype
from bnexp.config.schema import Config
from bnexp.data import DataSplits
from bnexp.errors import Interrupted, NotReproducible, OutOfMemory, reason_of
from bnexp.seeding import seed_global
from bnexp.training import build
from bnexp.training.checkpoint import load
from bnexp.training.trainer import Trainer
from bnexp.training.trial.checkpoint import SAVED_STATE
from bnexp.training.trial.step import BATCH_TOLERANCE


def check_reproduction(config: Config, trainer: Trainer, splits: DataSplits, checkpoint: Path) -> None:
    """Compares ``trainer`` with one that is built anew, with the weights of ``checkpoint``, on test images.

    ``checkpoint`` must have been saved from ``trainer``. Raises NotReproducible where the logits or the loss
    of a batch differ, and where the network cannot be built.
    """
    state = trainer.processes.broadcast(lambda: load(checkpoint))
    images, labels = splits.test.sample(min(config.batch_size, config.eval_batch_size))
    try:
        with default_dtype(trainer.default_dtype):
            saved = build.untrained_trainer(config, trainer.device, splits, trainer.processes)
        saved.load_model(state)
        saved_logits, saved_loss = _evaluate(saved, config.seed, images, labels)
    except (Interrupted, OutOfMemory, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a user's own code may raise what it likes
        raise NotReproducible(
            f"{config.model.title}: cannot be built from its checkpoint again ({reason_of(error)});"
            " parameters and buffers must be those of __init__"
        ) from error
    logits, loss = _evaluate(trainer, config.seed, images, labels)
    tolerance = BATCH_TOLERANCE[config.device.precision]
    if not _are_close(logits, saved_logits, tolerance):
        raise NotReproducible(
            f"{config.model.title}: gives other logits when it is built from its checkpoint, as in"
            f" bnexp-eval: the results cannot be repeated; {SAVED_STATE}"
        )
    if not _are_close(loss, saved_loss, tolerance):
        raise NotReproducible(
            f"{config.loss.title}: gives another loss when it is built anew, as in bnexp-eval: the results"
            " cannot be repeated; what changes in training must be part of the network"
        )


@torch.inference_mode()
def _evaluate(trainer: Trainer, seed: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The logits (B, K) and the loss () in eval mode."""
    trainer.eval()
    seed_global(seed, "evaluation")
    with trainer.device.autocast():
        logits = trainer.model(images.clone())
        return logits.float(), trainer.loss(logits, labels.clone()).float()


def _are_close(value: Tensor, other: Tensor, tolerance: float) -> bool:
    largest = float(value.abs().nan_to_num().max())
    return torch.allclose(value, other, rtol=tolerance, atol=tolerance * largest, equal_nan=True)
