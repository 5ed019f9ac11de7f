"""The pictures of a comparison: every one says its n and what its bands are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bnexp.report.curves import band
from bnexp.report.picture import (
    COLOURS,
    DASHES,
    INK,
    MARKERS,
    STYLE,
    Picture,
    canvas,
    colour_of,
    crop,
    dash_of,
    log_axis,
    marker_of,
    shorten,
)  # fmt: skip
from bnexp.report.table import blocks
from bnexp.report.verdict import Compared, Comparison, Row
from bnexp.report.words import points, unit

MOST = 8  # groups that one picture can hold apart


def pictures(comparison: Comparison) -> list[Picture]:
    """All that the runs have data for; of several blocks, each has its own slopes and curves."""
    import matplotlib as mpl

    drawn: list[Picture | None] = []
    with mpl.rc_context(STYLE):
        drawn += [forest(comparison), stability(comparison)]
        for i, (block, rows) in enumerate(blocks(comparison)):
            shown, suffix = rows[:MOST], f"-{i + 1}" if i else ""
            for draw in (slopes, curves, strip, times):
                drawn.append(draw(comparison, shown, block, suffix))
        found = [picture for picture in drawn if picture is not None]
        for picture in found:  # laid out once, not again for each file
            picture.figure.draw_without_rendering()
            picture.figure.set_layout_engine("none")
    return found


def forest(comparison: Comparison) -> Picture | None:
    """Differences with their 95 % intervals, a line at 0 and the band of what does not matter."""
    found = [one for one in comparison.compared if one.found.n]
    if not found:
        return None
    figure, axes = canvas(height=1.2 + 0.32 * len(found))
    for y, one in enumerate(reversed(found)):
        _interval(axes, one, y, colour_of(one.ours, comparison))
        if one.delta is not None:
            axes.fill_between([-one.delta, one.delta], y - 0.5, y + 0.5, color=INK, alpha=0.1, linewidth=0)
    axes.axvline(0, color=INK, linewidth=1)
    labels = [f"{shorten(one.ours.group.name)} (n={one.found.n})" for one in reversed(found)]
    axes.set_yticks(range(len(found)), labels)
    axes.set_ylim(-0.5, len(found) - 0.5)
    axes.set_xlabel(f"difference from {comparison.grouping.baseline}, {_units(comparison)}")
    deltas = {one.delta for one in found if one.delta is not None}
    grey = f" Grey: ±{'/'.join(f'{d:g}' for d in sorted(deltas))}, what does not matter." if deltas else ""
    alt = "; ".join(f"{one.ours.group.name}: {points(one.found.mean, comparison.metric)}" for one in found)
    return Picture(
        "forest", "Differences", f"Difference of each group from the baseline: {alt}",
        f"Mean difference and its pointwise 95 % interval (paired t).{grey} No bar: too few seeds.", figure,
    )  # fmt: skip


def slopes(comparison: Comparison, rows: Sequence[Row], block: str, suffix: str) -> Picture | None:
    """A line a seed from group to group; a seed that diverged ends in an x at the bottom."""
    runs = [twin for row in rows for twin in row.values]
    if len(rows) < 2 or not runs:
        return None
    figure, axes = canvas()
    values = [value for row in rows for value in row.values.values()]
    bottom = min(values) - 0.12 * ((max(values) - min(values)) or 1)
    for twin in dict.fromkeys(runs):
        line = [(x, row.values[twin]) for x, row in enumerate(rows) if twin in row.values]
        axes.plot(*zip(*line, strict=True), color=INK, alpha=0.35, linewidth=0.8)
    for x, row in enumerate(rows):
        style = {
            "color": colour_of(row, comparison),
            "marker": marker_of(row, comparison),
            "linestyle": "none",
        }
        axes.plot([x] * len(row.values), list(row.values.values()), markersize=4, **style)
        axes.plot(
            [x] * len(row.diverged), [bottom] * len(row.diverged), "x", color=colour_of(row, comparison)
        )
        if row.values:
            axes.plot([x - 0.18, x + 0.18], [row.mean] * 2, color=colour_of(row, comparison), linewidth=2.5)
    _name_axis(axes, rows)
    axes.set_ylabel(_axis(comparison))
    return Picture(
        f"twins{suffix}", _titled("Twins", block), f"{comparison.metric.label} of every seed in every group",
        "A thin line a seed: twins share weights, batches and noise. Bars: means. x: diverged.", figure,
    )  # fmt: skip


def curves(comparison: Comparison, rows: Sequence[Row], block: str, suffix: str) -> Picture | None:
    """A thin line a seed, the mean of each group and its band, on the epochs that were logged."""
    key = f"{rows[0].split}/accuracy"
    if not any(run.curves.get(key) for row in rows for run in row.group.runs):
        return None
    figure, panels = canvas(panels=2)
    kinds: dict[str, None] = {}
    for axes, tag, scale in ((panels[0], key, 100.0), (panels[1], "train/loss", 1.0)):
        for row in rows:
            colour = colour_of(row, comparison)
            for run in row.group.runs:
                values = [scale * value for value in run.curves.get(tag, ())]
                axes.plot(
                    run.curves.get("epoch", ())[: len(values)], values, color=colour, alpha=0.3, linewidth=0.6
                )
            mean = band(row.group.runs, tag, scale)
            if mean.kind:
                kinds[f"{mean.kind} (n={mean.n})"] = None
                axes.fill_between(mean.epochs, mean.low, mean.high, color=colour, alpha=0.15, linewidth=0)
            label = f"{shorten(row.group.value or 'all runs')} (n={mean.n})"
            axes.plot(
                mean.epochs,
                mean.mean,
                color=colour,
                linestyle=dash_of(row, comparison),
                linewidth=1.8,
                label=label,
            )
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[0].set_ylabel(f"{rows[0].split} accuracy (%)")
    crop(panels[0], rows, key)
    panels[1].set_ylabel("train loss")
    if all(
        v > 0 for row in rows for run in row.group.runs for v in run.curves.get("train/loss", ()) if v == v
    ):
        log_axis(panels[1], "y")
    panels[0].legend(loc="best", fontsize=8)
    return Picture(
        f"curves{suffix}", _titled("Curves", block), f"{rows[0].split} accuracy and train loss by epoch",
        f"Thin: one seed each; thick: the mean, until a run ends. Band: {'; '.join(kinds) or 'none'}. "
        "Nothing is smoothed.", figure,
    )  # fmt: skip


def strip(comparison: Comparison, rows: Sequence[Row], block: str, suffix: str) -> Picture | None:
    """Every final value as a mark, a row a group."""
    if not any(row.values for row in rows):
        return None
    figure, axes = canvas(height=1.1 + 0.32 * len(rows))
    for y, row in enumerate(reversed(rows)):
        ordered = list(row.values.values())
        offsets = [y + 0.12 * ((i % 3) - 1) for i in range(len(ordered))]
        style = {
            "color": colour_of(row, comparison),
            "marker": marker_of(row, comparison),
            "linestyle": "none",
        }
        axes.plot(ordered, offsets, alpha=0.75, markersize=5, **style)
    labels = [f"{shorten(row.group.value or 'all runs')} (n={len(row.values)})" for row in reversed(rows)]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_xlabel(_axis(comparison))
    return Picture(
        f"finals{suffix}", _titled("Final values", block), f"Final {comparison.metric.label} of every run",
        "Every finished run, at its last epoch.", figure,
    )  # fmt: skip


def times(comparison: Comparison, rows: Sequence[Row], block: str, suffix: str) -> Picture | None:
    """Seconds to the target: the share of a group's runs that had reached it by then."""
    if not any(row.target and row.target.count for row in rows):
        return None
    figure, axes = canvas(height=2.3)
    last = 0.0
    for row in rows:
        assert row.target is not None
        n, steps = len(row.group.runs), sorted(t for t in row.target.each if math.isfinite(t))
        last = max([last, *steps])
        xs, ys = [0.0, *steps], [100 * i / n for i in range(len(steps) + 1)]
        label = f"{shorten(row.group.value or 'all runs')} ({len(steps)} of {n})"
        style = {
            "color": colour_of(row, comparison),
            "linestyle": dash_of(row, comparison),
            "marker": marker_of(row, comparison),
        }
        axes.step(xs, ys, where="post", label=label, markersize=3, linewidth=1.5, **style)
    for line in axes.get_lines():  # each goes on at its level to the end
        line.set_data([*line.get_xdata(), 1.05 * last], [*line.get_ydata(), line.get_ydata()[-1]])
        line.set_markevery(list(range(1, len(line.get_xdata()) - 1)))
    axes.set_xlim(0, 1.05 * last or 1)
    axes.set_ylim(-4, 104)
    axes.set_xlabel("seconds of training and evaluation")
    goal = rows[0].target
    axes.set_ylabel("runs there (%)")
    axes.legend(loc="best", fontsize=8)
    words = f"{goal.split} accuracy {100 * goal.accuracy:.1f} %" if goal else ""
    name = _titled(f"Time to {words}", block)
    return Picture(
        f"target{suffix}", name, f"Share of runs that reached {words}, by seconds",
        "By each run's logged epochs; a run that never got there keeps its line below 100 %.", figure,
    )  # fmt: skip


def stability(comparison: Comparison) -> Picture | None:
    """The metric against the learning rate, where several were tried, or any rows diverged."""
    key = "optimizer.lr"
    rows = [row for row in comparison.rows if _number(row.group.settings.get(key)) is not None]
    if len({row.group.settings[key] for row in rows}) < 2:
        return None
    figure, axes = canvas()

    def named(row: Row) -> str:
        return _without(row, key, comparison)

    names = dict.fromkeys(map(named, rows))
    values = [value for row in rows for value in row.values.values()]
    span = (max(values, default=1) - min(values, default=0)) or 1
    bottom = min(values, default=0) - 0.08 * span
    for i, name in enumerate(names):
        colour = INK if i == 0 else COLOURS[(i - 1) % len(COLOURS)]
        aside = 1.06 ** (i - (len(names) - 1) / 2)  # side by side, so that no mark hides another
        members = [(aside * float(row.group.settings[key]), row) for row in rows if named(row) == name]
        members.sort(key=lambda pair: pair[0])
        line = [(lr, row.mean) for lr, row in members if row.values]
        if line:
            dashes = DASHES[i % len(DASHES)]
            axes.plot(*zip(*line, strict=True), color=colour, linestyle=dashes, label=shorten(name))
        for lr, row in members:
            axes.plot(
                [lr] * len(row.values), list(row.values.values()), MARKERS[i % 7], color=colour, markersize=3
            )
            if row.diverged:  # a row of its own for each group, below the values
                here = (lr, bottom - 0.06 * i * span)
                axes.plot(*here, "x", color=colour)
                axes.annotate(
                    str(len(row.diverged)),
                    here,
                    (5, 0),
                    textcoords="offset points",
                    color=colour,
                    va="center",
                )
    log_axis(axes, "x")
    axes.set_xlabel("learning rate")
    axes.set_ylabel(_axis(comparison))
    if len(names) > 1:
        axes.legend(fontsize=8)
    return Picture(
        "stability", "Stability", f"{comparison.metric.label} against the learning rate",
        "Marks: runs; lines: means of those that finished; x: how many diverged.", figure,
    )  # fmt: skip


def _interval(axes: Any, one: Compared, y: float, colour: str) -> None:
    if one.found.n >= 3 and not math.isnan(one.found.low):
        axes.plot([one.found.low, one.found.high], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
    axes.plot(one.found.mean, y, "o", color=colour, markersize=6)
    axes.plot(one.differences, [y - 0.22] * len(one.differences), "|", color=colour, markersize=5, alpha=0.6)


def _name_axis(axes: Any, rows: Sequence[Row]) -> None:
    axes.set_xticks(range(len(rows)), [shorten(row.group.value) for row in rows])
    if sum(len(row.group.value) for row in rows) > 40:
        axes.tick_params(axis="x", rotation=30)
    axes.set_xlim(-0.5, len(rows) - 0.5)


def _without(row: Row, key: str, comparison: Comparison) -> str:
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


def _titled(title: str, block: str) -> str:
    return f"{title}: {block}" if block else title
