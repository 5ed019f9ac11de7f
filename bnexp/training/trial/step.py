"""One step and one evaluation of a trainer, on the first batch of a run: each part in turn, with its name."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from bnexp.config.schema import Config
from bnexp.data import DataSplits
from bnexp.errors import UserError, name_list
from bnexp.seeding import seed_global
from bnexp.training.blame import blamed_on
from bnexp.training.trainer import Trainer
from bnexp.training.trial.loss import check_loss_input, check_one_number
from bnexp.training.trial.shared_tensors import changed_tensor, copied_state, unchanged
from bnexp.training.trial.unregistered import check_all_registered

log = logging.getLogger(__name__)

BATCH_TOLERANCE = {"fp32": 1e-3, "bf16": 0.02, "fp16": 0.02}  # of the largest logit: above the rounding
STEPS = 2  # the first one need not use what it writes, as a moving average of the weights

Tensors = tuple[Tensor, Tensor]


def first_batch(config: Config, splits: DataSplits) -> Tensors:
    """The images (B, C, H, W) and labels (B,) of the first step."""
    order = splits.train.order(config.seed, 1)
    return splits.train.gather(order, slice(0, min(config.batch_size, len(splits.train))))


def try_step(config: Config, trainer: Trainer, batch: Tensors, classes: int) -> None:
    """A forward and a backward pass in parts, then STEPS steps as in a run.

    ``batch`` holds images (B, C, S, S) and labels (B,). Raises UserError with the key of the part that fails.
    """
    images, labels = batch
    shape = (len(images), classes)
    names = {name for name, _ in trainer.model.named_parameters()}
    trainer.train()
    with blamed_on(config.model.title, "its forward pass fails in training mode"):
        with trainer.device.autocast(), unchanged(config.model.title, images=images):
            logits = trainer.training_network(images)
        check_logits(config.model.title, logits, shape, "training")
    if names != {name for name, _ in trainer.model.named_parameters()}:
        raise UserError(
            f"{config.model.title}: makes parameters in its first forward pass, which the optimizer does not"
            " know; make them in __init__"
        )
    with (
        blamed_on(config.loss.title, f"fails on logits {shape} and classes ({shape[0]},)"),
        unchanged(config.loss.title, logits=logits, labels=labels),
    ):
        value = trainer.loss(logits, labels)
        check_one_number(config, value)
    check_loss_input(config, trainer.loss, logits)
    check_all_registered(config.model.title, trainer.model, value)
    with blamed_on(f"{config.model.title} or {config.loss.title}", "the backward pass fails"):
        value.backward()
    _warn_without_gradient(config.model.title, trainer.model)
    if not any("lr" in group for group in trainer.optimizer.param_groups):
        raise UserError(
            f"{config.optimizer.title}: its parameter groups have no lr, which is recorded and scheduled"
        )
    with blamed_on(config.optimizer.title, "its step fails; it must need no closure"):
        for _ in range(STEPS):
            trainer.update(images, labels)


def try_evaluation(config: Config, trainer: Trainer, batch: Tensors, classes: int) -> Tensor:
    """The logits (B, K) in eval mode. Raises UserError where a part fails, or ``eval`` changes no mode."""
    trainer.eval()
    state = copied_state(trainer)
    if any(module.training for module in trainer.model.modules()):
        raise UserError(
            f"{config.model.title}: stays in training mode after eval(); train(mode) must follow mode"
        )
    logits = _evaluate(config, trainer, batch, classes)
    if changed := changed_tensor(trainer, state):
        log.warning(
            f"{config.model.title}: {changed} changes in eval mode: if the logits depend on it, every"
            " evaluation has a part in the next result"
        )
    return logits


def try_last_step(config: Config, trainer: Trainer, splits: DataSplits) -> None:
    """A step with as many images as the last batch of an epoch has: a part may count on a complete batch.

    Raises UserError where it fails.
    """
    count = len(splits.train) % config.batch_size
    if count in (0, len(splits.train)):
        return
    trainer.train()
    title = f"{config.model.title} or {config.loss.title}"
    with blamed_on(title, f"fails in training on {count} images, as the last batch of an epoch has"):
        trainer.update(*splits.train.sample(count))


def try_evaluation_sizes(config: Config, trainer: Trainer, splits: DataSplits) -> None:
    """Evaluations with each number of images that occurs in a run; raises UserError where a part fails."""
    classes = len(splits.classes)
    trainer.eval()
    for part in filter(None, (splits.val, splits.test)):
        for count in {min(config.eval_batch_size, len(part)), len(part) % config.eval_batch_size} - {0}:
            _evaluate(config, trainer, part.sample(count), classes)


def _evaluate(config: Config, trainer: Trainer, batch: Tensors, classes: int) -> Tensor:
    """The logits (B, K) of a network in eval mode, and their loss. Raises UserError where a part fails."""
    images, labels = batch
    problem = f"its forward pass fails in eval mode on {len(images)} images"
    with blamed_on(config.model.title, problem), torch.inference_mode():
        with trainer.device.autocast(), unchanged(config.model.title, images=images):
            logits = trainer.eval_network(images)
        check_logits(config.model.title, logits, (len(images), classes), "eval")
    with (
        blamed_on(config.loss.title, f"fails without gradients on {len(images)} images"),
        torch.inference_mode(),
        trainer.device.autocast(),
        unchanged(config.loss.title, logits=logits, labels=labels),
    ):
        check_one_number(config, trainer.loss(logits, labels))
    return logits


def check_logits(model: str, logits: object, shape: tuple[int, int], mode: str) -> None:
    """Raises UserError unless ``logits`` is a tensor of this shape (B, K)."""
    if not isinstance(logits, Tensor):
        raise UserError(
            f"{model}: must give a tensor of logits, and gives a {type(logits).__name__} in {mode} mode"
        )
    if tuple(logits.shape) != shape:
        raise UserError(f"{model}: must give logits {shape} in {mode} mode, and gives {tuple(logits.shape)}")


def warn_of_mixed_images(config: Config, trainer: Trainer, images: Tensor) -> None:
    """Warns where an image of ``images`` (B, C, S, S) has other logits in half of the batch in eval mode.

    It is so with the statistics of a batch.
    """
    trainer.model.eval()
    half, tolerance = max(1, len(images) // 2), BATCH_TOLERANCE[config.device.precision]
    logits = []
    for count in (len(images), half):
        seed_global(config.seed, "trial")
        try:
            with torch.inference_mode(), trainer.device.autocast():
                logits.append(trainer.eval_network(images[:count])[:half].float())
        except Exception:  # batches of this size need not occur
            return
    if (logits[0] - logits[1]).abs().max() > tolerance * logits[0].abs().max():
        log.warning(
            f"{config.model.title}: in eval mode an image has other logits in another batch:"
            " every result depends on eval_batch_size; running statistics, for example, do not"
        )


def _warn_without_gradient(key: str, network: nn.Module) -> None:
    """Logs the parameters that a backward pass does not reach, as behind a ``detach``: no step moves them."""
    names = [name for name, value in network.named_parameters() if value.requires_grad and value.grad is None]
    if names:
        log.warning(
            f"{key}: the loss does not depend on {name_list(names, 3)}: the first step does not train them"
        )
