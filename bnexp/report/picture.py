"""How pictures are drawn: one style, colours and marks a group keeps throughout, SVG and PNG of a figure.

Colours after Okabe and Ito (2008), the baseline in the text's own colour, with a marker and a dash a group.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO

from bnexp.report.verdict import Comparison, Row

INK = "#101112"  # stands for the text's colour: the page swaps it for its own, light or dark
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS, DASHES = "osD^vP*", ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
LONGEST = 28  # letters of a name in a legend
STYLE: Any = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9,
    "text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.alpha": 0.25, "axes.titlesize": 9, "axes.titlelocation": "left", "legend.frameon": False,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "grid.color": INK, "axes.unicode_minus": True,
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

        out = io.StringIO()
        with mpl.rc_context(STYLE | {"svg.hashsalt": self.name}):
            self.figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        text = out.getvalue()
        text = text[text.index("<svg") :].replace(INK, "currentColor")
        used = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', text))
        text = re.sub(r' id="([\w.-]+)"', lambda m: m[0] if m[1] in used else "", text)
        return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)

    def write_png(self, file: BinaryIO) -> None:
        import matplotlib as mpl

        with mpl.rc_context(STYLE):
            self.figure.savefig(file, format="png", dpi=150, facecolor="white")


def canvas(height: float = 3.0, panels: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, height if panels == 1 else 4.6), layout="constrained")
    return figure, figure.subplots(panels, 1)


def log_axis(axes: Any, axis: str) -> None:
    """A logarithmic axis with plain numbers; math text is off, since names may hold dollar signs."""
    from matplotlib.ticker import FuncFormatter, LogFormatter

    class Plain(LogFormatter):
        def _num_to_string(self, x: float, *_: Any) -> str:
            return f"{x:g}"

    getattr(axes, f"set_{axis}scale")("log")
    ticks = getattr(axes, f"{axis}axis")
    ticks.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ticks.set_minor_formatter(Plain(minor_thresholds=(1.5, 0.5)))


def crop(axes: Any, rows: Sequence[Row], key: str) -> None:
    """Leaves out the first epochs' steep rise where it would press the rest into a line."""
    values = sorted(
        100 * v for row in rows for run in row.group.runs for v in run.curves.get(key, ()) if v == v
    )
    if len(values) >= 10:
        low, top = values[len(values) // 10], values[-1]
        if top - values[0] > 4 * (top - low):
            axes.set_ylim(low - 0.6 * (top - low), top + 0.1 * (top - low))


def order_of(row: Row, comparison: Comparison) -> int:
    """0 for the baseline; the others keep their number through all blocks."""
    names = dict.fromkeys(other.group.value for other in comparison.rows)
    names.pop(comparison.grouping.baseline, None)
    return 1 + list(names).index(row.group.value) if row.group.value in names else 0


def colour_of(row: Row, comparison: Comparison) -> str:
    i = order_of(row, comparison)
    return COLOURS[(i - 1) % len(COLOURS)] if i else INK


def marker_of(row: Row, comparison: Comparison) -> str:
    return MARKERS[order_of(row, comparison) % len(MARKERS)]


def dash_of(row: Row, comparison: Comparison) -> Any:
    return DASHES[order_of(row, comparison) % len(DASHES)]


def shorten(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
