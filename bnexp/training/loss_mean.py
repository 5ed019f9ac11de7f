"""What a loss must be: a mean over the images of a batch, each with its weight."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn

from bnexp.errors import UserError, one_line

TOLERANCE = 1e-5  # relative, of a mean in float32


def weighs_images(loss: nn.Module) -> bool:
    """Whether the loss is a weighted mean over images: by their class, or without the images of one class.

    The ``ignore_index`` of torch's default, -100, is no class.
    """
    if not isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss):
        return False
    return loss.weight is not None or loss.ignore_index >= 0


def image_weights(loss: nn.Module, labels: Tensor) -> Tensor:
    """The weight (N,) of each image in the loss's mean, for classes (N,)."""
    weights = torch.ones(len(labels), device=labels.device)
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss):
        weights = weights if loss.weight is None else loss.weight[labels]
        weights = weights.masked_fill(labels == loss.ignore_index, 0.0)
    return weights


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """A weight for each class (K,), float32 on the CPU: N / (K · its images), for training labels (N,).

    All classes then weigh the same in the loss, and the mean weight of an image is 1 (King and Zeng 2001).
    """
    counts = labels.cpu().bincount(minlength=classes).float()
    return len(labels) / (classes * counts)


def check_is_mean(loss: nn.Module, key: str, classes: int, device: torch.device) -> None:
    """Raises UserError, naming ``key``, if the loss is no (weighted) mean over the images of a batch.

    The mean of two batches must follow from the two: else the validation loss would depend on
    ``eval_batch_size``. Tried in eval mode, in which ``loss`` stays, on random logits. They are right for the
    first images and wrong for the last ones: a function of the mean, as its root, then shows.
    """
    count = 3 * classes + 1
    labels = torch.arange(count) % classes
    logits = torch.randn(count, classes, generator=torch.Generator().manual_seed(0))
    logits[torch.arange(count), labels] += torch.linspace(20, -5, count)
    logits, labels = logits.to(device), labels.to(device)
    loss.eval()
    parts = [slice(0, count), slice(0, 2), slice(2, count)]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of what fails below
        try:
            values = [loss(logits[part], labels[part]) for part in parts]
            total, *losses = [float(value) for value in values]
        except Exception as error:  # a user's own loss may raise what it likes
            problem = one_line(
                f"fails on logits ({count}, {classes}) and classes ({count},) ({one_line(error)})"
            )
            raise UserError(f"{key}: {problem}") from error
    sums = [float(image_weights(loss, labels[part]).sum()) for part in parts[1:]]
    mean = sum(x * weight for x, weight in zip(losses, sums, strict=True)) / sum(sums)
    if not math.isclose(total, mean, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        raise UserError(
            f"{key}: must be a mean over the images of a batch, and is none (reduction=mean makes it one):"
            " the validation loss would depend on eval_batch_size"
        )
