"""What each run reached, and beside it how far each group is from its baseline: one row a group.

The left half shows the values, with a line for each seed from group to group. The right half is a forest
plot of the differences (Lewis and Clarke 2001).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from bnexp.report.analysis.epoch_rule import DESCRIPTIONS
from bnexp.report.analysis.group_comparison import GroupComparison
from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.numbers import mean_and_sd, points, unit
from bnexp.report.plots.style import (
    LETTER_WIDTH,
    LINE_HEIGHT,
    MAX_SEED_LINES,
    TEXT_COLOUR,
    WIDE,
    WIDTH,
    Picture,
    describe_omissions,
    draw_lines,
    group_label,
    group_style,
    label_margin,
    make_figure,
    metric_label,
    shown_blocks,
)

MAX_RELATIVE_EXTENT = 5  # the axis of the differences ends at this many times the median extent
ROW_HEIGHT = 0.4  # inches
VALUE_TEXT, DIFFERENCE_TEXT = 14, 21  # letters of the numbers to the right of each half
Block = tuple[str, list[GroupSummary]]


def draw_forest(verdict: Verdict) -> Picture | None:
    """Values and differences of every group; None where no run trained."""
    if not any(summary.values for summary in verdict.summaries):
        return None
    blocks = shown_blocks(verdict)
    effects = _effects(blocks, verdict)
    means = "; ".join(
        f"{effect.candidate.group.name}: {points(effect.difference.mean, verdict.metric)}"
        for effect in effects
    )
    title = "How large is the difference, and how sure is it?" if effects else "What did the runs reach?"
    return Picture(
        "forest",
        title,
        f"{verdict.metric.label} of every run"
        + (f". Difference from the baseline: {means}" if means else ""),
        _caption(verdict, effects),
        _draw(verdict, blocks, effects, WIDE),
        _draw(verdict, blocks, effects, WIDTH),
    )


def _effects(blocks: Sequence[Block], verdict: Verdict) -> list[GroupComparison]:
    comparisons = [verdict.comparison_of(summary) for _, summaries in blocks for summary in summaries]
    return [c for c in comparisons if c is not None and c.difference.n]


def _draw(verdict: Verdict, blocks: Sequence[Block], effects: list[GroupComparison], width: float) -> Any:
    """The figure: values and differences side by side where it is wide, else below one another."""
    halves = 2 if effects else 1
    columns = halves if width == WIDE else 1
    rows = len(blocks) * halves // columns
    labels = [_row_label(summary) for _, summaries in blocks for summary in summaries]
    title = LINE_HEIGHT * any(block for block, _ in blocks)
    row_height = ROW_HEIGHT * max(len(summaries) for _, summaries in blocks)
    left = label_margin(labels)
    text_widths = [0.1 + LETTER_WIDTH * letters for letters in (VALUE_TEXT, DIFFERENCE_TEXT)]
    figure, panels = make_figure(
        rows * (row_height + title + 0.5) - 0.05 + 0.1, rows, columns, width=width, left=left,
        right=text_widths[1 if effects else 0], top=0.1 + title,
        gap=(0.1 + text_widths[0] if columns == 2 else left, 0.5 + title),
    )  # fmt: skip
    limit = _axis_limit(effects)
    for i, (block, summaries) in enumerate(blocks):
        values_axes, *rest = panels[i * halves : (i + 1) * halves]
        values_axes.set_title(block)
        _draw_values(values_axes, summaries, verdict)
        for axes in rest:
            _draw_differences(axes, summaries, verdict, limit, has_labels=columns == 1)
    if effects:
        _share_x_axis(panels[1::2], effects, limit)
    return figure


def _row_label(summary: GroupSummary) -> str:
    label = group_label(summary, len(summary.values))
    return label if not summary.lost_runs else f"{label[:-1]}, {len(summary.lost_runs)} lost)"


def _draw_values(axes: Any, summaries: Sequence[GroupSummary], verdict: Verdict) -> None:
    """A mark for each run, a bar for each mean, and thin lines between twins."""
    seeds = list(dict.fromkeys(seed for summary in summaries for seed in summary.values))[:MAX_SEED_LINES]
    if any(c.is_paired for c in verdict.comparisons):
        lines = [
            [(s.values[seed], -y) for y, s in enumerate(summaries) if seed in s.values] for seed in seeds
        ]
        draw_lines(axes, lines, TEXT_COLOUR, alpha=0.25, linewidth=0.7)
    for y, summary in enumerate(summaries):
        style = group_style(summary, verdict)
        if summary.values:
            values = [*summary.values.values()]
            axes.plot(values, [-y] * len(values), markersize=4.5, alpha=0.65, **style.marker_options)
            axes.plot([summary.mean] * 2, [-y - 0.3, -y + 0.3], color=style.colour, linewidth=2.2)
        text = mean_and_sd(summary.mean, summary.sd, 2 if verdict.metric.is_accuracy else 4)
        _write_right(axes, -y, text if summary.values else "none trained", style.colour)
    _set_rows(axes, summaries, verdict, has_labels=True)
    axes.set_xlabel(metric_label(verdict))
    if not any(summary.values for summary in summaries):
        axes.set_xticks([])


def _draw_differences(
    axes: Any, summaries: Sequence[GroupSummary], verdict: Verdict, limit: float, *, has_labels: bool
) -> None:
    """The difference of each group from the baseline; a grey band for differences within delta."""
    for y, summary in enumerate(summaries):
        effect = verdict.comparison_of(summary)
        if effect is None or not effect.difference.n:
            _write_right(axes, -y, "baseline" if effect is None else "", TEXT_COLOUR, alpha=0.6)
            continue
        if effect.delta is not None:
            band = [-effect.delta, effect.delta]
            axes.fill_between(band, -y - 0.5, -y + 0.5, color=TEXT_COLOUR, alpha=0.08, linewidth=0)
        _draw_effect(axes, effect, -y, group_style(summary, verdict).colour, limit)
    axes.axvline(0, color=TEXT_COLOUR, linewidth=0.8)
    _set_rows(axes, summaries, verdict, has_labels=has_labels)
    units = unit(verdict.metric).strip() or verdict.metric.label
    axes.set_xlabel(f"difference from {verdict.grouping.baseline}, {units}")


def _draw_effect(axes: Any, effect: GroupComparison, y: float, colour: str, limit: float) -> None:
    """Mean, interval and the difference of each seed; an arrow beyond the limit."""
    mean, interval = effect.difference.mean, _interval(effect)
    text = points(mean, effect.metric)
    if interval:
        text += f" [{', '.join(points(end, effect.metric) for end in interval)}]"
    _write_right(axes, y, text, colour)
    if abs(mean) > 1.3 * limit:
        axes.plot(math.copysign(1.2 * limit, mean), y, ">" if mean > 0 else "<", color=colour, markersize=6)
        return
    if interval:
        axes.plot(interval, [y, y], color=colour, linewidth=2, solid_capstyle="butt")
    axes.plot(mean, y, "o", color=colour, markersize=6)
    ticks = [y - 0.27] * len(effect.differences)
    axes.plot(effect.differences, ticks, "|", color=colour, markersize=5, alpha=0.6)


def _share_x_axis(panels: Sequence[Any], effects: Sequence[GroupComparison], limit: float) -> None:
    """Gives the differences of all blocks one scale, which contains 0."""
    if limit < math.inf:
        low, high = -1.3 * limit, 1.3 * limit
    else:
        ends = [x for e in effects for x in (0.0, e.difference.mean, *_interval(e), *e.differences)]
        ends += [x for e in effects if e.delta is not None for x in (-e.delta, e.delta)]
        margin = 0.05 * (max(ends) - min(ends)) or 1.0
        low, high = min(ends) - margin, max(ends) + margin
    for axes in panels:
        axes.set_xlim(low, high)


def _set_rows(axes: Any, summaries: Sequence[GroupSummary], verdict: Verdict, *, has_labels: bool) -> None:
    """One row for each group, the first at the top."""
    axes.set_ylim(-len(summaries) + 0.5, 0.5)
    axes.set_yticks([-y for y in range(len(summaries))], [_row_label(summary) for summary in summaries])
    axes.tick_params(axis="y", length=0, labelleft=has_labels)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    for label, summary in zip(axes.get_yticklabels() if has_labels else (), summaries, strict=False):
        label.set_color(group_style(summary, verdict).colour)


def _write_right(axes: Any, y: float, text: str, colour: str, **options: Any) -> None:
    """A text to the right of a row."""
    axes.annotate(
        text, (1, y), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points", color=colour,
        va="center", annotation_clip=False, **options,
    )  # fmt: skip


def _axis_limit(effects: Sequence[GroupComparison]) -> float:
    """The largest extent to show, or inf for all: one very large difference would flatten the others."""
    if not effects:
        return math.inf
    extents = [max(abs(x) for x in (*_interval(effect), effect.difference.mean)) for effect in effects]
    limit = MAX_RELATIVE_EXTENT * statistics.median(extents)
    return math.inf if max(extents) <= limit else max(extent for extent in extents if extent <= limit)


def _interval(effect: GroupComparison) -> tuple[float, ...]:
    """Low and high end; empty with fewer than 3 seeds, and where they are not finite."""
    difference = effect.difference
    has_ends = difference.n >= 3 and math.isfinite(difference.low) and math.isfinite(difference.high)
    return (difference.low, difference.high) if has_ends else ()


def _caption(verdict: Verdict, effects: Sequence[GroupComparison]) -> str:
    is_paired = any(c.is_paired for c in effects)
    sentences = [f"Marks: one for each run that trained, {DESCRIPTIONS[verdict.rule]}. Bars: means (± sd)."]
    if is_paired:
        sentences.append("Thin lines: twins, the runs with the same seed.")
    if effects:
        side = "Differences: a dot for the mean, a line for its 95 % interval"
        sentences.append(f"{side}{', not adjusted for the number of tests' if verdict.family > 1 else ''}.")
    if is_paired:
        sentences.append("Small ticks: the difference of each seed.")
    if deltas := sorted({effect.delta for effect in effects if effect.delta is not None}):
        sizes = "/".join(f"{delta:g}" for delta in deltas)
        sentences.append(f"Grey band: differences within ±{sizes} do not matter.")
    if _axis_limit(effects) < math.inf:
        sentences.append("Arrow: the difference lies beyond the axis.")
    if not all(map(_interval, effects)):
        sentences.append("No line: too few seeds.")
    if any(summary.lost_runs for summary in verdict.summaries):
        sentences.append("Lost: diverged or at chance.")
    return " ".join(sentences) + describe_omissions(verdict)
