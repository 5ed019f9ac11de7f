"""One step and one evaluation on a copy, before training: mistakes that only a step shows are told at once.

Networks of bnexp with torch's usual optimizers, schedulers and losses need no trial.
"""

from __future__ import annotations

import copy
import io
import logging
import math
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bnexp.config.schema import Config
from bnexp.data import DataSplits
from bnexp.errors import ExitCalled, Interrupted, OutOfMemory, UserError, describe, forbid_exit, place_of
from bnexp.seeding import global_rng_state, seed_global, set_global_rng_state
from bnexp.signals import installed_handlers
from bnexp.training.progress import Progress
from bnexp.training.trainer import Trainer
from bnexp.training.unregistered import check_all_registered

log = logging.getLogger(__name__)

KNOWN_TARGETS = {
    "model": ("bnexp.models.",),
    "optimizer": tuple(f"torch.optim.{name}" for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad")),
    "scheduler": (
        "bnexp.training.schedulers.",
        *(
            f"torch.optim.lr_scheduler.{name}LR"
            for name in ("CosineAnnealing", "Exponential", "Polynomial", "Step")
        ),
    ),
    "loss": ("bnexp.training.losses.", "torch.nn.CrossEntropyLoss", "torch.nn.MultiMarginLoss"),
}
# The keys of torch's known optimizers that need no trial. Others can ask for what a step does not support.
KNOWN_OPTIMIZER_KEYS = {"lr", "momentum", "nesterov", "weight_decay", "betas", "eps"}
METRICS = tuple(f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "accuracy"))
SAVED_STATE = (
    "what changes in training must be a parameter or a persistent buffer, and random numbers must come from"
    " the global generators of torch, numpy or Python"
)
BATCH_TOLERANCE = {"fp32": 1e-3, "bf16": 0.02, "fp16": 0.02}  # of the largest logit: above the rounding
STEP_TOLERANCE = 0.01
MAX_REASON = 300  # characters of an error's text
MAX_SCHEDULE_STEPS = 10_000  # of a scheduler before training: 0.1 s


def needs_trial(config: Config) -> bool:
    """Whether a component is not among those that are known to work together."""
    components = (config.model, config.optimizer, config.scheduler, config.loss)
    if not KNOWN_OPTIMIZER_KEYS.issuperset(config.optimizer.keys):
        return True
    return any(
        component.target is not None and not component.target.startswith(KNOWN_TARGETS[component.key])
        for component in components
    )


def try_components(
    config: Config, network: nn.Module, splits: DataSplits, make_trainer: Callable[[nn.Module], Trainer]
) -> None:
    """Trains a copy of ``network`` for one step and evaluates it; random numbers stay as they were.

    A second copy is restored from what a checkpoint of the first holds, must give the same logits, and must
    take the same next step. Raises UserError that names the key of the part which fails.
    """
    device = next(network.parameters()).device
    state = global_rng_state(device)
    steps_per_epoch = splits.train.steps(config.batch_size)
    try:
        trainer = make_trainer(copy.deepcopy(network))
        handlers = installed_handlers()
        batch = _try_components(config, trainer, splits)
        _check_handlers(config, handlers)
        count = config.epochs * (steps_per_epoch if trainer.schedule.interval == "step" else 1)
        count = min(count, MAX_SCHEDULE_STEPS)
        _step_schedule(config, trainer, range(1, min(count, 1) + 1))
        restored = make_trainer(copy.deepcopy(network))
        _check_checkpoint(config, trainer, restored, batch[0])
        _warn_of_numbers(config, trainer.model, restored.model)
        _check_next_step(config, trainer, restored, batch)
        for other in (trainer, restored):
            _step_schedule(config, other, range(2, min(count, 2) + 1))
        _check_equal_lr(config, trainer, restored)
        _step_schedule(config, trainer, range(3, count + 1))
    finally:
        set_global_rng_state(state, device)


def _try_components(config: Config, trainer: Trainer, splits: DataSplits) -> tuple[Tensor, Tensor]:
    """One step and one evaluation; returns the images (B, C, H, W) and labels (B,) of the step."""
    order = splits.train.order(config.seed, 1)
    images, labels = splits.train.gather(order, slice(0, min(config.batch_size, len(splits.train))))
    shape = (len(images), len(splits.classes))
    names = {name for name, _ in trainer.model.named_parameters()}
    model, loss = f"model._target_={config.model.target}", f"loss._target_={config.loss.target}"
    optimizer = f"optimizer._target_={config.optimizer.target}"
    first_loss = copy.deepcopy(trainer.loss)
    _check_lr(config, trainer, "at the beginning")
    trainer.model.train()
    with blamed_on(model, "its forward pass fails in training mode"):
        with trainer.device.autocast():
            logits = trainer.training_network(images)
        _check_logits(model, logits, shape, "training")
    if names != {name for name, _ in trainer.model.named_parameters()}:
        raise UserError(
            f"{model}: makes parameters in its first forward pass, which the optimizer does not know;"
            " make them in __init__"
        )
    with blamed_on(loss, f"fails on logits {shape} and classes ({shape[0]},)"):
        value = trainer.loss(logits, labels)
        if not isinstance(value, Tensor) or value.dim():
            shape_text = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UserError(
                f"{loss}: must give one number for a batch, and gives {shape_text}; set reduction=mean"
            )
    _check_loss_input(config, trainer.loss, logits)
    check_all_registered(model, trainer.model, value)
    with blamed_on(f"{model} or {loss}", "the backward pass fails"):
        value.backward()
    _warn_without_gradient(model, trainer.model)
    if not any("lr" in group for group in trainer.optimizer.param_groups):
        raise UserError(f"{optimizer}: its parameter groups have no lr, which is recorded and scheduled")
    with blamed_on(optimizer, "its step fails; it must need no closure"):
        trainer.update(images, labels)
    _check_loss_is_unchanged(loss, first_loss, trainer.loss, logits.detach(), labels)
    trainer.model.eval()
    if any(module.training for module in trainer.model.modules()):
        raise UserError(f"{model}: stays in training mode after eval(); train(mode) must follow mode")
    with blamed_on(model, "its forward pass fails in eval mode"), torch.inference_mode():
        with trainer.device.autocast():
            logits = trainer.eval_network(images)
        _check_logits(model, logits, shape, "eval")
    _warn_of_mixed_images(config, trainer, images)
    return images, labels


def _check_handlers(config: Config, handlers: Mapping[int, object]) -> None:
    """Raises UserError where a step or an evaluation replaces the handler of a stop signal."""
    replaced = [
        signal.Signals(n).name for n, handler in installed_handlers().items() if handlers[n] != handler
    ]
    if replaced:
        raise UserError(
            f"model._target_={config.model.target}: its forward pass sets a handler of {', '.join(replaced)}:"
            " the run could not be stopped and saved; take it out"
        )


def _warn_of_mixed_images(config: Config, trainer: Trainer, images: Tensor) -> None:
    """Logs where an image has other logits in half of its batch in eval mode, as with batch statistics."""
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
            f"model._target_={config.model.target}: in eval mode an image has other logits in another batch:"
            " every result depends on eval_batch_size; running statistics, for example, do not"
        )


def _warn_without_gradient(key: str, network: nn.Module) -> None:
    """Logs the parameters that a backward pass does not reach, as behind a ``detach``: no step moves them."""
    names = [name for name, value in network.named_parameters() if value.requires_grad and value.grad is None]
    if names:
        listing = f"{', '.join(names[:3])}{' ...' * (len(names) > 3)}"
        log.warning(f"{key}: the loss does not depend on {listing}: the first step does not train them")


def _check_loss_input(config: Config, loss: nn.Module, logits: Tensor) -> None:
    """A loss of torch that needs log-probabilities, or logits, and gets the other: no error would show it."""
    model = f"model._target_={config.model.target}"
    sums = logits.detach().float().exp().sum(1)
    if isinstance(loss, nn.NLLLoss) and not torch.allclose(sums, torch.ones_like(sums), atol=0.01):
        raise UserError(
            f"loss._target_={config.loss.target}: needs log-probabilities, and {model} gives logits;"
            " loss=cross_entropy takes logits"
        )
    sums = logits.detach().float().sum(1)
    is_probability = bool((logits >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=0.01)
    if isinstance(loss, nn.CrossEntropyLoss) and is_probability:
        log.warning(f"{model}: gives probabilities, but cross entropy applies a softmax itself: give logits")


def _check_loss_is_unchanged(
    key: str, first_loss: nn.Module, loss: nn.Module, logits: Tensor, labels: Tensor
) -> None:
    """Raises UserError for a loss that changes in training: no checkpoint holds it."""
    values = []
    for module in (first_loss, loss):
        seed_global(0, "trial")
        with blamed_on(key, "fails without gradients"), torch.no_grad():
            values.append(module(logits, labels).float())
    if not torch.allclose(values[0], values[1], rtol=1e-4, equal_nan=True):
        raise UserError(
            f"{key}: changes while it trains, which no checkpoint holds: a resumed run would begin with the"
            " first state again; make what changes part of the network"
        )


def _check_checkpoint(config: Config, trainer: Trainer, restored: Trainer, images: Tensor) -> None:
    """Raises UserError where a checkpoint does not hold all that a resumed run and bnexp-eval need."""
    state = trainer.state(Progress())
    for part in ("model", "optimizer", "scheduler"):
        key = f"{part}._target_={getattr(config, part).target}"
        problem = "its state_dict must hold only tensors, numbers, text, lists and dictionaries of them"
        with blamed_on(key, problem), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of unusual pickles, and they fail anyway
            file = io.BytesIO()
            torch.save(state[part], file)
            file.seek(0)
            state[part] = torch.load(file, map_location="cpu", weights_only=True)
    restored.restore(state)
    logits = []
    for network in (trainer.model, restored.model):
        network.eval()
        seed_global(config.seed, "trial")
        with torch.inference_mode(), trainer.device.autocast():
            logits.append(network(images).float())
    if not torch.allclose(logits[0], logits[1], rtol=1e-4, atol=1e-5, equal_nan=True):
        raise UserError(
            f"model._target_={config.model.target}: gives other logits after it was saved and read again;"
            f" {SAVED_STATE}"
        )


def _warn_of_numbers(config: Config, network: nn.Module, restored: nn.Module) -> None:
    """Logs a number in an attribute of a network that a step changes: its effect may come later."""
    for (name, module), other in zip(network.named_modules(), restored.modules(), strict=True):
        for attribute, value in vars(module).items():
            is_number = isinstance(value, int | float) and attribute != "training"
            if is_number and vars(other).get(attribute) != value:
                path = ".".join(filter(None, (name, attribute)))
                log.warning(
                    f"model._target_={config.model.target}: {path} changes in training, and no checkpoint"
                    " holds it: if a result depends on it, a resumed run and bnexp-eval give another one; a"
                    " buffer (register_buffer) is saved"
                )


def _check_next_step(
    config: Config, trainer: Trainer, restored: Trainer, batch: tuple[Tensor, Tensor]
) -> None:
    """Raises UserError where the restored trainer takes another step than the one that goes on."""
    logits, steps = [], []
    for one_trainer in (trainer, restored):
        one_trainer.model.train()
        weights = [value.detach().clone() for value in one_trainer.parameters]
        seed_global(config.seed, "trial")
        with blamed_on(f"optimizer._target_={config.optimizer.target}", "its second step fails"):
            logits.append(one_trainer.update(*batch)[1].float())
        changes = [new.detach() - old for new, old in zip(one_trainer.parameters, weights, strict=True)]
        steps.append(torch.cat([change.float().flatten() for change in changes]))
    if not torch.allclose(logits[0], logits[1], rtol=1e-4, atol=1e-5, equal_nan=True):
        raise UserError(
            f"model._target_={config.model.target}: gives other logits in training mode after it was saved"
            f" and read again; {SAVED_STATE}"
        )
    # Relative to the whole step: on a GPU the sign of a gradient near 0 is chance.
    if (steps[0] - steps[1]).norm() > STEP_TOLERANCE * steps[0].norm():
        raise UserError(
            f"optimizer._target_={config.optimizer.target}: takes another step after it was saved and read"
            " again; what it counts or remembers must be in self.state or in its param_groups"
        )


def _check_equal_lr(config: Config, trainer: Trainer, restored: Trainer) -> None:
    rates = [
        [float(group.get("lr", 0)) for group in one_trainer.optimizer.param_groups]
        for one_trainer in (trainer, restored)
    ]
    if not all(map(math.isclose, *rates)):
        raise UserError(
            f"scheduler._target_={config.scheduler.target}: gives the learning rate {rates[1][0]:g} after it"
            f" was saved and read again, not {rates[0][0]:g}; its state_dict must hold what it counts"
        )


def _step_schedule(config: Config, trainer: Trainer, numbers: range) -> None:
    """Takes these steps of the scheduler; raises UserError where one fails or gives no learning rate."""
    schedule = trainer.schedule
    if schedule.scheduler is None:
        return
    for number in numbers:
        with blamed_on(f"scheduler._target_={config.scheduler.target}", f"its step {number} fails"):
            schedule.after_step()
            schedule.after_epoch(dict.fromkeys(METRICS, 1.0))
        _check_lr(config, trainer, f"after step {number} of the scheduler")


def _check_lr(config: Config, trainer: Trainer, moment: str) -> None:
    part = "optimizer" if config.scheduler.target is None else "scheduler"
    for group in trainer.optimizer.param_groups:
        lr = group.get("lr", 0.0)  # without one: reported after the first step
        is_number = isinstance(lr, int | float | Tensor) and math.isfinite(lr) and lr >= 0
        if not is_number:
            raise UserError(
                f"{part}._target_={getattr(config, part).target}: the learning rate is {lr} {moment};"
                " must be a finite number, at least 0"
            )


def _check_logits(model: str, logits: object, shape: tuple[int, int], mode: str) -> None:
    if not isinstance(logits, Tensor):
        raise UserError(
            f"{model}: must give a tensor of logits, and gives a {type(logits).__name__} in {mode} mode"
        )
    if tuple(logits.shape) != shape:
        raise UserError(f"{model}: must give logits {shape} in {mode} mode, and gives {tuple(logits.shape)}")


@contextmanager
def blamed_on(key: str, problem: str) -> Iterator[None]:
    """Turns any error of the block into a UserError that names the key."""
    try:
        with forbid_exit(key):
            yield
    except (UserError, ExitCalled, Interrupted, OutOfMemory, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a user's own code may raise what it likes
        reason = "; ".join(filter(None, (describe(error)[:MAX_REASON], place_of(error))))
        raise UserError(f"{key}: {problem} ({reason})") from error
