"""The confusion matrix: how often each class was predicted as each other."""

from __future__ import annotations

from collections.abc import Sequence

UNEVEN = 1.5  # times as many images in the largest class as in the smallest
MAX_NAME = 12  # letters of a class name


def confusion_matrix(labels: Sequence[int], predictions: Sequence[int], classes: int) -> list[list[int]]:
    """Number of images: a row a true class, a column a predicted class."""
    counts = [[0] * classes for _ in range(classes)]
    for label, prediction in zip(labels, predictions, strict=True):
        counts[label][prediction] += 1
    return counts


def balanced_accuracy(counts: Sequence[Sequence[int]]) -> float | None:
    """The mean of the accuracies of the classes; None where the largest has less than 1.5 times the images
    of the smallest: it then says the same as the accuracy.
    """
    totals = [sum(row) for row in counts if sum(row)]
    if max(totals) < UNEVEN * min(totals):
        return None
    shares = [row[i] / sum(row) for i, row in enumerate(counts) if sum(row)]
    return sum(shares) / len(shares)


def format_confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """The matrix as text; each row ends in the accuracy on its class.

    Aligned by hand: rich needs about a second for the 10,000 cells of 100 classes.
    """
    names = [name[:MAX_NAME] for name in classes]
    name_width = max(len(name) for name in [*names, "true"])
    largest = max(len(names) - 1, *(count for row in counts for count in row))
    width = len(str(largest)) + 1
    numbers = "".join(f"{i:>{width}}" for i in range(len(names)))
    lines = [f"{'true':<{name_width}} {numbers}  accuracy"]
    for i, (name, row) in enumerate(zip(names, counts, strict=True)):
        total = sum(row)
        accuracy = f"{row[i] / total:.4f}" if total else "no images"
        cells = "".join(f"{count:>{width}}" for count in row)
        lines.append(f"{name:<{name_width}} {cells}  {accuracy}")
    return "\n".join(lines)
