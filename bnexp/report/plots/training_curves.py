"""Pictures of the training itself: curves by epoch, and how long it took to reach an accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bnexp.report.analysis.curves import Band, band
from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.plots.style import (
    MAX_SEED_LINES,
    WIDE,
    WIDTH,
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
    scale_loss_axis,
)
from bnexp.report.read.runs import Run

SECONDS_LABEL = "training time (s)"  # without evaluation
MAX_EPOCH_MARKERS = 20  # curves with more epochs have no marker at each epoch
HEIGHT = 3.7  # inches, of both pictures: they stand side by side
PARTS = {"train": "training", "val": "validation", "test": "test"}


def draw_curves(
    verdict: Verdict, summaries: Sequence[GroupSummary], block: str, suffix: str, *, is_wide: bool
) -> Picture | None:
    """Accuracy and loss of one block's groups by epoch, in training and on val (or test)."""
    runs, split = [run for summary in summaries for run in summary.group.runs], summaries[0].split
    tags = [f"{part}/{name}" for name in ("accuracy", "loss") for part in ("train", split)]
    tags = [tag for tag in tags if any(_finite_values(run, tag) for run in runs)]
    if not tags:
        return None
    figures = [
        _draw_tags(verdict, summaries, tags, width) for width in ([WIDE, WIDTH] if is_wide else [WIDTH])
    ]
    return Picture(
        f"curves{suffix}",
        _title("How did training go?", block),
        "Accuracy and loss by epoch",
        _curves_caption(summaries, tags) + describe_omissions(verdict),
        *figures,
    )


def _draw_tags(verdict: Verdict, summaries: Sequence[GroupSummary], tags: list[str], width: float) -> Any:
    """A panel for each tag: all in one row where the figure is wide, else two in a row."""
    top = legend_height([_curve_label(summary) for summary in summaries], width) + 0.2
    columns = len(tags) if width == WIDE else min(2, len(tags))
    rows = math.ceil(len(tags) / columns)
    figure, panels = make_figure(
        HEIGHT if rows > 1 else 2.7, rows, columns, width=width, top=top, gap=(0.6, 0.55)
    )
    runs = [run for summary in summaries for run in summary.group.runs]
    for axes, tag in zip(panels, tags, strict=False):
        scale = 100.0 if tag.endswith("accuracy") else 1.0
        _draw_tag(axes, verdict, summaries, tag, "epochs")
        _set_y_axis(axes, tag, [scale * value for run in runs for value in _finite_values(run, tag)])
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in panels[len(tags) :]:
        axes.set_axis_off()
    for axes in panels[max(0, len(tags) - columns) : len(tags)]:
        axes.set_xlabel("epoch")
    draw_legend(figure, panels[0])
    return figure


def _draw_tag(axes: Any, verdict: Verdict, summaries: Sequence[GroupSummary], tag: str, by: str) -> None:
    """The curves of all groups; ``by`` is "epochs" or "seconds"."""
    scale = 100.0 if tag.endswith("accuracy") else 1.0
    for summary in summaries:
        mean = band(summary.group.runs, tag, scale)
        _draw_group_curve(axes, summary, tag, scale, mean, by, group_style(summary, verdict))


def _title(question: str, block: str) -> str:
    return f"{question} ({block})" if block else question


def _curve_label(summary: GroupSummary) -> str:
    return group_label(summary, len(summary.group.runs))


def _curves_caption(summaries: Sequence[GroupSummary], tags: Sequence[str]) -> str:
    bands = [band(summary.group.runs, tag) for tag in tags for summary in summaries]
    kinds = dict.fromkeys(f"{mean.kind} (n={mean.n})" for mean in bands if mean.kind)
    truncated = any(len(summary.group.runs) > MAX_SEED_LINES for summary in summaries)
    sentences = [
        f"Thin lines: one for each seed{f' (the first {MAX_SEED_LINES} seeds)' if truncated else ''}.",
        "Thick lines: the mean over the seeds, up to the epoch at which the first run ends.",
        f"Band: {'; '.join(kinds) or 'none'}. Nothing is smoothed.",
    ]
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
    part, name = tag.split("/")
    axes.set_title(f"{PARTS[part]} {name}{' (%)' if name == 'accuracy' else ''}")
    if name == "accuracy":
        crop_early_rise(axes, values)
    else:
        scale_loss_axis(axes, values)


def _finite_values(run: Run, tag: str) -> list[float]:
    return [value for value in run.curves.get(tag, ()) if math.isfinite(value)]


def draw_times(
    verdict: Verdict, summaries: Sequence[GroupSummary], block: str, suffix: str
) -> Picture | None:
    """One block's accuracy by seconds of training, and the share of runs that have reached the target.

    None where the number of images is unknown: then seconds cannot be computed.
    """
    target, runs = summaries[0].target, [run for summary in summaries for run in summary.group.runs]
    if target is None or not all(run.train_s for run in runs if run.curves):
        return None
    if not all(map(_has_times, summaries)):
        return None
    top = legend_height([_curve_label(summary) for summary in summaries]) + 0.2
    figure, (by_second, shares) = make_figure(HEIGHT, 1, 2, top=top, gap=(0.6, 0.2))
    tag = f"{target.split}/accuracy"
    _draw_tag(by_second, verdict, summaries, tag, "seconds")
    _set_y_axis(by_second, tag, [100 * value for run in runs for value in _finite_values(run, tag)])
    by_second.set_xlabel(SECONDS_LABEL)
    by_second.set_xlim(left=0)
    _draw_shares(shares, summaries, verdict)
    shares.set_title(f"runs at {100 * target.accuracy:.1f} % or more (%)")
    draw_legend(figure, by_second)
    return Picture(
        f"target{suffix}",
        _title("How long did it take?", block),
        "Accuracy by second of training, and the share of each group's runs that have reached the target",
        "Seconds are those of training, without evaluation. Right: the share of the runs that reached the"
        f" target by the end of an epoch, a {PARTS[target.split]} accuracy of {100 * target.accuracy:.1f} %."
        + describe_omissions(verdict),
        figure,
    )


def _draw_shares(axes: Any, summaries: Sequence[GroupSummary], verdict: Verdict) -> None:
    last = max((t for summary in summaries for t in _times_to_target(summary)), default=0.0) or 1.0
    for summary in summaries:
        style, times, n = group_style(summary, verdict), _times_to_target(summary), len(summary.group.runs)
        axes.step(
            [0.0, *times, 1.05 * last], [100 * i / n for i in (*range(len(times) + 1), len(times))],
            where="post", linewidth=1.5, color=style.colour, linestyle=style.dash,
            marker=style.marker if n <= MAX_SEED_LINES else "", markersize=3,
            markevery=list(range(1, len(times) + 1)),
        )  # fmt: skip
    axes.set_xlim(0, 1.05 * last)
    axes.set_ylim(-4, 104)
    axes.set_xlabel(SECONDS_LABEL)


def _times_to_target(summary: GroupSummary) -> list[float]:
    """Seconds of the runs that reached the target, in ascending order."""
    return sorted(t for t in summary.target.seconds_per_run if math.isfinite(t)) if summary.target else []


def _has_times(summary: GroupSummary) -> bool:
    """False where seconds are not known."""
    return summary.target is not None and not any(map(math.isnan, summary.target.seconds_per_run))
