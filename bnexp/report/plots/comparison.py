"""The pictures of a comparison. Each caption says what its marks, lines and bands are."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Sequence
from typing import Any

from bnexp.report.analysis.epoch_rule import DESCRIPTIONS
from bnexp.report.analysis.group_comparison import GroupComparison
from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.numbers import points, unit
from bnexp.report.plots.style import (
    MAX_BLOCKS,
    MAX_GROUPS,
    MAX_SEED_LINES,
    RC_PARAMS,
    TEXT_COLOUR,
    Picture,
    Style,
    describe_omissions,
    draw_lines,
    group_label,
    group_style,
    label_margin,
    make_figure,
    make_panels,
    make_style,
    shorten,
)
from bnexp.report.plots.training_curves import draw_curves, draw_times
from bnexp.report.plots.tuning import draw_budget, draw_tuning

RATE_KEY = "optimizer.lr"
MAX_FOREST_ROWS = 40
MAX_RELATIVE_EXTENT = 5  # the axis of the forest ends at this many times the median extent


def draw_pictures(verdict: Verdict) -> list[Picture]:
    """All pictures that the runs have data for. Blocks share a picture; only the curves have one for each."""
    import matplotlib as mpl

    logging.getLogger("matplotlib.font_manager").setLevel(logging.WARNING)  # the first start builds a list
    with mpl.rc_context(RC_PARAMS):
        pictures = [draw(verdict) for draw in (draw_stability, draw_forest, draw_twins)]
        for i, (block, summaries) in enumerate(list(verdict.blocks.items())[:MAX_BLOCKS]):
            suffix = f"-{i + 1}" if i else ""
            pictures.append(draw_curves(verdict, summaries[:MAX_GROUPS], block, suffix))
        pictures += [draw_tuning(verdict), draw_budget(verdict)]
        pictures += [draw_values(verdict), draw_times(verdict)]
    return [picture for picture in pictures if picture is not None]


def draw_forest(verdict: Verdict) -> Picture | None:
    """Differences from the baseline and their 95 % intervals; a grey band for differences within delta."""
    effects = [effect for effect in verdict.comparisons if effect.difference.n][:MAX_FOREST_ROWS]
    if not effects:
        return None
    labels = [
        f"{shorten(effect.candidate.group.name)} (n={effect.difference.n})" for effect in reversed(effects)
    ]
    figure, (axes,) = make_figure(height=0.6 + 0.32 * len(effects), left=label_margin(labels))
    limit = _axis_limit(effects)
    for y, effect in enumerate(reversed(effects)):
        if effect.delta is not None:
            band = [-effect.delta, effect.delta]
            axes.fill_between(band, y - 0.5, y + 0.5, color=TEXT_COLOUR, alpha=0.1, linewidth=0)
        _draw_effect(axes, effect, y, group_style(effect.candidate, verdict).colour, limit)
    axes.axvline(0, color=TEXT_COLOUR, linewidth=1)
    axes.set_yticks(range(len(effects)), labels)
    axes.set_ylim(-0.5, len(effects) - 0.5)
    if limit < math.inf:
        axes.set_xlim(-1.3 * limit, 1.3 * limit)
    units = unit(verdict.metric).strip() or verdict.metric.label
    axes.set_xlabel(f"difference from {verdict.grouping.baseline}, {units}")
    means = "; ".join(
        f"{effect.candidate.group.name}: {points(effect.difference.mean, verdict.metric)}"
        for effect in effects
    )
    alt = f"Difference of each group from the baseline: {means}"
    return Picture("forest", "Differences", alt, _forest_caption(effects, limit), figure)


def _forest_caption(effects: Sequence[GroupComparison], limit: float) -> str:
    sentences = [
        "Dot: the mean difference. Bar: its 95 % interval, not adjusted for the number of comparisons.",
        "Small ticks: the difference of each seed.",
    ]
    if deltas := sorted({effect.delta for effect in effects if effect.delta is not None}):
        sizes = "/".join(f"{delta:g}" for delta in deltas)
        sentences.append(f"Grey band: differences within ±{sizes} do not matter.")
    if limit < math.inf:
        sentences.append("Arrow: the difference lies beyond the axis.")
    if any(effect.difference.n < 3 for effect in effects):
        sentences.append("No bar: fewer than 3 seeds.")
    return " ".join(sentences)


def _axis_limit(effects: Sequence[GroupComparison]) -> float:
    """The largest extent to show, or inf for all: one very large difference would flatten the others."""
    extents = [max(abs(x) for x in (*_interval(effect), effect.difference.mean)) for effect in effects]
    limit = MAX_RELATIVE_EXTENT * statistics.median(extents)
    return math.inf if max(extents) <= limit else max(extent for extent in extents if extent <= limit)


def _interval(effect: GroupComparison) -> tuple[float, ...]:
    """Low and high end; empty with fewer than 3 seeds."""
    difference = effect.difference
    return (difference.low, difference.high) if difference.n >= 3 and not math.isnan(difference.low) else ()


def _draw_effect(axes: Any, effect: GroupComparison, y: float, colour: str, limit: float) -> None:
    """One row of the forest: mean, interval and the difference of each seed; an arrow beyond the limit."""
    mean = effect.difference.mean
    if abs(mean) > 1.3 * limit:
        x = math.copysign(1.2 * limit, mean)
        axes.plot(x, y, ">" if mean > 0 else "<", color=colour, markersize=6)
        axes.annotate(
            points(mean, effect.metric), (x, y), (-8 if mean > 0 else 8, 0), textcoords="offset points",
            ha="right" if mean > 0 else "left", va="center", color=colour,
        )  # fmt: skip
        return
    if interval := _interval(effect):
        axes.plot(interval, [y, y], color=colour, linewidth=2, solid_capstyle="butt")
    axes.plot(mean, y, "o", color=colour, markersize=6)
    ticks = [y - 0.22] * len(effect.differences)
    axes.plot(effect.differences, ticks, "|", color=colour, markersize=5, alpha=0.6)


def draw_twins(verdict: Verdict) -> Picture | None:
    """The metric of every run, with a line for each seed from group to group; lost runs at the bottom."""
    groups = max(len(summaries) for summaries in verdict.blocks.values())
    if groups < 2 or not any(summary.values for summary in verdict.summaries):
        return None
    single = len(verdict.blocks) == 1
    columns = 3 if groups < 3 else 2 if groups < 5 else 1
    figure, panels = make_panels(verdict, columns, 2.3 if single else 1.4)
    for axes, summaries in panels:
        _draw_twins_panel(axes, summaries, verdict)
    for axes, _ in panels[::columns]:
        axes.set_ylabel(_metric_label(verdict))
    has_twins = any(c.is_paired for c in verdict.comparisons)
    lines = (
        "Lines: one for each seed. Runs with the same seed are twins: they share initial weights, batches and"
        " noise. "
    )
    lines = lines if has_twins else ""
    return Picture(
        "twins",
        "Twins" if has_twins else "Runs",
        f"{verdict.metric.label} of every seed in every group",
        f"{lines}Bars: means. A cross: the number of lost runs (diverged or at chance)."
        + describe_omissions(verdict),
        figure,
    )


def _draw_twins_panel(axes: Any, summaries: Sequence[GroupSummary], verdict: Verdict) -> None:
    values = [value for summary in summaries for value in summary.values.values()]
    twins = list(dict.fromkeys(twin for summary in summaries for twin in summary.values))[:MAX_SEED_LINES]
    seed_lines = [
        [(x, summary.values[twin]) for x, summary in enumerate(summaries) if twin in summary.values]
        for twin in twins
    ]
    if any(c.is_paired for c in verdict.comparisons):
        draw_lines(axes, seed_lines, TEXT_COLOUR, alpha=0.35, linewidth=0.8)
    bottom = min(values, default=0) - 0.12 * ((max(values, default=1) - min(values, default=0)) or 1)
    for x, summary in enumerate(summaries):
        style = group_style(summary, verdict)
        axes.plot([x] * len(summary.values), [*summary.values.values()], markersize=4, **style.marker_options)
        if summary.values:
            axes.plot([x - 0.18, x + 0.18], [summary.mean] * 2, color=style.colour, linewidth=2.5)
        if summary.lost_runs:
            _mark_lost(axes, x, bottom, len(summary.lost_runs), style.colour)
    axes.set_xticks(range(len(summaries)), [shorten(summary.group.value) for summary in summaries])
    if sum(len(summary.group.value) for summary in summaries) > 40:
        axes.tick_params(axis="x", rotation=30)
    axes.set_xlim(-0.5, len(summaries) - 0.5)
    if not values:
        axes.set_yticks([])


def _mark_lost(axes: Any, x: float, y: float, count: int, colour: str) -> None:
    """An x with the number of lost runs beside it."""
    axes.plot(x, y, "x", color=colour)
    axes.annotate(f"{count}", (x, y), (5, 0), textcoords="offset points", color=colour, va="center")


def draw_values(verdict: Verdict) -> Picture | None:
    """The compared value of every run as a mark, one row for each group."""
    if not any(summary.values for summary in verdict.summaries):
        return None
    groups = max(min(len(summaries), MAX_GROUPS) for summaries in verdict.blocks.values())
    left = label_margin([group_label(summary, len(summary.values)) for summary in verdict.summaries])
    figure, panels = make_panels(verdict, 2 if left < 1.2 else 1, 0.25 + 0.28 * groups, left=left)
    for axes, summaries in panels:
        for y, summary in enumerate(reversed(summaries)):
            heights = [y + 0.12 * ((i % 3) - 1) for i in range(len(summary.values))]  # less overlap
            style = group_style(summary, verdict)
            values = [*summary.values.values()]
            axes.plot(values, heights, alpha=0.75, markersize=5, **style.marker_options)
        labels = [group_label(summary, len(summary.values)) for summary in reversed(summaries)]
        axes.set_yticks(range(len(summaries)), labels)
        axes.set_ylim(-0.5, len(summaries) - 0.5)
        axes.set_xlabel(_metric_label(verdict))
        if not any(summary.values for summary in summaries):
            axes.set_xticks([])
    return Picture(
        "values",
        "Values",
        f"{verdict.metric.label} of every run, {DESCRIPTIONS[verdict.rule]}",
        f"Marks: one for each run that trained ({DESCRIPTIONS[verdict.rule]}).{describe_omissions(verdict)}",
        figure,
    )


def draw_stability(verdict: Verdict) -> Picture | None:
    """The metric against the learning rate, if there are several (after Bjorck et al. 2018, figure 1)."""
    summaries = [
        summary
        for summary in verdict.summaries
        if _parse_rate(summary.group.settings.get(RATE_KEY)) is not None
    ]
    if len({summary.group.settings[RATE_KEY] for summary in summaries}) < 2:
        return None
    figure, (axes,) = make_figure()
    curves: dict[str, list[tuple[float, GroupSummary]]] = {}
    for summary in summaries:
        name = _name_without_rate(summary, verdict)
        curves.setdefault(name, []).append((float(summary.group.settings[RATE_KEY]), summary))
    values = [value for summary in summaries for value in summary.values.values()]
    span = (max(values, default=1) - min(values, default=0)) or 1
    for i, (name, curve) in enumerate(curves.items()):
        shift = 1.06 ** (i - (len(curves) - 1) / 2)  # moves the groups apart, so that no mark hides another
        bottom = min(values, default=0) - (0.08 + 0.06 * i) * span  # lost runs: one height for each group
        curve = sorted(curve, key=lambda pair: pair[0])
        _draw_rate_curve(axes, curve, shift, bottom, make_style(i), shorten(name))
    rates = sorted({rate for curve in curves.values() for rate, _ in curve})
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates], rotation=30 if len(rates) > 9 else 0)
    axes.set_xlabel("learning rate")
    axes.set_ylabel(_metric_label(verdict))
    if len(curves) > 1:
        axes.legend(fontsize=8)
    return Picture(
        "stability",
        "Stability",
        f"{verdict.metric.label} against the learning rate",
        "Lines: means of the runs that trained. Small marks: single runs."
        " A cross: the number of lost runs (diverged or at chance).",
        figure,
    )


def _draw_rate_curve(
    axes: Any,
    curve: Sequence[tuple[float, GroupSummary]],
    shift: float,
    bottom: float,
    style: Style,
    name: str,
) -> None:
    """One group of the stability picture; learning rates are multiplied by ``shift``."""
    means = [(shift * rate, summary.mean) for rate, summary in curve if summary.values]
    axes.plot(
        [x for x, _ in means], [mean for _, mean in means], color=style.colour, linestyle=style.dash,
        marker=style.marker, markersize=4.5, label=name,
    )  # fmt: skip
    for rate, summary in curve:
        xs, values = [shift * rate] * len(summary.values), [*summary.values.values()]
        axes.plot(xs, values, markersize=2.5, alpha=0.5, **style.marker_options)
        if summary.lost_runs:
            _mark_lost(axes, shift * rate, bottom, len(summary.lost_runs), style.colour)


def _name_without_rate(summary: GroupSummary, verdict: Verdict) -> str:
    """The group's name without its learning rate: the name of a curve in the stability picture."""
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


def _metric_label(verdict: Verdict) -> str:
    return verdict.metric.label + (" (%)" if verdict.metric.is_accuracy else "")
