"""The data sets by name: each becomes uint8 images in memory."""

from __future__ import annotations

import functools
import importlib.util
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from bnexp.data import image_folder, splits, torchvision_sets
from bnexp.data.images import ImageDataset, Images
from bnexp.errors import bad_choice, bad_value

NAMES = ("digits", *torchvision_sets.SETS, "image_folder")
DIGITS_SIDE = 28
DIGITS_TEST_SHARE = 0.2


def load_dataset(
    name: str, root: str | None, resize: int | None, fingerprint: str | None = None
) -> ImageDataset:
    """The data set ``name`` from the files in ``root``; its test images are the same for every seed.

    Only image_folder uses ``resize``, because its images may have any size. The other data sets keep their
    size here and are resized on the device. Raises UserError if files are missing, damaged or misplaced, and
    if the images of a folder no longer have the ``fingerprint`` that a job records.
    """
    if name not in NAMES:
        raise bad_choice("dataset.name", name, NAMES)
    if name == "digits":
        if root is not None:
            raise bad_value("dataset.root", root, "must be null: the digits come with scikit-learn")
        return _load_digits()
    if not root or not root.strip():
        raise bad_value("dataset.root", root, "must be the folder that holds the data")
    folder = Path(os.path.expanduser(root))
    if name == "image_folder":
        return image_folder.load(folder, resize, fingerprint)
    return torchvision_sets.load(name, folder)


@functools.cache
def _load_digits() -> ImageDataset:
    """scikit-learn's 1797 handwritten digits (Alpaydin and Kaynak, 1998), enlarged from 8x8 to 28x28."""
    table = torch.from_numpy(_read_digits_table())  # (N, 65)
    values = table[:, :64].view(-1, 1, 8, 8) * (255 / 16)  # (N, 1, 8, 8); the table's pixels are 0 to 16
    size = (DIGITS_SIDE, DIGITS_SIDE)
    pixels = F.interpolate(values, size, mode="bilinear", align_corners=False)
    # Many values lie halfway between two integers, up to rounding errors: 1e-6 more rounds all of them up.
    pixels = (pixels + 0.5 + 1e-6).floor().to(torch.uint8)
    labels = table[:, 64].to(torch.int64)
    train, test = splits.holdout(labels, DIGITS_TEST_SHARE, splits.fixed_stream())
    classes = tuple("0123456789")
    return ImageDataset(Images(pixels[train], labels[train]), Images(pixels[test], labels[test]), classes)


def _read_digits_table() -> np.ndarray:
    """float64 (1797, 65): in each row 64 pixels from 0 to 16, then the digit."""
    # The same file that load_digits reads. Importing load_digits takes longer than a short run.
    spec = importlib.util.find_spec("sklearn")
    path = Path(spec.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if spec else None
    if path is not None and path.exists():
        return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack([digits.data, digits.target])
