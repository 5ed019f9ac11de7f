"""Which images train, validate and test: stratified holdout, folds and subsets.

scikit-learn has all three, but importing ``sklearn.model_selection`` costs a second of every start, so the
few lines are written out on torch here. All of them work on labels, int64 (N,) on the CPU, and give
ascending positions, int64.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from bnexp.errors import bad_value
from bnexp.seeding import generator

Size = int | float


class Sizes(Protocol):
    """The keys of the dataset group that this module reads."""

    @property
    def val_size(self) -> Size: ...
    @property
    def train_size(self) -> Size | None: ...
    @property
    def folds(self) -> int | None: ...
    @property
    def fold(self) -> int | None: ...


def train_val_indices(labels: Tensor, dataset: Sizes, seed: int) -> tuple[Tensor, Tensor | None]:
    """(positions that train, positions that validate or None) among the training images.

    Validation is set apart first, and ``train_size`` counts within what it leaves: runs that differ only in
    ``train_size`` are judged on the same images. Raises UserError for a size that doesn't fit.
    """
    rest, held, left = torch.arange(len(labels)), None, "the training images"
    stream = generator(seed, "split")
    if dataset.folds is not None:
        assert dataset.fold is not None, "the configuration's own check"
        _check_folds(labels, dataset.folds)
        rest, held = fold(labels, dataset.folds, dataset.fold, stream)
    elif dataset.val_size > 0:
        count = _count("dataset.val_size", dataset.val_size, len(labels), left, keep=1)
        rest, held = holdout(labels, count, stream)
    if held is not None:
        left = "the training images that validation leaves"
    if dataset.train_size is not None:
        count = _count("dataset.train_size", dataset.train_size, len(rest), left)
        rest = rest[subset(labels[rest], count, generator(seed, "split", "train"))]
    return rest, held


def test_indices(labels: Tensor, test_size: Size | None) -> Tensor | None:
    """The positions of the test images in use, or None for all; the same ones for every seed."""
    if test_size is None:
        return None
    count = _count("dataset.test_size", test_size, len(labels), "the test images")
    return subset(labels, count, fixed_stream())


def fixed_stream() -> torch.Generator:
    """The stream of test sets, which no seed moves: runs with different seeds face the same test."""
    return generator(0, "split", "test")


def holdout(labels: Tensor, size: Size, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """(rest, held): exactly ``size`` positions held out, a count or a share, in the classes' proportions.

    Each class gives the whole part of its quota and the largest remainders one more (Hamilton's method), so
    that no class is off by one image or more. Raises ValueError for a size outside 0 to N.
    """
    total = len(labels)
    count = _resolve(size, total)
    if not 0 <= count <= total:
        raise ValueError(f"size={size}: must be from 0 to {total}")
    _, classes, members = labels.unique(return_inverse=True, return_counts=True)
    shares = members * count  # in units of 1/total of an image, so that no rounding enters
    quota = shares // max(total, 1)
    missing = count - int(quota.sum())
    quota[(shares % max(total, 1)).argsort(descending=True, stable=True)[:missing]] += 1
    grouped = _grouped(classes, stream)
    starts = members.cumsum(0) - members
    rank = torch.arange(total) - starts[classes[grouped]]  # 0, 1, 2 ... within each class
    held = rank < quota[classes[grouped]]
    return grouped[~held].sort().values, grouped[held].sort().values


def fold(labels: Tensor, folds: int, fold: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """(rest, held) for one of ``folds`` parts that together hold each position once.

    The shuffled classes are dealt like cards, one after the other: the parts' sizes, and those of every class
    in them, differ by one at most. The same stream is needed for every fold of one partition.
    """
    if not 0 <= fold < folds:
        raise ValueError(f"fold={fold}: must be from 0 to {folds - 1}")
    grouped = _grouped(labels, stream)
    held = torch.arange(len(labels)) % folds == fold
    return grouped[~held].sort().values, grouped[held].sort().values


def subset(labels: Tensor, size: Size, stream: torch.Generator) -> Tensor:
    """``size`` positions, a count or a share, in the classes' proportions."""
    return holdout(labels, size, stream)[1]


def _grouped(labels: Tensor, stream: torch.Generator) -> Tensor:
    """All positions, class after class, shuffled within each."""
    shuffled = torch.randperm(len(labels), generator=stream)
    return shuffled[labels[shuffled].argsort(stable=True)]


def _resolve(size: Size, total: int) -> int:
    return size if isinstance(size, int) else round(size * total)


def _count(key: str, size: Size, total: int, pool: str, keep: int = 0) -> int:
    """``size`` as a count that takes at least one of ``total`` images and leaves ``keep``."""
    count = _resolve(size, total)
    if isinstance(size, int) and count > total - keep:
        limit = f"below {total}" if keep else f"at most {total}"
        raise bad_value(key, size, f"must be {limit} ({pool})")
    if not 1 <= count <= total - keep:
        part = "takes no image" if count < 1 else "leaves no image to train with"
        raise bad_value(key, size, f"{part} out of {total} ({pool})")
    return count


def _check_folds(labels: Tensor, folds: int) -> None:
    values, members = labels.unique(return_counts=True)
    fewest = int(members.argmin())
    if members[fewest] < folds:
        allowed = f"must be at most {members[fewest]}, the training images of class {values[fewest]}"
        raise bad_value("dataset.folds", folds, allowed)
