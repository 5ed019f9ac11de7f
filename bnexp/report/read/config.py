"""A run's saved configuration, read safely, and what it says about the data."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from bnexp.config.overrides import flatten
from bnexp.errors import UserError, one_line

CONFIG_FILE = Path(".hydra") / "config.yaml"
MAX_BYTES = 1 << 20  # a configuration has about 1,500


class DatasetFacts(NamedTuple):
    """Images and classes of a data set; ``majority`` is the largest class's share of the test images."""

    train: int
    test: int
    classes: int
    majority: float


# For runs whose summary does not record these numbers.
KNOWN_DATASETS = {
    "mnist": DatasetFacts(60_000, 10_000, 10, 0.1135),
    "fashion_mnist": DatasetFacts(60_000, 10_000, 10, 0.1),
    "cifar10": DatasetFacts(50_000, 10_000, 10, 0.1),
    "digits": DatasetFacts(1438, 359, 10, 0.103),
}


def read_config(folder: Path) -> dict[str, Any]:
    """The saved configuration with dotted keys; a list stays one value.

    Reads plain YAML: no tags that run code, no interpolation. Raises UserError for a damaged file.
    """
    import yaml

    path = folder / CONFIG_FILE
    try:
        text = path.read_text(encoding="utf-8") if path.stat().st_size <= MAX_BYTES else ""
        if not text or re.search(r"(^|[\s\[,])\*\w", text):  # nested aliases can fill the memory
            raise UserError(f"{CONFIG_FILE}: damaged (empty, above 1 MiB, or with YAML aliases)")
        # libyaml is fast, and reads no half of a surrogate pair: a path with a byte that is no UTF-8 has one.
        is_fast = hasattr(yaml, "CSafeLoader") and not re.search(r"\\u[dD][89a-fA-F]", text)
        values = yaml.load(text, yaml.CSafeLoader if is_fast else yaml.SafeLoader)
    except OSError as error:
        raise UserError(f"{CONFIG_FILE}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(one_line(f"{CONFIG_FILE}: damaged ({error})")) from None
    if not isinstance(values, dict):
        raise UserError(f"{CONFIG_FILE}: damaged (no keys in it)")
    return flatten(values)


def image_counts(
    settings: Mapping[str, Any], summary: Mapping[str, Any]
) -> tuple[dict[str, int], int | None]:
    """Number of images of each split, and number of classes.

    Taken from the summary where it records them, else computed from a known data set and the configured
    sizes.
    """
    recorded, classes = summary.get("images"), positive_int(summary.get("classes"))
    if isinstance(recorded, dict):
        return {str(split): count for split, count in recorded.items() if positive_int(count)}, classes
    train, test = 0, 0
    if facts := _known_dataset(settings):
        train, test, classes = facts.train, facts.test, classes or facts.classes
    folds, counts = positive_int(settings.get("dataset.folds")), {}
    counts["val"] = _count(1 / folds if folds else settings.get("dataset.val_size"), train)
    counts["train"] = _count(settings.get("dataset.train_size"), train) or train - counts["val"]
    counts["test"] = _count(settings.get("dataset.test_size"), test) or test
    return {split: count for split, count in counts.items() if count > 0}, classes


def _count(size: object, total: int) -> int:
    """A size of 1 or more is a count; below 1 it is a fraction of ``total``."""
    if isinstance(size, bool) or not isinstance(size, int | float) or size <= 0:
        return 0
    return round(size if size >= 1 else size * total)


def majority_share(
    settings: Mapping[str, Any], summary: Mapping[str, Any], classes: int | None
) -> float | None:
    """The largest class's share of the test images; 1 / classes for data that nothing is known about."""
    recorded = summary.get("majority")
    if isinstance(recorded, float) and 0 < recorded <= 1:
        return recorded
    if facts := _known_dataset(settings):
        return facts.majority
    return 1 / classes if classes else None


def _known_dataset(settings: Mapping[str, Any]) -> DatasetFacts | None:
    return KNOWN_DATASETS.get(str(settings.get("dataset.name")))


def pop_delta(settings: dict[str, Any]) -> float | None:
    """Takes ``dataset.delta`` out of ``settings``; for runs without the key, the shipped default."""
    if "dataset.delta" not in settings:
        return _shipped_delta(str(settings.get("dataset.name")))
    value = settings.pop("dataset.delta")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        raise UserError(one_line(f"{CONFIG_FILE}: dataset.delta={value!r} is no positive number"))
    return value


@cache
def _shipped_delta(dataset: str) -> float | None:
    import yaml

    path = importlib.resources.files("bnexp.conf") / "dataset" / f"{dataset}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")).get("delta") if path.is_file() else None


def positive_int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
