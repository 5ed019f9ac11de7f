"""The picture of a measurement: its panels side by side, an arm in the same style as everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from bnexp.report.measurements.measurement import Measurement, Panel
from bnexp.report.plots.style import (
    MAX_GROUPS,
    WIDE,
    WIDTH,
    Picture,
    draw_legend,
    legend_height,
    make_figure,
    make_style,
    shorten,
)

MEASUREMENT_PREFIX = "probe-"  # of the files' names
MAX_MARKERS = 25  # a curve with more points has no marker at each
SHORT_AXIS = 50  # a log axis with less from end to end has labels between the powers of ten
HEIGHT = 2.9  # inches, of a row of panels


def draw_measurement(measurement: Measurement) -> Picture:
    """All panels in one row on a wide screen, else below each other."""
    figures = [_draw(measurement, width) for width in (WIDE, WIDTH)]
    return Picture(
        f"{MEASUREMENT_PREFIX}{measurement.probe}",
        measurement.title,
        measurement.title,
        measurement.caption,
        *figures,
    )


def _draw(measurement: Measurement, width: float) -> Any:
    panels = measurement.panels
    columns = min(len(panels), 3 if width == WIDE else 1)
    rows = math.ceil(len(panels) / columns)
    labels = [shorten(curve.label) for curve in panels[0].curves[:MAX_GROUPS]]
    top = legend_height(labels, width) + 0.25
    figure, all_axes = make_figure(
        top + HEIGHT * rows, rows, columns, width=width, top=top, gap=(0.75, 0.75), left=0.8
    )
    for axes, panel in zip(all_axes, panels, strict=False):
        _draw_panel(axes, panel)
    _share_limits(all_axes, panels)
    for axes in all_axes[len(panels) :]:
        axes.set_axis_off()
    draw_legend(figure, all_axes[0])
    return figure


def _share_limits(all_axes: Sequence[Any], panels: Sequence[Panel]) -> None:
    """Panels of the same quantity have the same y axis: arms side by side can be compared."""
    for label in dict.fromkeys(panel.y_label for panel in panels):
        group = [axes for axes, panel in zip(all_axes, panels, strict=False) if panel.y_label == label]
        limits = [axes.get_ylim() for axes in group]
        for axes in group:
            axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def _draw_panel(axes: Any, panel: Panel) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.set_title(panel.title)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.set_xscale(panel.x_scale)
    axes.set_yscale(panel.y_scale)
    for axis, scale in ((axes.xaxis, panel.x_scale), (axes.yaxis, panel.y_scale)):
        if scale == "log":
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(FuncFormatter(_minor_label(axis)))
    arms = [curve.arm for curve in panel.curves]
    for number, curve in enumerate(panel.curves[:MAX_GROUPS]):
        style = make_style(curve.arm if len(set(arms)) == len(arms) else number)
        marker = style.marker if len(curve.x) <= MAX_MARKERS else ""
        axes.plot(
            curve.x, curve.mean, color=style.colour, marker=marker, markersize=3.5, linestyle=style.dash,
            linewidth=1.3, label=shorten(curve.label),
        )  # fmt: skip
        axes.fill_between(curve.x, curve.low, curve.high, color=style.colour, alpha=0.15, linewidth=0)
    for height, label in panel.lines:
        axes.axhline(height, color="#777777", linewidth=0.8, linestyle=":")
        axes.annotate(
            label, (1, height), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7
        )


def _minor_label(axis: Any) -> Callable[[float, float], str]:
    """Labels 2 and 5 between the powers of ten of a log axis that shows few of these.

    Where it ends at less than four times its beginning, all digits are labelled.
    """

    def label(value: float, _: float) -> str:
        low, high = sorted(axis.get_view_interval())
        digits = "23456789" if high < 4 * low else "25" if high < SHORT_AXIS * low else ""
        return f"{value:g}" if f"{value:e}"[0] in digits else ""

    return label
