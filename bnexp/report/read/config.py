"""What a run was told: its saved configuration, read safely, and what it says of the data."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bnexp.config.overrides import flatten
from bnexp.errors import UserError, one_line

CONFIG = Path(".hydra") / "config.yaml"
LARGEST = 1 << 20  # bytes; a configuration has about 1,500
# Where an older run's summary does not count: train, test, classes; the test share of the largest class.
KNOWN = {
    "mnist": (60_000, 10_000, 10, 0.1135),
    "fashion_mnist": (60_000, 10_000, 10, 0.1),
    "cifar10": (50_000, 10_000, 10, 0.1),
    "digits": (1438, 359, 10, 0.103),
}


def read_config(folder: Path) -> dict[str, Any]:
    """The saved configuration as dotted keys; lists are values. Plain YAML, safely, no interpolation."""
    import yaml

    path = folder / CONFIG
    try:
        text = path.read_text() if path.stat().st_size <= LARGEST else ""
        if not text or re.search(r"(^|[\s\[,])\*\w", text):  # aliases could grow without bound
            raise UserError(f"{CONFIG}: damaged (empty, above 1 MiB, or with YAML aliases)")
        values = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise UserError(f"{CONFIG}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(one_line(f"{CONFIG}: damaged ({error})")) from None
    if not isinstance(values, dict):
        raise UserError(f"{CONFIG}: damaged (no keys in it)")
    return flatten(values)


def image_counts(
    settings: Mapping[str, Any], summary: Mapping[str, Any]
) -> tuple[dict[str, int], int | None]:
    """Images by split, and classes: the summary's own counts, or those of a known data set and its sizes."""
    own, classes = summary.get("images"), positive(summary.get("classes"))
    if isinstance(own, dict):
        return {str(split): number for split, number in own.items() if positive(number)}, classes
    train, test, known, _ = KNOWN.get(str(settings.get("dataset.name")), (0, 0, None, None))
    folds, sizes = positive(settings.get("dataset.folds")), {}
    sizes["val"] = _size(1 / folds if folds else settings.get("dataset.val_size"), train)
    sizes["train"] = _size(settings.get("dataset.train_size"), train) or train - sizes["val"]
    sizes["test"] = _size(settings.get("dataset.test_size"), test) or test
    return {split: number for split, number in sizes.items() if number > 0}, classes or known


def _size(size: object, whole: int) -> int:
    """A count, or a share of the whole."""
    if isinstance(size, bool) or not isinstance(size, int | float) or size <= 0:
        return 0
    return round(size if size >= 1 else size * whole)


def largest_class(
    settings: Mapping[str, Any], summary: Mapping[str, Any], classes: int | None
) -> float | None:
    """The share of the largest class of the test images; of unknown data as if all were of one size."""
    own = summary.get("majority")
    if isinstance(own, float) and 0 < own <= 1:
        return own
    known = KNOWN.get(str(settings.get("dataset.name")))
    return known[3] if known else 1 / classes if classes else None


def delta_of(settings: dict[str, Any]) -> float | None:
    """Takes dataset.delta out of the configuration; of older runs, which have none, the shipped default."""
    if "dataset.delta" not in settings:
        return _shipped_delta(str(settings.get("dataset.name")))
    value = settings.pop("dataset.delta")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        raise UserError(one_line(f"{CONFIG}: dataset.delta={value!r} is no positive number"))
    return value


@cache
def _shipped_delta(name: str) -> float | None:
    import yaml

    found = importlib.resources.files("bnexp.conf") / "dataset" / f"{name}.yaml"
    return yaml.safe_load(found.read_text()).get("delta") if found.is_file() else None


def positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
