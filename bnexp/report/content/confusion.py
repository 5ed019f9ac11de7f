"""The largest confusions as a table, where there are too many classes for a picture."""

from __future__ import annotations

from bnexp.report.analysis.confusion import largest_confusions, mean_confusion
from bnexp.report.analysis.verdict import Verdict

MAX_DRAWN_CLASSES = 20  # whose names can be read in a picture
MAX_PAIRS = 15  # rows of the table
EPOCHS = {"best": "at the epoch chosen by validation", "final": "at the final epoch"}


def confusion_table(verdict: Verdict) -> list[list[str]]:
    """Titles and rows: percent of the true class's test images by group; empty where a picture shows them."""
    columns = [
        (summary.group.name, confusion)
        for summary in verdict.summaries
        if (confusion := mean_confusion(summary)) and len(confusion.classes) > MAX_DRAWN_CLASSES
    ]
    pairs = largest_confusions([confusion for _, confusion in columns], MAX_PAIRS)
    titles = ["true class", "predicted class", *(name for name, _ in columns)]
    rows = [[*pair, *(f"{c.shares.get(pair, 0.0):.1f} %" for _, c in columns)] for pair in pairs]
    return [titles, *rows] if rows else []
