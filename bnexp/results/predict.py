"""Images to the network's input, and its logits to named classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bnexp.data.network_input import NetworkInput
from bnexp.data.single_images import check_pixels, read_images
from bnexp.errors import UserError, bad_value

BATCH_SIZE = 256


class Prediction(NamedTuple):
    """The most probable class of an image, and the probability (softmax) of each class by its name."""

    name: str
    probability: float
    probabilities: dict[str, float]


def preprocess(images: Any, data: NetworkInput) -> Tensor:
    """float32 (N, C, S, S) of image files or of uint8 pixels; raises UserError for anything else."""
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.ascontiguousarray(images))
    is_pixels = isinstance(images, Tensor)
    pixels = check_pixels(images, data) if is_pixels else read_images(_paths(images), data)
    return data.normalization()(pixels)


def predict(network: nn.Module, inputs: Tensor, classes: Sequence[str]) -> list[Prediction]:
    """Classifies what ``preprocess`` returned, float32 (N, C, S, S)."""
    predictions = []
    with torch.inference_mode():
        for batch in inputs.split(BATCH_SIZE):
            for row in network(batch).float().softmax(1):  # (classes,)
                index = int(row.argmax())
                probabilities = dict(zip(classes, row.tolist(), strict=True))
                predictions.append(Prediction(classes[index], float(row[index]), probabilities))
    return predictions


def _paths(images: Any) -> list[Path]:
    if isinstance(images, str | os.PathLike):
        return [Path(images)]
    if isinstance(images, Sequence) and all(isinstance(image, str | os.PathLike) for image in images):
        if not images:
            raise UserError("images: the list is empty")
        return [Path(image) for image in images]
    raise bad_value("images", type(images).__name__, "must be image files, or uint8 pixels (N, C, H, W)")
