"""The confusion matrix as text: how often each class was predicted as each other."""

from __future__ import annotations

from collections.abc import Sequence

from bnexp.errors import one_line
from bnexp.runs.confusion import Confusion, class_sizes

MAX_NAME = 12  # letters of a class name


def format_confusion(confusion: Confusion[int], classes: Sequence[str]) -> str:
    """A row a true class, a column a predicted class; each row ends in the accuracy on its class.

    Aligned by hand: rich needs about a second for the 10,000 cells of 100 classes.
    """
    # The columns have numbers for names: so each row has its number too, unless its name is that number.
    are_numbers = all(name == str(i) for i, name in enumerate(classes))
    names = [name if are_numbers else f"{i} {one_line(name)[:MAX_NAME]}" for i, name in enumerate(classes)]
    sizes = class_sizes(confusion)
    name_width = max(len(name) for name in [*names, "true"])
    width = len(str(max(len(names) - 1, *confusion.values()))) + 1
    numbers = "".join(f"{i:>{width}}" for i in range(len(names)))
    lines = [f"{'true':<{name_width}} {numbers}  accuracy"]
    for i, name in enumerate(names):
        accuracy = f"{confusion.get((i, i), 0) / sizes[i]:.4f}" if sizes[i] else "no images"
        cells = "".join(f"{confusion.get((i, j), 0):>{width}}" for j in range(len(names)))
        lines.append(f"{name:<{name_width}} {cells}  {accuracy}")
    return "\n".join(lines)
