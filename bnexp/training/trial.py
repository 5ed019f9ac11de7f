"""One step and one evaluation on a copy, before training: mistakes that only a step shows are told at once.

Networks of bnexp with torch's usual optimizers, schedulers and losses need no trial.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bnexp.config.schema import Config
from bnexp.data import DataSplits
from bnexp.errors import ExitCalled, Interrupted, OutOfMemory, UserError, forbid_exit, one_line
from bnexp.seeding import global_rng_state, set_global_rng_state
from bnexp.training.trainer import Trainer

KNOWN_TARGETS = {
    "model": ("bnexp.models.",),
    "optimizer": tuple(f"torch.optim.{name}" for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad")),
    "scheduler": tuple(
        f"torch.optim.lr_scheduler.{name}LR"
        for name in ("CosineAnnealing", "Exponential", "Polynomial", "Step")
    ),
    "loss": ("bnexp.training.losses.", "torch.nn.CrossEntropyLoss", "torch.nn.MultiMarginLoss"),
}
METRICS = tuple(f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "accuracy"))
MAX_REASON = 300  # characters of an error's text


def needs_trial(config: Config) -> bool:
    """Whether a component is not among those that are known to work together."""
    components = (config.model, config.optimizer, config.scheduler, config.loss)
    return any(
        component.target is not None and not component.target.startswith(KNOWN_TARGETS[component.key])
        for component in components
    )


def try_components(
    config: Config, network: nn.Module, splits: DataSplits, make_trainer: Callable[[nn.Module], Trainer]
) -> None:
    """Trains a copy of ``network`` for one step and evaluates it; random numbers stay as they were.

    Raises UserError that names the key of the part which fails.
    """
    device = next(network.parameters()).device
    state = global_rng_state(device)
    try:
        _try_components(config, make_trainer(copy.deepcopy(network)), splits)
    finally:
        set_global_rng_state(state, device)


def _try_components(config: Config, trainer: Trainer, splits: DataSplits) -> None:
    order = splits.train.order(config.seed, 1)
    images, labels = splits.train.gather(order, slice(0, min(config.batch_size, len(splits.train))))
    shape = (len(images), len(splits.classes))
    names = {name for name, _ in trainer.model.named_parameters()}
    model, loss = f"model._target_={config.model.target}", f"loss._target_={config.loss.target}"
    optimizer = f"optimizer._target_={config.optimizer.target}"
    trainer.model.train()
    with _blamed_on(model, "its forward pass fails in training mode"):
        with trainer.device.autocast():
            logits = trainer.training_network(images)
        _check_logits(model, logits, shape, "training")
    if names != {name for name, _ in trainer.model.named_parameters()}:
        raise UserError(
            f"{model}: makes parameters in its first forward pass, which the optimizer does not know;"
            " make them in __init__"
        )
    with _blamed_on(loss, f"fails on logits {shape} and classes ({shape[0]},)"):
        value = trainer.loss(logits, labels)
        if not isinstance(value, Tensor) or value.dim():
            shape_text = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UserError(
                f"{loss}: must give one number for a batch, and gives {shape_text}; set reduction=mean"
            )
    with _blamed_on(f"{model} or {loss}", "the backward pass fails"):
        value.backward()
    if not any("lr" in group for group in trainer.optimizer.param_groups):
        raise UserError(f"{optimizer}: its parameter groups have no lr, which is recorded and scheduled")
    with _blamed_on(optimizer, "its step fails; it must need no closure"):
        trainer.update(images, labels)
    with _blamed_on(f"scheduler._target_={config.scheduler.target}", "its step fails"):
        trainer.schedule.after_step()
        trainer.schedule.after_epoch(dict.fromkeys(METRICS, 1.0))
    trainer.model.eval()
    with _blamed_on(model, "its forward pass fails in eval mode"), torch.inference_mode():
        with trainer.device.autocast():
            logits = trainer.eval_network(images)
        _check_logits(model, logits, shape, "eval")


def _check_logits(model: str, logits: object, shape: tuple[int, int], mode: str) -> None:
    if not isinstance(logits, Tensor):
        raise UserError(
            f"{model}: must give a tensor of logits, and gives a {type(logits).__name__} in {mode} mode"
        )
    if tuple(logits.shape) != shape:
        raise UserError(f"{model}: must give logits {shape} in {mode} mode, and gives {tuple(logits.shape)}")


@contextmanager
def _blamed_on(key: str, problem: str) -> Iterator[None]:
    """Turns any error of the block into a UserError that names the key."""
    try:
        with forbid_exit(key):
            yield
    except (UserError, ExitCalled, Interrupted, OutOfMemory, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a user's own code may raise what it likes
        reason = one_line(f"{type(error).__name__}: {error}")[:MAX_REASON]
        raise UserError(f"{key}: {problem} ({reason})") from error
