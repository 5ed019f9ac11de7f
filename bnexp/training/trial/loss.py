"""The loss in a trial: one number a batch, fitting logits, and the same after a step."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from bnexp.config.schema import Config
from bnexp.errors import UserError
from bnexp.seeding import seed_global
from bnexp.training.blame import blamed_on

log = logging.getLogger(__name__)


def check_one_number(config: Config, value: object) -> None:
    """Raises UserError unless ``value``, what the loss gives for a batch, is a tensor ()."""
    if not isinstance(value, Tensor) or value.dim():
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise UserError(
            f"{config.loss.title}: must give one number for a batch, and gives {shape}; set reduction=mean"
        )


def check_loss_input(config: Config, loss: nn.Module, logits: Tensor) -> None:
    """Raises UserError for NLLLoss on ``logits`` (B, K), and warns of cross entropy on probabilities (B, K).

    No error of torch would show either.
    """
    sums = logits.detach().float().exp().sum(1)
    if isinstance(loss, nn.NLLLoss) and not torch.allclose(sums, torch.ones_like(sums), atol=0.01):
        raise UserError(
            f"{config.loss.title}: needs log-probabilities, and {config.model.title} gives logits;"
            " loss=cross_entropy takes logits"
        )
    sums = logits.detach().float().sum(1)
    is_probability = bool((logits >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=0.01)
    if isinstance(loss, nn.CrossEntropyLoss) and is_probability:
        log.warning(
            f"{config.model.title}: gives probabilities, but cross entropy applies a softmax itself:"
            " give logits"
        )


def check_loss_is_unchanged(
    key: str, first_loss: nn.Module, loss: nn.Module, logits: Tensor, labels: Tensor
) -> None:
    """Raises UserError for a loss that has changed in training: no checkpoint holds it.

    ``first_loss`` has not been trained. ``logits`` (B, K) and ``labels`` (B,) are those of a batch.
    """
    values = []
    for module in (first_loss, loss):
        module.eval()
        seed_global(0, "trial")
        with blamed_on(key, "fails without gradients"), torch.no_grad():
            values.append(module(logits.clone(), labels).float())
    if not torch.allclose(values[0], values[1], rtol=1e-4, equal_nan=True):
        raise UserError(
            f"{key}: changes while it trains, which no checkpoint holds: a resumed run would begin with the"
            " first state again; make what changes part of the network"
        )
