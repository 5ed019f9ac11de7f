"""Pictures of what happened on the way: curves by epoch and by second, the time to a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bnexp.report.analysis.curves import Band, band
from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.verdict import Comparison
from bnexp.report.plots.style import (
    MOST_LINES,
    Picture,
    Style,
    canvas,
    crop,
    label_of,
    left_out,
    legend,
    legend_height,
    lines,
    loss_axis,
    panels,
    shorten,
    style_of,  # fmt: skip
)
from bnexp.report.read.runs import Run

SECONDS = "training time (s)"  # evaluation left out
FEW = 20  # epochs up to which each is marked


def draw_curves(
    comparison: Comparison, rows: Sequence[GroupSummary], block: str, suffix: str
) -> Picture | None:
    """Accuracy and loss, in training and on the split that was watched, by epoch and by second."""
    runs, split = [run for row in rows for run in row.group.runs], rows[0].split
    tags = [f"{part}/{name}" for name in ("accuracy", "loss") for part in ("train", split)]
    tags = [tag for tag in tags if any(_finite(run, tag) for run in runs)]
    if not tags:
        return None
    timed = all(run.train_s for run in runs if run.curves)
    top = legend_height([label_of(row, len(row.group.runs)) for row in rows])
    height = 0.4 + top + 1.5 * len(tags)
    figure, axes = canvas(height, len(tags), 1 + timed, top=top, sharex="col", sharey="row")
    kinds: dict[str, None] = {}
    for i, tag in enumerate(tags):
        scale = 100.0 if tag.endswith("accuracy") else 1.0
        pair = axes[i * (1 + timed) : (i + 1) * (1 + timed)]
        for row in rows:
            mean = band(row.group.runs, tag, scale)
            if mean.kind:
                kinds[f"{mean.kind} (n={mean.n})"] = None
            for one, by in zip(pair, ("epochs", "seconds"), strict=False):
                _course(one, row, tag, scale, mean, by, style_of(row, comparison))
        _scale(pair[0], tag, [scale * value for run in runs for value in _finite(run, tag)])
        pair[0].yaxis.set_label_coords(-0.26 if timed else -0.125, 0.5)
    axes[-1 - timed].set_xlabel("epoch")
    axes[-1 - timed].xaxis.get_major_locator().set_params(integer=True)
    if timed:
        axes[-1].set_xlabel(SECONDS)
    legend(figure, axes[0])
    by = "by epoch and by second of training" if timed else "by epoch"
    drawn = f", the first {MOST_LINES}" if any(len(row.group.runs) > MOST_LINES for row in rows) else ""
    seconds = " Seconds leave evaluation out; the mean's are the means at each epoch's end." if timed else ""
    return Picture(
        f"curves{suffix}", f"Curves: {block}" if block else "Curves", f"Accuracy and loss {by}",
        f"Thin: one seed each{drawn}; thick: the mean, until a run ends, marked where it was logged. "
        f"Band: {'; '.join(kinds) or 'none'}. Nothing is smoothed.{seconds}", figure,
    )  # fmt: skip


def _course(axes: Any, row: GroupSummary, tag: str, scale: float, mean: Band, by: str, style: Style) -> None:
    """A thin line a run, the mean and its band, on one of the two axes."""
    thin = []
    for run in row.group.runs[:MOST_LINES]:
        xs = run.curves.get("epoch", ()) if by == "epochs" else run.train_s
        thin.append([(x, scale * y) for x, y in zip(xs, run.curves.get(tag, ()), strict=False)])
    lines(axes, thin, style.colour, alpha=0.3, linewidth=0.6)
    xs = getattr(mean, by)
    axes.fill_between(xs, mean.low, mean.high, color=style.colour, alpha=0.15, linewidth=0)
    axes.plot(
        xs, mean.mean, color=style.colour, linestyle=style.dash, linewidth=1.6, label=label_of(row, mean.n),
        marker=style.marker if len(xs) <= FEW else "", markersize=3,
    )  # fmt: skip


def _scale(axes: Any, tag: str, values: Sequence[float]) -> None:
    axes.set_ylabel(f"{tag.replace('/', ' ')}{' (%)' if tag.endswith('accuracy') else ''}")
    if tag.endswith("accuracy"):
        crop(axes, values)
    else:
        loss_axis(axes, values)


def _finite(run: Run, tag: str) -> list[float]:
    return [value for value in run.curves.get(tag, ()) if math.isfinite(value)]


def draw_times(comparison: Comparison) -> Picture | None:
    """Seconds to the target: the share of a group's runs that had reached it by then."""
    blocks, rows = comparison.blocks, comparison.rows
    if not any(row.target and row.target.count for row in rows) or not all(map(_known, rows)):
        return None
    single, most = len(blocks) == 1, max(blocks.values(), key=len)
    top = legend_height([_name(row) for row in most])
    figure, found = panels(comparison, 2, 1.7 if single else 1.1, top=top, above=1)
    for axes, shown in found:
        _shares(axes, shown, comparison)
        if goal := shown[0].target:
            words = f"{goal.split} accuracy {100 * goal.accuracy:.1f} %"
            axes.set_title(f"{axes.get_title('left')}\n{words}".lstrip())
    legend(figure, max((axes for axes, _ in found), key=lambda axes: len(axes.get_lines())))
    return Picture(
        "target", "Time to target", "Share of each group's runs that had reached the target, by seconds",
        "Seconds of training, without evaluation, to the end of the first epoch at the accuracy named above. "
        f"A run that never got there keeps its line below 100 %.{left_out(comparison)}", figure,
    )  # fmt: skip


def _shares(axes: Any, rows: Sequence[GroupSummary], comparison: Comparison) -> None:
    last = max((t for row in rows for t in _reached(row)), default=0.0) or 1.0
    for row in rows:
        style, steps, n = style_of(row, comparison), _reached(row), len(row.group.runs)
        axes.step(
            [0.0, *steps, 1.05 * last], [100 * i / n for i in (*range(len(steps) + 1), len(steps))],
            where="post", label=_name(row), linewidth=1.5, color=style.colour, linestyle=style.dash,
            marker=style.marker if n <= MOST_LINES else "", markersize=3,
            markevery=list(range(1, len(steps) + 1)),
        )  # fmt: skip
    axes.set_xlim(0, 1.05 * last)
    axes.set_ylim(-4, 104)
    axes.set_xlabel(SECONDS)
    axes.set_ylabel("runs there (%)")


def _name(row: GroupSummary) -> str:
    return shorten(row.group.value or "all runs")


def _reached(row: GroupSummary) -> list[float]:
    return sorted(t for t in row.target.each if math.isfinite(t)) if row.target else []


def _known(row: GroupSummary) -> bool:
    return row.target is not None and not any(map(math.isnan, row.target.each))
