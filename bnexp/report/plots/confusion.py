"""The mean confusion matrix of each group, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bnexp.report.analysis.confusion import MeanConfusion, compared_epoch, mean_confusion
from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.confusion import EPOCHS, MAX_DRAWN_CLASSES
from bnexp.report.plots.style import (
    COLOURS,
    LETTER_WIDTH,
    MAX_GROUPS,
    TEXT_COLOUR,
    WIDE,
    WIDTH,
    Picture,
    group_label,
    shorten,
    shown_blocks,
)

MAX_BLOCKS = 3
MAX_NAME = 16  # letters of a class name
MAX_SIDE, MAX_CELL = 3.6, 0.7  # inches of one matrix, and of one cell
COLUMNS = {WIDE: 4, WIDTH: 2}  # matrices in a row, by the width of the figure
GAP, TITLE, BOTTOM = 0.3, 0.25, 0.25  # inches
MIN_LETTER, MAX_LETTER = 4.5, 8.0  # points, of the numbers in the cells
NUMBER_LETTERS = 2.6  # the width of "12.3" in heights of its letters
DIAGONAL = 0.1  # opacity
SHOWN = 0.05  # percent: smaller shares are drawn, but not written


def draw_confusions(verdict: Verdict) -> list[Picture | None]:
    """A picture of each group at its best learning rate, where validation chose one; else one for each block.

    Of the first MAX_BLOCKS blocks: a matrix takes as long as all curves of a block.
    """
    if verdict.best_blocks:
        best = {id(s): s for c in verdict.best_blocks for s in (c.baseline, c.candidate)}
        summaries = [*best.values()][:MAX_GROUPS]
        return [_picture(verdict, summaries, f"each at its best {verdict.grouping.block_keys[0]}", "")]
    blocks = shown_blocks(verdict)[:MAX_BLOCKS]
    return [
        _picture(verdict, summaries, block, f"-{i + 1}" if i else "")
        for i, (block, summaries) in enumerate(blocks)
    ]


def _picture(verdict: Verdict, summaries: Sequence[GroupSummary], block: str, suffix: str) -> Picture | None:
    """None where no group of the block has recorded it, and where there are too many classes."""
    panels = [
        (_label(summary, verdict, confusion.n), confusion)
        for summary in summaries
        if (confusion := mean_confusion(summary)) is not None
    ]
    classes = list(dict.fromkeys(name for _, confusion in panels for name in confusion.classes))
    if not 1 < len(classes) <= MAX_DRAWN_CLASSES:
        return None
    darkest = max((share for _, c in panels for share in c.mistakes.values()), default=0.0)
    scale = f" The strongest colour is {darkest:.1f} %." if darkest else " No image is confused."
    return Picture(
        f"confusion{suffix}",
        "Which classes are confused?" + (f" ({block})" if block else ""),
        f"confusion matrices of {len(panels)} groups",
        "Each cell: percent of the test images of the true class (row) that are given to a class (column), "
        f"the mean over the runs that trained, {EPOCHS[compared_epoch(summaries[0])]}. The grey diagonal is "
        f"right, coloured cells are wrong.{scale}{_omissions(verdict)}",
        _draw(panels, classes, darkest, WIDE),
        _draw(panels, classes, darkest, WIDTH),
    )


def _label(summary: GroupSummary, verdict: Verdict, n: int) -> str:
    """The group's name and n; with its block where the groups of a picture are of several."""
    if not verdict.best_blocks:
        return group_label(summary, n)
    return f"{shorten(summary.group.full_label)} (n={n})"


def _omissions(verdict: Verdict) -> str:
    """The end of the caption: how many blocks and groups are shown, where some are left out."""
    limits = [] if verdict.best_blocks else [(MAX_BLOCKS, len(verdict.blocks), "blocks")]
    limits.append((MAX_GROUPS, max(map(len, verdict.blocks.values())), "groups"))
    texts = [f"the first {limit} of {count} {noun}" for limit, count, noun in limits if count > limit]
    return f" Shown: {', '.join(texts)}." if texts else ""


def _draw(
    panels: Sequence[tuple[str, MeanConfusion]], classes: Sequence[str], darkest: float, width: float
) -> Any:
    from matplotlib.figure import Figure

    names = [name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…" for name in classes]
    letters = max(map(len, names))
    left, is_upright = 0.45 + LETTER_WIDTH * letters, letters > 2
    bottom = BOTTOM + (LETTER_WIDTH * letters if is_upright else 0.2)
    columns = min(len(panels), COLUMNS[width])
    rows = math.ceil(len(panels) / columns)
    side = min(MAX_SIDE, MAX_CELL * len(names), (width - left - 0.15 - GAP * (columns - 1)) / columns)
    height = rows * (side + TITLE + bottom)
    figure = Figure(figsize=(width, height))
    for number, (label, confusion) in enumerate(panels):
        row, column = divmod(number, columns)
        x, y = left + column * (side + GAP), height - row * (side + TITLE + bottom) - TITLE - side
        axes = figure.add_axes((x / width, y / height, side / width, side / height))
        _draw_matrix(axes, confusion, classes, darkest, side)
        axes.set_title(label, color=TEXT_COLOUR)
        axes.set_xticks(range(len(names)), names, rotation=90 if is_upright else 0)
        axes.set_yticks(range(len(names)), names if column == 0 else [""] * len(names))
        axes.set_xlabel("predicted class")
        if column == 0:
            axes.set_ylabel("true class")
    return figure


def _draw_matrix(
    axes: Any, confusion: MeanConfusion, classes: Sequence[str], darkest: float, side: float
) -> None:
    """The cells with images as squares, with their numbers where these can be read."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    index = {name: i for i, name in enumerate(classes)}
    squares, colours = [], []
    letter = min(MAX_LETTER, 72 * side / len(classes) / NUMBER_LETTERS)
    for (label, prediction), share in confusion.shares.items():
        x, y = index[prediction] - 0.5, index[label] - 0.5
        squares.append([(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)])
        is_right = label == prediction
        colours.append(to_rgba(TEXT_COLOUR, DIAGONAL) if is_right else to_rgba(COLOURS[1], share / darkest))
        if share >= SHOWN and letter >= MIN_LETTER:
            text = f"{share:.0f}" if share >= 99.95 else f"{share:.1f}"
            axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=letter)
    axes.add_collection(PolyCollection(squares, facecolors=colours, linewidths=0))
    axes.set(xlim=(-0.5, len(classes) - 0.5), ylim=(len(classes) - 0.5, -0.5))
    axes.grid(False)
    axes.tick_params(length=0, labelsize=8)
