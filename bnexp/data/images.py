"""A data set in memory: pixels, labels, classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Images:
    """One part of a data set; row i of ``pixels`` has the label i of ``labels``."""

    pixels: Tensor  # uint8 (N, C, H, W), contiguous, 0 to 255
    labels: Tensor  # int64 (N,), indices into ImageDataset.classes

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Images:
        """The same images on ``device``, without a copy if they are there already.

        Move the training images once and give them to several Split: then train and val share their pixels.
        """
        return Images(self.pixels.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class ImageDataset:
    train: Images
    test: Images
    classes: tuple[str, ...]
    white: int = 255  # the value that became 255, in files with 16 bits a channel
    notes: tuple[str, ...] = ()  # what reading the images has shown, for the log of each run
