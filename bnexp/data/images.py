"""What a data set is once it is in memory: pixels, labels, classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Images:
    """One part of a data set; ``pixels`` and ``labels`` go together row by row."""

    pixels: Tensor  # uint8 (N, C, H, W), contiguous, 0 to 255
    labels: Tensor  # int64 (N,), each an index into Source.classes

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Images:
        """The same images on ``device``; themselves where they are there already.

        Moved once and handed to several Batches, the pixels of train and val lie there once.
        """
        return Images(self.pixels.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class ImageDataset:
    train: Images
    test: Images
    classes: tuple[str, ...]
