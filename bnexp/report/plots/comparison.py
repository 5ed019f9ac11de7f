"""The pictures of a comparison: every one says its n and what its bands are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.verdict import Comparison, GroupComparison
from bnexp.report.plots.style import (
    INK,
    MOST,
    MOST_BLOCKS,
    MOST_LINES,
    STYLE,
    Picture,
    Style,
    canvas,
    label_of,
    left_out,
    lines,
    numbered,
    panels,
    room_for,
    shorten,
    style_of,  # fmt: skip
)
from bnexp.report.plots.training_curves import draw_curves, draw_times
from bnexp.report.render.numbers import points, unit

MOST_COMPARED = 40  # lines of the forest
FAR = 5  # times the median extent: beyond, an interval ends in an arrow


def draw_pictures(comparison: Comparison) -> list[Picture]:
    """All that the runs have data for; of several blocks, each has a panel, and curves of its own."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        drawn = [draw(comparison) for draw in (stability, forest, twins)]
        for i, (block, rows) in enumerate(list(comparison.blocks.items())[:MOST_BLOCKS]):
            drawn.append(draw_curves(comparison, rows[:MOST], block, f"-{i + 1}" if i else ""))
        drawn += [finals(comparison), draw_times(comparison)]
    return [picture for picture in drawn if picture is not None]


def forest(comparison: Comparison) -> Picture | None:
    """Differences with their 95 % intervals, a line at 0 and the band of what does not matter."""
    found = [one for one in comparison.compared if one.found.n][:MOST_COMPARED]
    if not found:
        return None
    labels = [f"{shorten(one.ours.group.name)} (n={one.found.n})" for one in reversed(found)]
    figure, (axes,) = canvas(height=0.6 + 0.32 * len(found), left=room_for(labels))
    far = _far(found)
    for y, one in enumerate(reversed(found)):
        if one.delta is not None:
            axes.fill_between([-one.delta, one.delta], y - 0.5, y + 0.5, color=INK, alpha=0.1, linewidth=0)
        _interval(axes, one, y, style_of(one.ours, comparison).colour, far)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(found)), labels)
    axes.set_ylim(-0.5, len(found) - 0.5)
    if far < math.inf:
        axes.set_xlim(-1.3 * far, 1.3 * far)
    axes.set_xlabel(f"difference from {comparison.grouping.baseline}, {_units(comparison)}")
    deltas = sorted({one.delta for one in found if one.delta is not None})
    words = ["Mean difference and its pointwise 95 % interval; small bars: each seed's."]
    if deltas:
        words.append(f"Grey: ±{'/'.join(f'{d:g}' for d in deltas)}, what does not matter.")
    if far < math.inf:
        words.append("An arrow: the difference lies beyond the axis.")
    if any(one.found.n < 3 for one in found):
        words.append("No bar: too few seeds.")
    alt = "; ".join(f"{one.ours.group.name}: {points(one.found.mean, comparison.metric)}" for one in found)
    return Picture(
        "forest", "Differences", f"Difference of each group from the baseline: {alt}", " ".join(words), figure
    )


def _far(found: Sequence[GroupComparison]) -> float:
    """Where the axis ends, so that one large difference does not press the others into a line; else inf."""
    extents = [max(abs(x) for x in (*_ends(one), one.found.mean)) for one in found]
    limit = FAR * statistics.median(extents)
    return math.inf if max(extents) <= limit else max(extent for extent in extents if extent <= limit)


def _ends(one: GroupComparison) -> tuple[float, ...]:
    return (one.found.low, one.found.high) if one.found.n >= 3 and not math.isnan(one.found.low) else ()


def _interval(axes: Any, one: GroupComparison, y: float, colour: str, far: float) -> None:
    mean = one.found.mean
    if abs(mean) > 1.3 * far:
        side = math.copysign(1.2 * far, mean)
        axes.plot(side, y, ">" if mean > 0 else "<", color=colour, markersize=6)
        axes.annotate(
            points(mean, one.metric), (side, y), (-8 if mean > 0 else 8, 0), textcoords="offset points",
            ha="right" if mean > 0 else "left", va="center", color=colour,
        )  # fmt: skip
        return
    if ends := _ends(one):
        axes.plot(ends, [y, y], color=colour, linewidth=2, solid_capstyle="butt")
    axes.plot(mean, y, "o", color=colour, markersize=6)
    axes.plot(one.differences, [y - 0.22] * len(one.differences), "|", color=colour, markersize=5, alpha=0.6)


def twins(comparison: Comparison) -> Picture | None:
    """A line a seed from group to group; a seed that diverged ends in an x at the bottom."""
    most = max(len(rows) for rows in comparison.blocks.values())
    if most < 2 or not any(row.values for row in comparison.rows):
        return None
    single = len(comparison.blocks) == 1
    figure, found = panels(comparison, 3 if most < 3 else 2 if most < 5 else 1, 2.3 if single else 1.4)
    for axes, rows in found:
        values = [value for row in rows for value in row.values.values()]
        every = list(dict.fromkeys(twin for row in rows for twin in row.values))[:MOST_LINES]
        seeds = [
            [(x, row.values[twin]) for x, row in enumerate(rows) if twin in row.values] for twin in every
        ]
        lines(axes, seeds, INK, alpha=0.35, linewidth=0.8)
        bottom = min(values, default=0) - 0.12 * ((max(values, default=1) - min(values, default=0)) or 1)
        for x, row in enumerate(rows):
            _column(axes, x, row, bottom, style_of(row, comparison))
        _name_axis(axes, rows)
        if not values:
            axes.set_yticks([])
    for axes, _ in found if single else found[:: 3 if most < 3 else 2 if most < 5 else 1]:
        axes.set_ylabel(_axis(comparison))
    return Picture(
        "twins", "Twins", f"{comparison.metric.label} of every seed in every group",
        "A line a seed: twins share weights, batches, noise. Bars: means. x: so many diverged or at chance."
        + left_out(comparison), figure,
    )  # fmt: skip


def _column(axes: Any, x: int, row: GroupSummary, bottom: float, style: Any) -> None:
    axes.plot([x] * len(row.values), [*row.values.values()], markersize=4, **style.dots)
    if row.values:
        axes.plot([x - 0.18, x + 0.18], [row.mean] * 2, color=style.colour, linewidth=2.5)
    if row.diverged:
        _crossed(axes, x, bottom, len(row.diverged), style.colour)


def _crossed(axes: Any, x: float, y: float, count: int, colour: str) -> None:
    """So many that diverged."""
    axes.plot(x, y, "x", color=colour)
    axes.annotate(f"{count}", (x, y), (5, 0), textcoords="offset points", color=colour, va="center")


def finals(comparison: Comparison) -> Picture | None:
    """Every final value as a mark, a line a group."""
    if not any(row.values for row in comparison.rows):
        return None
    most = max(min(len(rows), MOST) for rows in comparison.blocks.values())
    room = room_for([label_of(row, len(row.values)) for row in comparison.rows])
    figure, found = panels(comparison, 2 if room < 1.2 else 1, 0.25 + 0.28 * most, left=room)
    for axes, rows in found:
        for y, row in enumerate(reversed(rows)):
            offsets = [y + 0.12 * ((i % 3) - 1) for i in range(len(row.values))]
            style = style_of(row, comparison)
            axes.plot([*row.values.values()], offsets, alpha=0.75, markersize=5, **style.dots)
        axes.set_yticks(range(len(rows)), [label_of(row, len(row.values)) for row in reversed(rows)])
        axes.set_ylim(-0.5, len(rows) - 0.5)
        axes.set_xlabel(_axis(comparison))
        if not any(row.values for row in rows):
            axes.set_xticks([])
    return Picture(
        "finals", "Final values", f"Final {comparison.metric.label} of every run",
        f"Every finished run, at its last epoch.{left_out(comparison)}", figure,
    )  # fmt: skip


def stability(comparison: Comparison) -> Picture | None:
    """The metric against the learning rate, where several were tried (after Bjorck et al. 2018, figure 1)."""
    key = "optimizer.lr"
    rows = [row for row in comparison.rows if _number(row.group.settings.get(key)) is not None]
    if len({row.group.settings[key] for row in rows}) < 2:
        return None
    figure, (axes,) = canvas()
    tried: dict[str, list[tuple[float, GroupSummary]]] = {}
    for row in rows:
        tried.setdefault(_without(row, key, comparison), []).append((float(row.group.settings[key]), row))
    values = [value for row in rows for value in row.values.values()]
    span = (max(values, default=1) - min(values, default=0)) or 1
    for i, (name, members) in enumerate(tried.items()):
        aside = 1.06 ** (i - (len(tried) - 1) / 2)  # side by side, so that no mark hides another
        bottom = min(values, default=0) - (0.08 + 0.06 * i) * span  # what diverged has a line a group, below
        _rates(axes, sorted(members, key=lambda pair: pair[0]), aside, bottom, numbered(i), shorten(name))
    rates = sorted({lr for members in tried.values() for lr, _ in members})
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(rates, [f"{lr:g}" for lr in rates], rotation=30 if len(rates) > 9 else 0)
    axes.set_xlabel("learning rate")
    axes.set_ylabel(_axis(comparison))
    if len(tried) > 1:
        axes.legend(fontsize=8)
    return Picture(
        "stability", "Stability", f"{comparison.metric.label} against the learning rate",
        "Lines: means of those that finished; small: each run; x: so many diverged or at chance.", figure,
    )  # fmt: skip


def _rates(
    axes: Any,
    members: Sequence[tuple[float, GroupSummary]],
    aside: float,
    bottom: float,
    style: Style,
    name: str,
) -> None:
    """One line of the picture: means, every run, and how many diverged."""
    drawn = [(aside * lr, row.mean) for lr, row in members if row.values]
    axes.plot(
        [lr for lr, _ in drawn], [mean for _, mean in drawn], color=style.colour, linestyle=style.dash,
        marker=style.marker, markersize=4.5, label=name,
    )  # fmt: skip
    for lr, row in members:
        at = [aside * lr] * len(row.values)
        axes.plot(at, [*row.values.values()], markersize=2.5, alpha=0.5, **style.dots)
        if row.diverged:
            _crossed(axes, aside * lr, bottom, len(row.diverged), style.colour)


def _name_axis(axes: Any, rows: Sequence[GroupSummary]) -> None:
    axes.set_xticks(range(len(rows)), [shorten(row.group.value) for row in rows])
    if sum(len(row.group.value) for row in rows) > 40:
        axes.tick_params(axis="x", rotation=30)
    axes.set_xlim(-0.5, len(rows) - 0.5)


def _without(row: GroupSummary, key: str, comparison: Comparison) -> str:
    """A group's name but for one key."""
    if comparison.grouping.by == key:
        return row.group.block or "all"
    rest = " ".join(word for word in row.group.block.split() if not word.startswith("lr="))
    return f"{row.group.value} {rest}".strip()


def _number(text: str | None) -> float | None:
    try:
        found = float(text or "")
    except ValueError:
        return None
    return found if found > 0 and math.isfinite(found) else None


def _axis(comparison: Comparison) -> str:
    return comparison.metric.label + (" (%)" if comparison.metric.is_accuracy else "")


def _units(comparison: Comparison) -> str:
    return unit(comparison.metric).strip() or comparison.metric.label
