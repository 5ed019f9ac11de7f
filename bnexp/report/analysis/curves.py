"""Training curves of a group of runs at their logged epochs, and the time to a target accuracy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bnexp.report.analysis.statistical_tests import mean_sd
from bnexp.report.read.runs import Run

MIN_INTERVAL_RUNS = 5  # below this the band goes from the least to the greatest run


@dataclass(frozen=True)
class TimeToTarget:
    """How many runs of a group reached an accuracy, and when the median run did; inf where most did not."""

    split: str
    accuracy: float
    count: int
    runs: int
    epochs: float
    seconds: float  # of training, without evaluation
    seconds_per_run: tuple[float, ...]  # inf for a run that never reached it


@dataclass(frozen=True)
class Band:
    """The mean over a group's runs at each epoch that all of them logged, and the band around it."""

    epochs: tuple[float, ...]
    seconds: tuple[float, ...]  # of training to the end of each epoch, mean over the runs; empty if not known
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: int  # runs with a curve
    kind: str  # "95 % t interval", "least to greatest", or "" for a single run


def watched_split(runs: Sequence[Run]) -> str:
    """``val`` where every run logged its validation accuracy, else ``test``."""
    logged = all(any(map(math.isfinite, run.curves.get("val/accuracy", ()))) for run in runs if run.curves)
    return "val" if logged and any(run.curves for run in runs) else "test"


def default_target(groups: Sequence[Sequence[Run]], key: str) -> float | None:
    """What the worst group reaches: the least, over groups, of the median run's best value; rounded down."""
    medians = []
    for runs in groups:
        best = [max(values) for run in runs if (values := _finite(run.curves.get(key, ())))]
        if best:
            medians.append(statistics.median(best))
    return math.floor(min(medians) * 1000) / 1000 if medians else None


def late_gain(runs: Sequence[Run], key: str) -> tuple[float, float]:
    """How much an accuracy still rises, in points an epoch over the last fifth of the epochs; and its noise.

    The rise is the mean over the runs. The noise is twice its standard error over the runs, or nan with
    fewer than three runs.
    """
    rises = []
    for run in runs:
        values = run.curves.get(key, ())
        epochs = max(1, len(values) // 5)
        if len(values) > epochs and math.isfinite(values[-1] - values[-1 - epochs]):
            rises.append(100 * (values[-1] - values[-1 - epochs]) / epochs)
    mean, sd = mean_sd(rises)
    return mean, 2 * sd / math.sqrt(len(rises)) if len(rises) > 2 else math.nan


def late_jumps(runs: Sequence[Run], key: str) -> float:
    """By how many points an accuracy jumps about from epoch to epoch, within runs over their last third.

    Only drops count, so a curve that still rises has none: sqrt(mean of min(step, 0)^2) over the steps of all
    runs. For epochs with independent noise around a level this is the noise's standard deviation. nan where
    no run logged three epochs in its last third.
    """
    squares: list[float] = []
    for run in runs:
        values = _finite(run.curves.get(key, ()))
        last = values[-max(3, math.ceil(len(values) / 3) + 1) :]  # and the epoch before: a step leads to each
        if len(last) >= 3:
            squares += [min(100 * (b - a), 0.0) ** 2 for a, b in pairwise(last)]
    return math.sqrt(statistics.fmean(squares)) if squares else math.nan


def time_to_target(runs: Sequence[Run], split: str, target: float) -> TimeToTarget:
    """Time to the first logged accuracy of at least ``target``; inf for a run without one."""
    key, epochs, seconds = f"{split}/accuracy", [], []
    for run in runs:
        values = run.curves.get(key, ())
        first = next((i for i, value in enumerate(values) if value >= target), None)
        epochs.append(math.inf if first is None else run.curves["epoch"][first])
        seconds.append(math.inf if first is None else run.train_s[first] if run.train_s else math.nan)
    count = sum(map(math.isfinite, epochs))
    median_epoch = statistics.median(epochs) if epochs else math.nan
    seconds_known = seconds and not any(map(math.isnan, seconds))
    median_second = statistics.median(seconds) if seconds_known else math.nan
    return TimeToTarget(split, target, count, len(runs), median_epoch, median_second, tuple(seconds))


def band(runs: Sequence[Run], key: str, scale: float = 1.0) -> Band:
    """Mean and band over runs, epoch by epoch, up to the epoch before a run ends or is no longer finite.

    Nothing is interpolated: the seconds of an epoch are the mean of the runs' seconds at its end.
    """
    logged = [run for run in runs if _finite(run.curves.get(key, ()))]
    columns: list[list[float]] = []
    for column in zip(*(run.curves[key] for run in logged), strict=False):
        if not all(map(math.isfinite, column)):
            break
        columns.append([scale * value for value in column])
    n, length = len(logged), len(columns)
    mean = [statistics.fmean(column) for column in columns]
    low, high = [min(column) for column in columns], [max(column) for column in columns]
    if n >= MIN_INTERVAL_RUNS:
        from scipy.special import stdtrit

        half = [float(stdtrit(n - 1, 0.975)) * mean_sd(column)[1] / math.sqrt(n) for column in columns]
        low = [m - h for m, h in zip(mean, half, strict=True)]
        high = [m + h for m, h in zip(mean, half, strict=True)]
    kind = "95 % t interval" if n >= MIN_INTERVAL_RUNS else "least to greatest" if n > 1 else ""
    seconds = [statistics.fmean(column) for column in zip(*(run.train_s for run in logged), strict=False)]
    epochs = logged[0].curves["epoch"] if logged else ()
    return Band(
        epochs=tuple(epochs[:length]),
        seconds=tuple(seconds[:length]),
        mean=tuple(mean),
        low=tuple(low),
        high=tuple(high),
        n=n,
        kind=kind,
    )


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]
