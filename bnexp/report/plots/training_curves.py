"""Pictures of the training itself: curves by epoch and by second, and the time to a target accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bnexp.report.analysis.curves import Band, band
from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.plots.style import (
    MAX_SEED_LINES,
    Picture,
    Style,
    crop_early_rise,
    describe_omissions,
    draw_legend,
    draw_lines,
    group_label,
    group_style,
    legend_height,
    make_figure,
    make_panels,
    scale_loss_axis,
    shorten,
)
from bnexp.report.read.runs import Run

SECONDS_LABEL = "training time (s)"  # without evaluation
MAX_EPOCH_MARKERS = 20  # curves with more epochs have no marker at each epoch


def draw_curves(
    verdict: Verdict, summaries: Sequence[GroupSummary], block: str, suffix: str
) -> Picture | None:
    """Accuracy and loss of one block's groups, in training and on val (or test), by epoch and by second."""
    runs, split = [run for summary in summaries for run in summary.group.runs], summaries[0].split
    tags = [f"{part}/{name}" for name in ("accuracy", "loss") for part in ("train", split)]
    tags = [tag for tag in tags if any(_finite_values(run, tag) for run in runs)]
    if not tags:
        return None
    has_seconds = all(run.train_s for run in runs if run.curves)
    top = legend_height([group_label(summary, len(summary.group.runs)) for summary in summaries])
    height = 0.4 + top + 1.5 * len(tags)
    figure, panels = make_figure(height, len(tags), 1 + has_seconds, top=top, sharex="col", sharey="row")
    band_kinds: dict[str, None] = {}
    for i, tag in enumerate(tags):
        scale = 100.0 if tag.endswith("accuracy") else 1.0
        row = panels[i * (1 + has_seconds) : (i + 1) * (1 + has_seconds)]
        for summary in summaries:
            mean = band(summary.group.runs, tag, scale)
            if mean.kind:
                band_kinds[f"{mean.kind} (n={mean.n})"] = None
            for axes, by in zip(row, ("epochs", "seconds"), strict=False):
                _draw_group_curve(axes, summary, tag, scale, mean, by, group_style(summary, verdict))
        _set_y_axis(row[0], tag, [scale * value for run in runs for value in _finite_values(run, tag)])
        row[0].yaxis.set_label_coords(-0.26 if has_seconds else -0.125, 0.5)
    panels[-1 - has_seconds].set_xlabel("epoch")
    panels[-1 - has_seconds].xaxis.get_major_locator().set_params(integer=True)
    if has_seconds:
        panels[-1].set_xlabel(SECONDS_LABEL)
    draw_legend(figure, panels[0])
    return Picture(
        f"curves{suffix}",
        f"Curves: {block}" if block else "Curves",
        f"Accuracy and loss {'by epoch and by second of training' if has_seconds else 'by epoch'}",
        _curves_caption(summaries, list(band_kinds), has_seconds),
        figure,
    )


def _curves_caption(summaries: Sequence[GroupSummary], band_kinds: Sequence[str], has_seconds: bool) -> str:
    truncated = any(len(summary.group.runs) > MAX_SEED_LINES for summary in summaries)
    sentences = [
        f"Thin lines: one for each seed{f' (the first {MAX_SEED_LINES} seeds)' if truncated else ''}.",
        "Thick lines: the mean over the seeds, up to the epoch at which the first run ends.",
        f"Markers: the logged epochs. Band: {'; '.join(band_kinds) or 'none'}. Nothing is smoothed.",
    ]
    if has_seconds:
        sentences.append(
            "Seconds are those of training, without evaluation. The seconds of a mean are the means over the"
            " runs at the end of each epoch."
        )
    return " ".join(sentences)


def _draw_group_curve(
    axes: Any, summary: GroupSummary, tag: str, scale: float, mean: Band, by: str, style: Style
) -> None:
    """A thin line for each run, the mean and its band; ``by`` is "epochs" or "seconds"."""
    seed_lines = []
    for run in summary.group.runs[:MAX_SEED_LINES]:
        xs = run.curves.get("epoch", ()) if by == "epochs" else run.train_s
        seed_lines.append([(x, scale * y) for x, y in zip(xs, run.curves.get(tag, ()), strict=False)])
    draw_lines(axes, seed_lines, style.colour, alpha=0.3, linewidth=0.6)
    xs = getattr(mean, by)
    axes.fill_between(xs, mean.low, mean.high, color=style.colour, alpha=0.15, linewidth=0)
    axes.plot(
        xs, mean.mean, color=style.colour, linestyle=style.dash, linewidth=1.6,
        label=group_label(summary, mean.n), marker=style.marker if len(xs) <= MAX_EPOCH_MARKERS else "",
        markersize=3,
    )  # fmt: skip


def _set_y_axis(axes: Any, tag: str, values: Sequence[float]) -> None:
    axes.set_ylabel(f"{tag.replace('/', ' ')}{' (%)' if tag.endswith('accuracy') else ''}")
    if tag.endswith("accuracy"):
        crop_early_rise(axes, values)
    else:
        scale_loss_axis(axes, values)


def _finite_values(run: Run, tag: str) -> list[float]:
    return [value for value in run.curves.get(tag, ()) if math.isfinite(value)]


def draw_times(verdict: Verdict) -> Picture | None:
    """The share of each group's runs that have reached the target accuracy, against seconds of training."""
    blocks, summaries = verdict.blocks, verdict.summaries
    if not any(summary.target and summary.target.count for summary in summaries):
        return None
    if not all(map(_has_times, summaries)):
        return None
    single, largest = len(blocks) == 1, max(blocks.values(), key=len)
    top = legend_height([_short_name(summary) for summary in largest])
    figure, panels = make_panels(verdict, 2, 1.7 if single else 1.1, top=top, extra_title_lines=1)
    for axes, block in panels:
        _draw_shares(axes, block, verdict)
        if target := block[0].target:
            subtitle = f"{target.split} accuracy {100 * target.accuracy:.1f} %"
            axes.set_title(f"{axes.get_title('left')}\n{subtitle}".lstrip())
    draw_legend(figure, max((axes for axes, _ in panels), key=lambda axes: len(axes.get_lines())))
    return Picture(
        "target",
        "Time to target",
        "Share of each group's runs that have reached the target accuracy, against seconds of training",
        "Seconds are those of training, without evaluation, to the end of the first epoch that reaches the"
        " accuracy in the title. A group with runs that never reach it stays below 100 %."
        + describe_omissions(verdict),
        figure,
    )


def _draw_shares(axes: Any, summaries: Sequence[GroupSummary], verdict: Verdict) -> None:
    last = max((t for summary in summaries for t in _times_to_target(summary)), default=0.0) or 1.0
    for summary in summaries:
        style, times, n = group_style(summary, verdict), _times_to_target(summary), len(summary.group.runs)
        axes.step(
            [0.0, *times, 1.05 * last], [100 * i / n for i in (*range(len(times) + 1), len(times))],
            where="post", label=_short_name(summary), linewidth=1.5, color=style.colour, linestyle=style.dash,
            marker=style.marker if n <= MAX_SEED_LINES else "", markersize=3,
            markevery=list(range(1, len(times) + 1)),
        )  # fmt: skip
    axes.set_xlim(0, 1.05 * last)
    axes.set_ylim(-4, 104)
    axes.set_xlabel(SECONDS_LABEL)
    axes.set_ylabel("runs that reached it (%)")


def _short_name(summary: GroupSummary) -> str:
    return shorten(summary.group.value or "all runs")


def _times_to_target(summary: GroupSummary) -> list[float]:
    """Seconds of the runs that reached the target, in ascending order."""
    return sorted(t for t in summary.target.seconds_per_run if math.isfinite(t)) if summary.target else []


def _has_times(summary: GroupSummary) -> bool:
    """False where the number of images is unknown: then seconds cannot be computed and are nan."""
    return summary.target is not None and not any(map(math.isnan, summary.target.seconds_per_run))
