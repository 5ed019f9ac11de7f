"""Training, validation and test images: stratified holdout, folds and subsets.

scikit-learn has all three, but importing ``sklearn.model_selection`` would add a second to every start. On
torch they take a few lines. Labels are int64 (N,) on the CPU. The results are int64 positions, ascending.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from bnexp.errors import bad_value, name_list
from bnexp.seeding import generator

log = logging.getLogger(__name__)

CLASSES_SHOWN = 5

Size = int | float  # a count, or a share of the images


class SplitSettings(Protocol):
    """The keys of the dataset group that this module reads."""

    @property
    def val_size(self) -> Size: ...
    @property
    def train_size(self) -> Size | None: ...
    @property
    def folds(self) -> int | None: ...
    @property
    def fold(self) -> int | None: ...


def train_val_indices(
    labels: Tensor, dataset: SplitSettings, seed: int, classes: Sequence[str] = ()
) -> tuple[Tensor, Tensor | None]:
    """(train, val): positions in the training images; val is None if there is no validation.

    Validation images are taken first, and ``train_size`` counts within the remaining images. A ``val_size``
    that is a share then shrinks in proportion; one that is a count stays, and so do its images. Raises
    UserError for a size out of range. Warns of a class without a training or validation image, by its name.
    """
    train, val = torch.arange(len(labels)), None
    stream = generator(seed, "split")
    if dataset.folds is not None:
        assert dataset.fold is not None, "the validation of the config requires fold with folds"
        _check_folds(labels, dataset.folds, classes)
        train, val = fold(labels, dataset.folds, dataset.fold, stream)
    elif dataset.val_size > 0:
        count = _checked_count(
            "dataset.val_size", dataset.val_size, len(labels), "the training images", reserve=1
        )
        train, val = holdout(labels, count, stream)
        parts = {"training": labels[train], "validation": labels[val]}
        _warn_of_missing_classes("dataset.val_size", dataset.val_size, labels, parts, classes)
    if dataset.train_size is not None:
        pool = "the training images" if val is None else "the training images without the validation images"
        available = train
        count = _checked_count("dataset.train_size", dataset.train_size, len(available), pool)
        train = available[subset(labels[available], count, generator(seed, "split", "train"))]
        parts = {"training": labels[train]}
        if val is not None and dataset.folds is None and isinstance(dataset.val_size, float):
            val_count = max(1, round(len(val) * count / len(available)))
            val = val[subset(labels[val], val_count, generator(seed, "split", "val"))]
            parts["validation"] = labels[val]
        _warn_of_missing_classes("dataset.train_size", dataset.train_size, labels[available], parts, classes)
    return train, val


def test_indices(
    labels: Tensor,
    test_size: Size | None,
    classes: Sequence[str] = (),  # noqa: PT028  (this function is no test)
) -> Tensor | None:
    """The positions of the test images in use, the same for every seed; None means all.

    Warns of a class without a test image, by its name in ``classes``.
    """
    if test_size is None:
        return None
    count = _checked_count("dataset.test_size", test_size, len(labels), "the test images")
    index = subset(labels, count, fixed_stream())
    _warn_of_missing_classes("dataset.test_size", test_size, labels, {"test": labels[index]}, classes)
    return index


def fixed_stream() -> torch.Generator:
    """The stream for test sets. It does not depend on the run's seed: all runs have the same test set."""
    return generator(0, "split", "test")


def holdout(labels: Tensor, size: Size, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """(remainder, sample): ``size`` positions (a count or a share), sampled in proportion to the classes.

    Each class gives the whole part of its quota, and the classes with the largest remainders give one more
    (Hamilton's method): every class is less than one image off. Raises ValueError for a size outside 0 to N.
    """
    total = len(labels)
    count = _as_count(size, total)
    if not 0 <= count <= total:
        raise ValueError(f"size={size}: must be from 0 to {total}")
    _, classes, class_sizes = labels.unique(return_inverse=True, return_counts=True)
    shares = class_sizes * count  # in units of 1/total of an image: integers, so no rounding
    quota = shares // max(total, 1)
    missing = count - int(quota.sum())
    quota[(shares % max(total, 1)).argsort(descending=True, stable=True)[:missing]] += 1
    by_class = _shuffle_within_classes(classes, stream)
    starts = class_sizes.cumsum(0) - class_sizes
    rank = torch.arange(total) - starts[classes[by_class]]  # 0, 1, 2 ... within each class
    in_sample = rank < quota[classes[by_class]]
    return by_class[~in_sample].sort().values, by_class[in_sample].sort().values


def fold(labels: Tensor, folds: int, number: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """(train, val) of fold ``number``, from 0 to folds - 1. Each position is in the val of exactly one fold.

    The shuffled classes are dealt out in turn, one image to each fold. So the sizes of two folds, and their
    sizes within a class, differ by one at most. All folds of one partition need the same stream.
    """
    if not 0 <= number < folds:
        raise ValueError(f"fold={number}: must be from 0 to {folds - 1}")
    by_class = _shuffle_within_classes(labels, stream)
    in_fold = torch.arange(len(labels)) % folds == number
    return by_class[~in_fold].sort().values, by_class[in_fold].sort().values


def subset(labels: Tensor, size: Size, stream: torch.Generator) -> Tensor:
    """``size`` positions (a count or a share), sampled in proportion to the classes."""
    return holdout(labels, size, stream)[1]


def _shuffle_within_classes(labels: Tensor, stream: torch.Generator) -> Tensor:
    """All positions, sorted by class and shuffled within each class."""
    shuffled = torch.randperm(len(labels), generator=stream)
    return shuffled[labels[shuffled].argsort(stable=True)]


def _as_count(size: Size, total: int) -> int:
    return size if isinstance(size, int) else round(size * total)


def _checked_count(key: str, size: Size, total: int, pool: str, reserve: int = 0) -> int:
    """``size`` as a number of images; raises UserError unless it is from 1 to ``total - reserve``."""
    count = _as_count(size, total)
    if isinstance(size, int) and count > total - reserve:
        limit = f"below {total}" if reserve else f"at most {total}"
        raise bad_value(key, size, f"must be {limit} ({pool})")
    if not 1 <= count <= total - reserve:
        problem = "takes no image" if count < 1 else "leaves no image to train with"
        raise bad_value(key, size, f"{problem} out of {total} ({pool})")
    return count


def _warn_of_missing_classes(
    key: str, size: Size, labels: Tensor, parts: dict[str, Tensor], classes: Sequence[str]
) -> None:
    """One line if ``key`` leaves no image of a class in a part: it cannot be learned or measured."""
    texts = []
    for part, remaining in parts.items():
        missing = sorted(set(labels.tolist()) - set(remaining.tolist()))
        if missing:
            names = [str(classes[label] if classes else label) for label in missing]
            noun = "class" if len(names) == 1 else f"{len(names)} classes:"
            texts.append(f"no {part} image of {noun} {name_list(names, CLASSES_SHOWN)}")
    if texts:
        log.warning("%s=%s: leaves %s", key, size, "; ".join(texts))


def _check_folds(labels: Tensor, folds: int, names: Sequence[str]) -> None:
    """Raises UserError if a class has fewer images than there are folds."""
    classes, class_sizes = labels.unique(return_counts=True)
    smallest = int(class_sizes.argmin())
    if class_sizes[smallest] < folds:
        label = int(classes[smallest])
        name = names[label] if names else label
        limit = f"must be at most {class_sizes[smallest]}, the training images of class {name}"
        raise bad_value("dataset.folds", folds, limit)
