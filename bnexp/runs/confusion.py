"""confusion.csv: how many test images of each class the trained network gives to each class.

One row for each pair of classes that has images, so that the file stays small with 1000 classes. Imports no
torch.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from bnexp.files import write_text

CONFUSION_FILE = "confusion.csv"
BALANCED_ACCURACY = "balanced_accuracy"
UNEVEN = 1.5  # times as many images in the largest class as in the smallest
COLUMNS = ["epoch", "label", "prediction", "images"]
Class = TypeVar("Class", int, str)  # the number of a class, or its name
Confusion = Mapping[tuple[Class, Class], int]  # images by (true class, predicted class), those above 0


def class_sizes(confusion: Confusion[Class]) -> Counter[Class]:
    """The number of images of each true class that has some."""
    sizes: Counter[Class] = Counter()
    for (label, _), images in confusion.items():
        sizes[label] += images
    return sizes


def balanced_accuracy(confusion: Confusion[Class]) -> float | None:
    """The mean over the classes of the share of their images that are recognised (recall).

    None where the largest class has less than 1.5 times the images of the smallest: it then says the same as
    the accuracy. A class without images does not count.
    """
    sizes = class_sizes(confusion)
    if max(sizes.values()) < UNEVEN * min(sizes.values()):
        return None
    return math.fsum(confusion.get((name, name), 0) / size for name, size in sizes.items()) / len(sizes)


def effective_images(confusion: Confusion[Class]) -> float:
    """The size of an even test set on which accuracy varies as much as balanced accuracy does on this one.

    The variance of a mean of K recalls with one error rate e is e(1 - e) sum(1 / n_k) / K², as on
    K² / sum(1 / n_k) images.
    """
    sizes = class_sizes(confusion)
    return len(sizes) ** 2 / math.fsum(1 / size for size in sizes.values())


def metrics_of_test(loss: float, accuracy: float, confusion: Confusion[int]) -> dict[str, float]:
    """``test/...`` for summary.json; with balanced accuracy where the classes are uneven."""
    balanced = balanced_accuracy(confusion)
    extra = {} if balanced is None else {f"test/{BALANCED_ACCURACY}": balanced}
    return {"test/loss": loss, "test/accuracy": accuracy} | extra


def predicted_classes(confusion: Confusion[int], classes: int) -> list[int]:
    """How many images the network gives to each class."""
    counts = [0] * classes
    for (_, prediction), images in confusion.items():
        counts[prediction] += images
    return counts


def write_confusion(run: Path, confusions: Mapping[str, Confusion[int]], classes: Sequence[str]) -> None:
    """Writes the file of a run; ``confusions`` by epoch: final, best."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for epoch, confusion in confusions.items():
        for (label, prediction), images in sorted(confusion.items()):
            writer.writerow([epoch, classes[label], classes[prediction], images])
    write_text(run / CONFUSION_FILE, text.getvalue())


def read_confusion(run: Path) -> dict[str, dict[tuple[str, str], int]]:
    """What ``write_confusion`` wrote, by class names; empty for an older run and a damaged file."""
    confusions: dict[str, dict[tuple[str, str], int]] = {}
    try:
        with (run / CONFUSION_FILE).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, strict=True):
                cells = confusions.setdefault(row["epoch"], {})
                cells[row["label"], row["prediction"]] = int(row["images"])
    except (OSError, ValueError, LookupError, TypeError, csv.Error):
        return {}
    return confusions
