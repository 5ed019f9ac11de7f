"""Formulas of the literature that a measurement is held against."""

from __future__ import annotations

import math


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
