"""A trial's checkpoint: a trainer that is restored from it equals the one that goes on."""

from __future__ import annotations

import io
import warnings

import torch
from torch import Tensor

from bnexp.config.schema import Config
from bnexp.errors import UserError
from bnexp.seeding import seed_global
from bnexp.training.blame import blamed_on
from bnexp.training.progress import Progress
from bnexp.training.trainer import Trainer
from bnexp.training.trial.shared_tensors import changed_tensor

SAVED_STATE = (
    "what changes in training must be a parameter or a persistent buffer, and random numbers must come from"
    " the global generators of torch, numpy or Python"
)
LOSS_TOLERANCE, STEP_TOLERANCE = 1e-3, 0.01


def check_is_separate(config: Config, untrained: Trainer, state: dict[str, Tensor]) -> None:
    """Raises UserError where a network is not in its first ``state`` any more, though another was trained."""
    if changed := changed_tensor(untrained, state):
        raise UserError(
            f"{config.model.title}: {changed} is one tensor in all networks that it makes, and changes while"
            " another one is trained; make each layer in __init__"
        )


def check_checkpoint(config: Config, trainer: Trainer, restored: Trainer, images: Tensor) -> None:
    """Restores ``restored`` from what a checkpoint of ``trainer`` holds.

    Raises UserError where the state cannot be saved, or both give other logits for ``images`` (B, C, S, S).
    """
    state = trainer.state(Progress())
    for component in (config.model, config.optimizer, config.scheduler):
        problem = "its state_dict must hold only tensors, numbers, text, lists and dictionaries of them"
        with blamed_on(component.title, problem), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of unusual pickles, and they fail anyway
            file = io.BytesIO()
            torch.save(state[component.key], file)
            file.seek(0)
            state[component.key] = torch.load(file, map_location="cpu", weights_only=True)
    try:
        restored.restore(state)
    except UserError as error:
        raise UserError(f"{config.model.title}: {error}; tensors must keep their names and shapes") from error
    logits = []
    for network in (trainer.model, restored.model):
        network.eval()
        seed_global(config.seed, "trial")
        with torch.inference_mode(), trainer.device.autocast():
            logits.append(network(images).float())
    if not torch.allclose(logits[0], logits[1], rtol=1e-4, atol=1e-5, equal_nan=True):
        raise UserError(
            f"{config.model.title}: gives other logits after it was saved and read again; {SAVED_STATE}"
        )


def check_next_step(
    config: Config, trainer: Trainer, restored: Trainer, batch: tuple[Tensor, Tensor]
) -> None:
    """Raises UserError where ``restored`` takes another step than ``trainer``.

    ``batch`` holds images (B, C, S, S) and labels (B,).
    """
    losses, logits, steps = [], [], []
    for each in (trainer, restored):
        each.train()
        weights = [value.detach().clone() for value in each.parameters]
        seed_global(config.seed, "trial")
        problem = "the step after an evaluation fails"
        with blamed_on(f"{config.model.title} or {config.optimizer.title}", problem):
            outputs = each.update(*batch)
        losses.append(outputs[0].float())
        logits.append(outputs[1].float())
        changes = [new.detach() - old for new, old in zip(each.parameters, weights, strict=True)]
        steps.append(torch.cat([_real(change).float().flatten() for change in changes]))
    if not torch.allclose(logits[0], logits[1], rtol=1e-4, atol=1e-5, equal_nan=True):
        raise UserError(
            f"{config.model.title}: gives other logits in training mode after it was saved"
            f" and read again; {SAVED_STATE}"
        )
    if not torch.allclose(losses[0], losses[1], rtol=LOSS_TOLERANCE, atol=1e-5, equal_nan=True):
        raise UserError(
            f"{config.loss.title}: gives another loss for the same batch in training mode after the run was"
            " saved and read again; its random numbers must come from the global generators of torch, numpy"
            " or Python, and what changes in training must be part of the network"
        )
    # Relative to the whole step: on a GPU the sign of a gradient near 0 is chance.
    if (steps[0] - steps[1]).norm() > STEP_TOLERANCE * steps[0].norm():
        raise UserError(
            f"{config.optimizer.title}: takes another step after it was saved and read"
            " again; what it counts or remembers must be in self.state or in its param_groups"
        )


def _real(value: Tensor) -> Tensor:
    return torch.view_as_real(value) if value.is_complex() else value
