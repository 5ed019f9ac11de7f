"""Which class is taken for which."""

from __future__ import annotations

from collections.abc import Sequence


def confusion_matrix(labels: Sequence[int], predictions: Sequence[int], classes: int) -> list[list[int]]:
    """Counts, a row a true class, a column a predicted one."""
    counts = [[0] * classes for _ in range(classes)]
    for label, prediction in zip(labels, predictions, strict=True):
        counts[label][prediction] += 1
    return counts


def format_confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """The matrix as text, with each class's own accuracy at the end of its row."""
    names = [name[:12] for name in classes]
    first = max(len(name) for name in [*names, "true"])
    cell = max(len(str(count)) for row in counts for count in row) + 1
    cell = max(cell, len(str(len(names) - 1)) + 1)
    lines = [f"{'true':<{first}} " + "".join(f"{i:>{cell}}" for i in range(len(names))) + "  accuracy"]
    for i, (name, row) in enumerate(zip(names, counts, strict=True)):
        total = sum(row)
        share = f"{row[i] / total:.4f}" if total else "no images"
        lines.append(f"{name:<{first}} " + "".join(f"{count:>{cell}}" for count in row) + f"  {share}")
    return "\n".join(lines)
