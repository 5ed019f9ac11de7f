"""How pictures are drawn: one style, colours and marks a group keeps throughout, SVG and PNG of a figure.

Colours after Okabe and Ito (2008), the baseline in the text's own colour, with a marker and a dash a group.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO

from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.verdict import Comparison

INK = "#101112"  # stands for the text's colour: the page swaps it for its own, light or dark
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS, DASHES = "osD^vP*", ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
LONGEST = 28  # letters of a name in a legend
MOST, MOST_BLOCKS = 8, 9  # groups and blocks that one picture can hold apart
MOST_LINES = 50  # seeds with a thin line of their own
WIDTH, LINE, LETTER = 5.2, 0.18, 0.075  # inches: of a figure; the height of a line, the width of a letter
STYLE: Any = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9,
    "text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.alpha": 0.25, "axes.titlesize": 9, "axes.titlelocation": "left", "legend.frameon": False,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "grid.color": INK, "axes.facecolor": "none", "axes.unicode_minus": True,
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A drawn figure: file name, what it shows in words, what to know when reading it."""

    name: str
    title: str
    alt: str
    caption: str
    figure: Any

    @cached_property
    def svg(self) -> str:
        """Text as text, no ids but those that are referred to, the ink replaced by currentColor."""
        import matplotlib as mpl
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        out = io.StringIO()
        self.figure.set_facecolor("none")
        with mpl.rc_context(STYLE | {"svg.hashsalt": self.name}):
            FigureCanvasSVG(self.figure).print_svg(out, metadata={"Date": None, "Creator": None})
        text = out.getvalue()
        text = text[text.index("<svg") :].replace(INK, "currentColor")
        used = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', text))
        text = re.sub(r' id="([\w.-]+)"', lambda m: m[0] if m[1] in used else "", text)
        return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)

    def write_png(self, file: BinaryIO) -> None:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        self.figure.set_facecolor("white")
        self.figure.set_dpi(150)
        with mpl.rc_context(STYLE):  # savefig would draw everything twice
            FigureCanvasAgg(self.figure).print_png(file)


def canvas(
    height: float = 3.0, rows: int = 1, columns: int = 1, *, left: float = 0.7, top: float = 0.1,
    gap: tuple[float, float] = (0.2, 0.2), **shared: Any,
) -> tuple[Any, list[Any]]:  # fmt: skip
    """A figure of the page's column width and its panels, line by line; margins and gaps in inches.

    They are given, not searched for: laying out by the drawn labels takes longer than all the drawing.
    """
    from matplotlib.figure import Figure

    bottom, right = 0.45, 0.15
    across, down = (WIDTH - left - right + gap[0]) / columns, (height - top - bottom + gap[1]) / rows
    figure = Figure(figsize=(WIDTH, height))
    room = {
        "left": left / WIDTH, "right": 1 - right / WIDTH, "bottom": bottom / height, "top": 1 - top / height,
        "wspace": gap[0] / (across - gap[0]), "hspace": gap[1] / (down - gap[1]),
    }  # fmt: skip
    return figure, list(figure.subplots(rows, columns, squeeze=False, gridspec_kw=room, **shared).flat)


def panels(
    comparison: Comparison, columns: int, height: float, left: float = 0.7, top: float = 0.1, above: int = 0
) -> tuple[Any, list[tuple[Any, list[GroupSummary]]]]:
    """A panel a block with as many rows as can be told apart; over it its name and ``above`` more lines."""
    shown = list(comparison.blocks.items())[:MOST_BLOCKS]
    columns = min(columns, len(shown))
    lines = math.ceil(len(shown) / columns)
    title = LINE * (above + any(comparison.blocks))
    figure, axes = canvas(
        lines * (height + title + 0.5) - 0.05 + top, lines, columns, left=left, top=top + title,
        gap=(left, 0.5 + title),
    )  # fmt: skip
    for spare in axes[len(shown) :]:
        spare.set_axis_off()
    for one, (block, _) in zip(axes, shown, strict=False):
        one.set_title(shorten(block))
    return figure, [(one, rows[:MOST]) for one, (_, rows) in zip(axes, shown, strict=False)]


def lines(axes: Any, each: Sequence[Sequence[tuple[float, float]]], colour: str, **style: Any) -> None:
    """Many thin lines as one."""
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection([line for line in each if line], colors=colour, **style))
    axes.autoscale_view()


def legend(figure: Any, axes: Any) -> None:
    """One for all panels, in the room that ``legend_height`` keeps above them."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(
            handles,
            labels,
            loc="upper left",
            ncols=_beside(labels),
            fontsize=8,
            borderaxespad=0.2,
            columnspacing=1.5,
        )


def legend_height(labels: Sequence[str]) -> float:
    return 0.1 + (LINE * math.ceil(len(labels) / _beside(labels)) if len(labels) > 1 else 0.0)


def _beside(labels: Sequence[str]) -> int:
    return max(1, min(len(labels), int(WIDTH / (0.75 + LETTER * max(map(len, labels))))))


def room_for(labels: Sequence[str]) -> float:
    """The left margin that names of lines need, in inches."""
    return 0.2 + LETTER * max(map(len, labels))


def left_out(comparison: Comparison) -> str:
    """What a picture has no room for."""
    blocks = comparison.blocks
    words = []
    if len(blocks) > MOST_BLOCKS:
        words.append(f"the first {MOST_BLOCKS} of {len(blocks)} blocks")
    if (most := max(len(rows) for rows in blocks.values())) > MOST:
        words.append(f"the first {MOST} of {most} groups")
    return f" Shown: {', '.join(words)}." if words else ""


def loss_axis(axes: Any, values: Sequence[float]) -> None:
    """Logarithmic where the losses span more than a factor of 3 and none is 0; numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    least, most = min(values, default=0.0), max(values, default=0.0)
    if not 0 < 3 * least < most < math.inf:
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if most < 100 * least else (1,)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def crop(axes: Any, values: Sequence[float]) -> None:
    """Leaves out the first epochs' steep rise where it would press the rest into a line."""
    ordered = sorted(value for value in values if math.isfinite(value))
    if len(ordered) >= 10:
        low, top = ordered[len(ordered) // 10], ordered[-1]
        if top - ordered[0] > 4 * (top - low):
            axes.set_ylim(low - 0.6 * (top - low), top + 0.1 * (top - low))


@dataclass(frozen=True)
class Style:
    """What tells a group from the others in every picture: by colour, and without any."""

    colour: str
    marker: str
    dash: Any

    @property
    def dots(self) -> dict[str, Any]:
        return {"color": self.colour, "marker": self.marker, "linestyle": "none"}


def numbered(i: int) -> Style:
    """Of the i-th group; 0 is the baseline, in the text's own colour."""
    colour = COLOURS[(i - 1) % len(COLOURS)] if i else INK
    return Style(colour, MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)])


def style_of(row: GroupSummary, comparison: Comparison) -> Style:
    """A group keeps its style through all blocks."""
    names = dict.fromkeys(other.group.value for other in comparison.rows)
    names.pop(comparison.grouping.baseline, None)
    return numbered(1 + list(names).index(row.group.value) if row.group.value in names else 0)


def label_of(row: GroupSummary, n: int) -> str:
    return f"{shorten(row.group.value or 'all runs')} (n={n})"


def shorten(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
