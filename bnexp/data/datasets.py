"""Where images come from: a name and a folder in, uint8 arrays out."""

from __future__ import annotations

import functools
import importlib.util
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


def load_dataset(name: str, root: str | None, resize: int | None) -> ImageDataset:
    """The data set ``name`` from the files in ``root``, its test part the same for every seed.

    ``resize`` matters to image_folder alone, whose images come in any size; the others are kept as they
    are and resized on the device. Raises UserError where the data are not there, damaged or badly laid out.
    """
    if name not in NAMES:
        raise bad_choice("dataset.name", name, NAMES)
    if name == "digits":
        if root is not None:
            raise bad_value("dataset.root", root, "must be null: the digits come with scikit-learn")
        return _digits()
    if not root:
        raise bad_value("dataset.root", root, "must be the folder that holds the data")
    place = Path(root).expanduser()
    if name == "image_folder":
        return image_folder.load(place, resize)
    return torchvision_sets.load(name, place)


@functools.cache
def _digits() -> ImageDataset:
    """scikit-learn's 1797 handwritten digits (Alpaydin and Kaynak, 1998), 8x8, brought to MNIST's 28x28."""
    table = torch.from_numpy(_digits_table())  # (N, 65)
    values = table[:, :64].view(-1, 1, 8, 8) * (255 / 16)  # (N, 1, 8, 8), from 0 to 16
    size = (DIGITS_SIDE, DIGITS_SIDE)
    pixels = F.interpolate(values, size, mode="bilinear", align_corners=False)
    # Many values lie halfway between two integers, to a machine's last bit: all of those go up.
    pixels = (pixels + 0.5 + 1e-6).floor().to(torch.uint8)
    labels = table[:, 64].to(torch.int64)
    train, test = splits.holdout(labels, DIGITS_TEST_SHARE, splits.fixed_stream())
    classes = tuple("0123456789")
    return ImageDataset(Images(pixels[train], labels[train]), Images(pixels[test], labels[test]), classes)


def _digits_table() -> np.ndarray:
    """A row of 64 pixels from 0 to 16 and the digit for each image, float64 (1797, 65)."""
    # load_digits reads this file too, but importing it takes longer than a short run.
    found = importlib.util.find_spec("sklearn")
    path = Path(found.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if found else None
    if path is not None and path.exists():
        return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack([digits.data, digits.target])
