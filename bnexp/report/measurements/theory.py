"""Formulas of the literature that a measurement is held against."""

from __future__ import annotations

import math
from collections.abc import Sequence


def gradient_growth(batch_size: int, activation: str = "relu") -> float:
    """By which factor E||dL/dz||^2 grows from a layer to the one below, in a deep network with batch norm.

    Yang et al. 2019, "A mean field theory of batch normalization", equation 25: a wide fully connected
    network at its first weights, batch norm before each activation, batches of ``batch_size`` images.
    ``linear``: (B - 2) / (B - 3). Raises ValueError for fewer than four images and for other activations.
    """
    if batch_size < 4:
        raise ValueError(f"the formula needs at least 4 images, not {batch_size}")
    if activation == "linear":
        return (batch_size - 2) / (batch_size - 3)
    if activation != "relu":
        raise ValueError(f"no formula for {activation}")
    c = -1 / (batch_size - 1)
    angle = math.pi - math.acos(c)
    kernel = (math.sqrt(1 - c**2) + angle * c) / math.pi  # J(c)
    slope = angle / math.pi  # J'(c)
    return (slope + batch_size - 1) / ((batch_size - 3) * (1 - kernel)) - 1 / (batch_size - 3)


def dropout_variance(
    keep_probability: float, weights: Sequence[float], second_moments: Sequence[float]
) -> float:
    """The variance that dropout adds, in training, to a unit sum_i w_i x_i.

    Li et al. 2019, "Understanding the disharmony between dropout and batch normalization by variance shift",
    section 3: ``(1 - p) / p · sum_i w_i² E[x_i²]``. Each x_i is multiplied by 1/p with probability p, else
    by 0, independently. ``second_moments`` are the E[x_i²]. Raises ValueError unless 0 < p <= 1.
    """
    _check_keep_probability(keep_probability)
    total = math.fsum(w * w * moment for w, moment in zip(weights, second_moments, strict=True))
    return (1 - keep_probability) / keep_probability * total


def dropout_variance_ratio(keep_probability: float) -> float:
    """Training variance over eval variance of a batch norm's input straight after dropout: 1/p.

    For inputs of mean 0 (Li et al. 2019, section 3). Raises ValueError unless 0 < p <= 1.
    """
    _check_keep_probability(keep_probability)
    return 1 / keep_probability


def stability_limit(lr: float) -> float:
    """The greatest eigenvalue of the Hessian at which gradient descent is stable: 2/lr.

    On a quadratic function with a greater one the steps grow (Cohen et al. 2021, "Gradient descent on neural
    networks typically occurs at the edge of stability", section 2).
    """
    return 2 / lr


def initial_share(momentum: float, steps: int) -> float:
    """The share of the initial running statistics that is left after ``steps`` updates.

    ``(1 - momentum)^steps``, with momentum as PyTorch defines it: 0.1 leaves 0.9 at each step (Wu & Johnson
    2021, section 3: the exponential moving average).
    """
    return float((1 - momentum) ** steps)


def branch_share(block: int, *, batch_norm: bool) -> float:
    """The share of the variance of a residual block's output that its branch gives, at the first weights.

    Blocks count from 1. With batch norm in the branch 1/(block + 1): each branch adds a variance of 1.
    Without norm, where a branch preserves the variance of its input, 1/2 (De & Smith 2020, "Batch
    normalization biases residual blocks towards the identity function in deep networks", section 3). Raises
    ValueError below 1.
    """
    if block < 1:
        raise ValueError(f"blocks count from 1, not {block}")
    return 1 / (block + 1) if batch_norm else 0.5


def _check_keep_probability(value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"the keep probability must be above 0 and at most 1, not {value}")


def orthogonality_floor(images: int, width: int) -> float:
    """The orthogonality gap in deep layers of a linear network with batch norm, at random weights.

    Daneshmand et al. 2021, "Batch normalization orthogonalizes representations in deep random networks":
    it falls to a value of order width^(-1/2). The constant is derived here. For n images and N features, with
    d = n - 1,

        gap² = 1 / (n d) + v,    v = (1 - 1/d) (d + 2)² / (4 (d + 1) N)

    Batch norm subtracts the mean, so the images lie in d dimensions: the first term. Each feature is a
    normalised Gaussian vector u. The Gram matrix of a layer is the mean of N matrices u u^T, which has the
    variance (1 - 1/d) / N. A small deviation in a layer comes to the next times d / (d + 2); v is the sum of
    this geometric series. Raises ValueError for fewer than three images, and for fewer than 4 features an
    image: the deviations are then not small.
    """
    if images < 3 or width < 4 * images:
        raise ValueError(f"the formula needs 3 images and 4 features an image, not {images} and {width}")
    d = images - 1
    return math.sqrt(1 / (images * d) + (1 - 1 / d) * (d + 2) ** 2 / (4 * (d + 1) * width))
