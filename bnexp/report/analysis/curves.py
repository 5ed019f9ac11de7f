"""Curves of a group of runs on their logged epochs, and the time to a target accuracy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bnexp.report.analysis.statistical_tests import mean_sd
from bnexp.report.read.runs import Run

BAND_FROM = 5  # seeds from which the band is a 95 % t interval of the mean; below, least to greatest


@dataclass(frozen=True)
class TimeToTarget:
    """How many of a group's runs reached an accuracy; the median epoch and second, inf if most did not."""

    split: str
    accuracy: float
    count: int
    runs: int
    epochs: float
    seconds: float  # of training, evaluation left out
    seconds_per_run: tuple[float, ...]  # inf for a run that never reached it


@dataclass(frozen=True)
class Band:
    """The mean over a group's runs where all of them have a value, and the band around it."""

    epochs: tuple[float, ...]
    seconds: tuple[float, ...]  # of training up to each epoch, the mean over the runs; empty where not known
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: int  # runs with a curve
    kind: str  # "95 % t interval", "least to greatest" or "" for a single run


def watched_split(runs: Sequence[Run]) -> str:
    """The split whose accuracy every run logged each epoch: val, or test where nothing was held out."""
    logged = all(any(map(math.isfinite, run.curves.get("val/accuracy", ()))) for run in runs if run.curves)
    return "val" if logged and any(run.curves for run in runs) else "test"


def default_target(groups: Sequence[Sequence[Run]], key: str) -> float | None:
    """What the worst group reaches: the least, over groups, of the median run's best value; rounded down."""
    bests = []
    for runs in groups:
        tops = [max(found) for run in runs if (found := _finite(run.curves.get(key, ())))]
        if tops:
            bests.append(statistics.median(tops))
    return math.floor(min(bests) * 1000) / 1000 if bests else None


def time_to_target(runs: Sequence[Run], split: str, target: float) -> TimeToTarget:
    """Time to the first logged accuracy of at least ``target``; a run without one counts as never."""
    key, epochs, seconds = f"{split}/accuracy", [], []
    for run in runs:
        values = run.curves.get(key, ())
        first = next((i for i, value in enumerate(values) if value >= target), None)
        epochs.append(math.inf if first is None else run.curves["epoch"][first])
        seconds.append(math.inf if first is None else run.train_s[first] if run.train_s else math.nan)
    count = sum(map(math.isfinite, epochs))
    middle = statistics.median(epochs) if epochs else math.nan
    late = math.nan if any(map(math.isnan, seconds)) or not seconds else statistics.median(seconds)
    return TimeToTarget(split, target, count, len(runs), middle, late, tuple(seconds))


def band(runs: Sequence[Run], key: str, scale: float = 1.0) -> Band:
    """Mean and band over runs, epoch by epoch; they stop where the first run stops or is no longer finite.

    No x is made up between epochs: an epoch's second is the mean of the runs' seconds at its end.
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
    if n >= BAND_FROM:
        from scipy.special import stdtrit

        half = [float(stdtrit(n - 1, 0.975)) * mean_sd(column)[1] / math.sqrt(n) for column in columns]
        low = [m - h for m, h in zip(mean, half, strict=True)]
        high = [m + h for m, h in zip(mean, half, strict=True)]
    kind = "95 % t interval" if n >= BAND_FROM else "least to greatest" if n > 1 else ""
    seconds = [statistics.fmean(column) for column in zip(*(run.train_s for run in logged), strict=False)]
    epochs = logged[0].curves["epoch"] if logged else ()
    return Band(
        tuple(epochs[:length]), tuple(seconds[:length]), tuple(mean), tuple(low), tuple(high), n, kind
    )  # fmt: skip


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]
