"""The metric against the learning rate, if there are several (after Bjorck et al. 2018, figure 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.plots.style import (
    LETTER_WIDTH,
    WIDE,
    WIDTH,
    Picture,
    Style,
    make_figure,
    make_style,
    metric_label,
    shorten,
    spread,
)

RATE_KEY = "optimizer.lr"
Curves = dict[str, list[tuple[float, GroupSummary]]]  # the groups of one name, by learning rate


def draw_learning_rates(verdict: Verdict) -> Picture | None:
    """A line for each group from rate to rate, the single runs, and the number of lost runs."""
    curves: Curves = {}
    for summary in verdict.summaries:
        if (rate := _parse_rate(summary.group.settings.get(RATE_KEY))) is not None:
            curves.setdefault(_name_without_rate(summary, verdict), []).append((rate, summary))
    if len({rate for curve in curves.values() for rate, _ in curve}) < 2:
        return None
    by = verdict.grouping.by
    has_lost_runs = any(summary.lost_runs for curve in curves.values() for _, summary in curve)
    lost_runs = (
        " A cross: runs that were lost (diverged or at chance), and how many." if has_lost_runs else ""
    )
    return Picture(
        "learning-rates",
        "Which learning rate is best?"
        if by == RATE_KEY
        else f"Which learning rates suit each {verdict.grouping.title}?",
        f"{verdict.metric.label} against the learning rate",
        f"Lines: means of the runs that trained. Small marks: single runs.{lost_runs}",
        _draw(verdict, curves, WIDE),
        _draw(verdict, curves, WIDTH),
    )


def _draw(verdict: Verdict, curves: Curves, width: float) -> Any:
    names = [shorten(name) for name in curves]
    right = 0.15 + (0.15 + LETTER_WIDTH * max(map(len, names)) if len(names) > 1 else 0)
    figure, (axes,) = make_figure(3.6 if width == WIDE else 3.0, width=width, right=right)
    values = [v for curve in curves.values() for _, summary in curve for v in summary.values.values()]
    lowest, highest = min(values, default=0.0), max(values, default=1.0)
    span = (highest - lowest) or 1.0
    styles = [make_style(i) for i in range(len(curves))]
    ends = []
    for i, (curve, style) in enumerate(zip(curves.values(), styles, strict=True)):
        shift = 1.03 ** (i - (len(curves) - 1) / 2)  # moves the groups apart, so that no mark hides another
        bottom = lowest - (0.08 + 0.07 * i) * span  # lost runs: one height for each group
        ends.append(_draw_curve(axes, sorted(curve, key=lambda pair: pair[0]), shift, bottom, style))
    if len(curves) > 1:
        heights = spread([lowest if math.isnan(end) else end for end in ends], 0.065 * span)
        for name, height, style in zip(names, heights, styles, strict=True):
            axes.annotate(
                name, (1, height), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                color=style.colour, va="center", annotation_clip=False,
            )  # fmt: skip
    rates = sorted({rate for curve in curves.values() for rate, _ in curve})
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates], rotation=30 if len(rates) > 9 else 0)
    axes.set_xlabel("learning rate")
    axes.set_ylabel(metric_label(verdict))
    return figure


def _draw_curve(
    axes: Any, curve: Sequence[tuple[float, GroupSummary]], shift: float, bottom: float, style: Style
) -> float:
    """One group, its learning rates multiplied by ``shift``. Returns the last mean, or nan."""
    means = [(shift * rate, summary.mean) for rate, summary in curve if summary.values]
    axes.plot(
        [x for x, _ in means], [mean for _, mean in means], color=style.colour, linestyle=style.dash,
        marker=style.marker, markersize=4.5,
    )  # fmt: skip
    for rate, summary in curve:
        xs, values = [shift * rate] * len(summary.values), [*summary.values.values()]
        axes.plot(xs, values, markersize=2.5, alpha=0.5, **style.marker_options)
        if summary.lost_runs:
            axes.plot(shift * rate, bottom, "x", color=style.colour, markersize=5)
            axes.annotate(
                f"{len(summary.lost_runs)} lost", (shift * rate, bottom), (-6, 0), ha="right", va="center",
                textcoords="offset points", color=style.colour, fontsize=8,
            )  # fmt: skip
    return means[-1][1] if means else math.nan


def _name_without_rate(summary: GroupSummary, verdict: Verdict) -> str:
    """The group's name without its learning rate: the name of a curve."""
    if verdict.grouping.by == RATE_KEY:
        return summary.group.block or "all"
    block = " ".join(setting for setting in summary.group.block.split() if not setting.startswith("lr="))
    return f"{summary.group.value} {block}".strip()


def _parse_rate(text: str | None) -> float | None:
    """A positive, finite learning rate, or None."""
    try:
        rate = float(text or "")
    except ValueError:
        return None
    return rate if rate > 0 and math.isfinite(rate) else None
