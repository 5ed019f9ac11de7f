"""Pictures of tuning: accuracy against the tuned key, and what to expect from a budget of trials."""

from __future__ import annotations

from typing import Any

from bnexp.report.analysis.settings import short_key
from bnexp.report.analysis.tuning import expected_best
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.plots.style import (
    MAX_GROUPS,
    Picture,
    crop_early_rise,
    draw_legend,
    group_style,
    legend_height,
    make_figure,
    shorten,
)


def draw_tuning(verdict: Verdict) -> Picture | None:
    """Every trial of every group against each tuned key; the chosen values are marked."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    tuning = verdict.tuning[:MAX_GROUPS]
    if not tuning:
        return None
    intervals = tuning[0][1].intervals
    labels = [shorten(summary.group.value or "all") for summary, _ in tuning]
    figure, panels = make_figure(3.0, 1, len(intervals), top=legend_height(labels), gap=(0.7, 0.2))
    for i, (axes, interval) in enumerate(zip(panels, intervals, strict=True)):
        for (summary, result), label in zip(tuning, labels, strict=True):
            style = group_style(summary, verdict)
            trials = sorted(result.trials, key=lambda trial: trial.values[i])
            xs, means = [t.values[i] for t in trials], [t.score for t in trials]
            if len(intervals) == 1:  # with several keys a line would join unrelated trials
                axes.plot(xs, means, color=style.colour, linestyle=style.dash, linewidth=1, alpha=0.6)
            seeds = [(t.values[i], score) for t in trials for score in t.scores]
            axes.plot(*zip(*seeds, strict=True), markersize=2.5, alpha=0.5, **style.marker_options)
            axes.plot(xs, means, markersize=4.5, label=label, **style.marker_options)
            best = result.best
            axes.axvline(best.values[i], color=style.colour, linestyle=style.dash, linewidth=1, alpha=0.8)
        if interval.is_log:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(interval.name)
        crop_early_rise(axes, [score for _, result in tuning for t in result.trials for score in t.scores])
    panels[0].set_ylabel("validation accuracy (%)")
    draw_legend(figure, panels[0])
    return Picture(
        "tuning",
        f"Which {' and '.join(short_key(interval.name) for interval in intervals)} is best for each group?",
        "validation accuracy of every trial against the tuned key",
        "Large marks: the mean of a trial's seeds; small marks: single runs (a lost run counts as 0). "
        "Vertical lines: the chosen value, in the middle of those within one standard error of the best.",
        figure,
    )


def draw_budget(verdict: Verdict) -> Picture | None:
    """The expected best validation accuracy against the number of trials: who is ahead with little tuning."""
    tuning = verdict.tuning[:MAX_GROUPS]
    if not tuning:
        return None
    labels = [shorten(summary.group.value or "all") for summary, _ in tuning]
    figure, (axes,) = make_figure(2.6, top=legend_height(labels))
    everything: list[float] = []
    for (summary, result), label in zip(tuning, labels, strict=True):
        style = group_style(summary, verdict)
        values = expected_best([trial.score for trial in result.trials])
        everything += values
        axes.plot(
            range(1, len(values) + 1), values, color=style.colour, linestyle=style.dash, marker=style.marker,
            markersize=3.5, label=label,
        )  # fmt: skip
    _show_whole_numbers(axes)
    crop_early_rise(axes, everything)
    axes.set_xlabel("number of trials")
    axes.set_ylabel("expected best, validation (%)")
    draw_legend(figure, axes)
    return Picture(
        "budget",
        "Who wins with little tuning?",
        "expected best validation accuracy against the number of trials",
        "The mean best score of so many trials, drawn at random without replacement (Tang et al. 2020).",
        figure,
    )


def _show_whole_numbers(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
