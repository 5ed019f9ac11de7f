"""The style of all pictures: colours, markers and dashes of the groups; figures, legends, axes; SVG and PNG.

The colours are those of Okabe and Ito (2008). The baseline has the colour of the text. Markers and dashes
tell the groups apart without colour.
"""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from types import ModuleType
from typing import Any, BinaryIO

from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.verdict import Verdict

TEXT_COLOUR = "#101112"  # the SVG says currentColor instead, so that the page can be light or dark
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS, DASHES = "osD^vP*", ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MAX_LABEL_LENGTH = 28  # characters
MAX_GROUPS, MAX_BLOCKS = 8, 9  # more of them cannot be told apart in one picture
MAX_SEED_LINES = 50  # thin lines, one for each seed
WIDTH, WIDE = 5.2, 10.7  # inches: a figure in one of the page's two columns, and one across both
LINE_HEIGHT, LETTER_WIDTH = 0.18, 0.075  # inches
PARAMETERS: dict[str, Any] = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9,
    "text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.alpha": 0.15, "axes.titlesize": 9, "axes.titlelocation": "left", "legend.frameon": False,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 3,
    "ytick.major.size": 3, "axes.axisbelow": True,
    "text.color": TEXT_COLOUR, "axes.labelcolor": TEXT_COLOUR, "axes.edgecolor": TEXT_COLOUR,
    "xtick.color": TEXT_COLOUR, "ytick.color": TEXT_COLOUR, "grid.color": TEXT_COLOUR,
    "axes.facecolor": "none", "axes.unicode_minus": True,
}  # fmt: skip


def _import_matplotlib() -> ModuleType:
    """Imports it without the variable MPLBACKEND: an unknown name there ends the import, and no picture has a
    window."""
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return matplotlib


@contextmanager
def drawing_style(**parameters: Any) -> Iterator[None]:
    """matplotlib's own defaults and bnexp's style: a ``matplotlibrc`` of the user's changes no picture.

    One with ``text.usetex: true`` would even need LaTeX.
    """
    mpl = _import_matplotlib()
    values: Any = PARAMETERS | parameters
    with mpl.rc_context(), warnings.catch_warnings():
        # A class named in Chinese has boxes in the pictures; the page has the name as text.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        mpl.rcdefaults()
        mpl.rcParams.update(values)
        yield


@dataclass(frozen=True)
class Picture:
    """A drawn figure. ``name`` is its file name, ``alt`` describes it, ``caption`` says how to read it.

    ``title`` is the question that it answers. A picture across both columns of the page has a
    ``narrow_figure`` too, for small screens.
    """

    name: str
    title: str
    alt: str
    caption: str
    figure: Any
    narrow_figure: Any = None

    @cached_property
    def svg(self) -> str:
        """The figure as an <svg> element for a page: text stays text, unused ids and metadata are removed."""
        return self._svg(self.figure, self.name)

    @cached_property
    def narrow_svg(self) -> str:
        """The same for small screens; "" where there is no other figure."""
        return "" if self.narrow_figure is None else self._svg(self.narrow_figure, f"{self.name}-narrow")

    @staticmethod
    def _svg(figure: Any, salt: str) -> str:
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        out = io.StringIO()
        figure.set_facecolor("none")
        with drawing_style(**{"svg.hashsalt": salt}):
            FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
        text = out.getvalue()
        text = text[text.index("<svg") :].replace(TEXT_COLOUR, "currentColor")
        used_ids = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', text))
        text = re.sub(r' id="([\w.-]+)"', lambda match: match[0] if match[1] in used_ids else "", text)
        return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)

    def write_pdf(self, file: BinaryIO) -> None:
        """The figure of one column, for a paper; its fonts are embedded as TrueType, which printers keep."""
        from matplotlib.backends.backend_pdf import FigureCanvasPdf

        figure = self.figure if self.narrow_figure is None else self.narrow_figure
        figure.set_facecolor("none")
        with drawing_style(**{"pdf.fonttype": 42}):
            FigureCanvasPdf(figure).print_pdf(file, metadata={"CreationDate": None})

    def write_png(self, file: BinaryIO) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        self.figure.set_facecolor("white")
        self.figure.set_dpi(150)
        with drawing_style():  # savefig would draw everything twice
            FigureCanvasAgg(self.figure).print_png(file)


def make_figure(
    height: float, rows: int = 1, columns: int = 1, *, width: float = WIDTH, left: float = 0.7,
    right: float = 0.15, top: float = 0.1, gap: tuple[float, float] = (0.2, 0.2), **subplot_options: Any,
) -> tuple[Any, list[Any]]:  # fmt: skip
    """A figure and its panels row by row. Sizes, margins and gaps in inches.

    The margins are fixed. Automatic layout measures every label, which takes longer than all the drawing.
    """
    from matplotlib.figure import Figure

    bottom = 0.45
    column_width = (width - left - right + gap[0]) / columns
    row_height = (height - top - bottom + gap[1]) / rows
    figure = Figure(figsize=(width, height))
    margins = {
        "left": left / width, "right": 1 - right / width, "bottom": bottom / height, "top": 1 - top / height,
        "wspace": gap[0] / (column_width - gap[0]), "hspace": gap[1] / (row_height - gap[1]),
    }  # fmt: skip
    subplots = figure.subplots(rows, columns, squeeze=False, gridspec_kw=margins, **subplot_options)
    return figure, list(subplots.flat)


def shown_blocks(verdict: Verdict) -> list[tuple[str, list[GroupSummary]]]:
    """The blocks and their groups that pictures show: the first ones. ``describe_omissions`` says so."""
    return [(block, groups[:MAX_GROUPS]) for block, groups in list(verdict.blocks.items())[:MAX_BLOCKS]]


def draw_lines(
    axes: Any, lines: Sequence[Sequence[tuple[float, float]]], colour: str, **options: Any
) -> None:
    """Draws many thin lines, each given by its points, as one collection: much faster than one by one."""
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection([line for line in lines if line], colors=colour, **options))
    axes.autoscale_view()


def draw_legend(figure: Any, axes: Any) -> None:
    """Draws the legend of ``axes`` for the whole figure, in the margin that ``legend_height`` reserves."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(
            handles, labels, loc="upper left", ncols=_legend_columns(labels, figure.get_figwidth()),
            fontsize=8, borderaxespad=0.2, columnspacing=1.5, labelcolor="linecolor",
        )  # fmt: skip


def legend_height(labels: Sequence[str], width: float = WIDTH) -> float:
    """The top margin that a legend with these labels needs, in inches. A single label gets no legend."""
    lines = math.ceil(len(labels) / _legend_columns(labels, width)) if len(labels) > 1 else 0
    return 0.1 + LINE_HEIGHT * lines


def _legend_columns(labels: Sequence[str], width: float) -> int:
    entry_width = 0.75 + LETTER_WIDTH * max(map(len, labels))
    return max(1, min(len(labels), int(width / entry_width)))


def label_margin(labels: Sequence[str]) -> float:
    """The left margin that these labels of the y axis need, in inches."""
    return 0.2 + LETTER_WIDTH * max(map(len, labels))


def describe_omissions(verdict: Verdict) -> str:
    """The end of a caption: how many blocks and groups are shown, where some are left out."""
    blocks = verdict.blocks
    limits = []
    if len(blocks) > MAX_BLOCKS:
        limits.append(f"the first {MAX_BLOCKS} of {len(blocks)} blocks")
    if (groups := max(len(summaries) for summaries in blocks.values())) > MAX_GROUPS:
        limits.append(f"the first {MAX_GROUPS} of {groups} groups")
    return f" Shown: {', '.join(limits)}." if limits else ""


def scale_loss_axis(axes: Any, losses: Sequence[float]) -> None:
    """Makes the y axis logarithmic where the losses are positive and span more than a factor of 3.

    Ticks stand at 1, 2 and 5 times the powers of ten; only at the powers where the span is more than 100.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    lowest, highest = min(losses, default=0.0), max(losses, default=0.0)
    if not 0 < 3 * lowest < highest < math.inf:
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if highest < 100 * lowest else (1,)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def crop_early_rise(axes: Any, values: Sequence[float]) -> None:
    """Cuts the lowest tenth of the values off the y axis where it takes more than 3/4 of their range.

    Accuracy rises steeply in the first epochs. Shown in full, the rise would flatten all later epochs.
    """
    ordered = sorted(value for value in values if math.isfinite(value))
    if len(ordered) >= 10:
        low, top = ordered[len(ordered) // 10], ordered[-1]
        if low < top and top - ordered[0] > 4 * (top - low):
            axes.set_ylim(low - 0.6 * (top - low), top + 0.1 * (top - low))


@dataclass(frozen=True)
class Style:
    """How a group is drawn in every picture."""

    colour: str
    marker: str
    dash: Any

    @property
    def marker_options(self) -> dict[str, Any]:
        """For ``axes.plot``: markers without a line between them."""
        return {"color": self.colour, "marker": self.marker, "linestyle": "none"}


def make_style(index: int) -> Style:
    """The style of the group with this index. The baseline has index 0 and the colour of the text."""
    colour = COLOURS[(index - 1) % len(COLOURS)] if index else TEXT_COLOUR
    return Style(colour, MARKERS[index % len(MARKERS)], DASHES[index % len(DASHES)])


def group_style(summary: GroupSummary, verdict: Verdict) -> Style:
    """The style of a group, the same in all blocks."""
    names = dict.fromkeys(peer.group.value for peer in verdict.summaries)
    names.pop(verdict.grouping.baseline, None)
    return make_style(1 + list(names).index(summary.group.value) if summary.group.value in names else 0)


def group_label(summary: GroupSummary, n: int) -> str:
    return f"{shorten(summary.group.value or 'all runs')} (n={n})"


def metric_label(verdict: Verdict) -> str:
    return verdict.metric.label + (" (%)" if verdict.metric.is_accuracy else "")


def spread(heights: Sequence[float], distance: float) -> list[float]:
    """``heights`` moved apart until neighbours are ``distance`` apart, in unchanged order: for labels."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    moved = list(heights)
    for _ in range(100):
        for a, b in pairwise(order):
            overlap = distance - (moved[b] - moved[a])
            if overlap > 1e-3 * distance:
                moved[a], moved[b] = moved[a] - overlap / 2, moved[b] + overlap / 2
    return moved


def shorten(name: str) -> str:
    return name if len(name) <= MAX_LABEL_LENGTH else name[: MAX_LABEL_LENGTH - 1] + "…"
