"""What differences between groups of runs can carry: means, spread, paired intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Paired:
    """A mean difference of twins and its 95 % interval by the paired t test; nan below two pairs."""

    n: int
    mean: float
    low: float
    high: float
    p: float


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); the deviation of one value is nan."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def paired(ours: Mapping[object, float], theirs: Mapping[object, float]) -> Paired:
    """``ours - theirs`` over the keys (seed, fold) that both have."""
    shared = [key for key in ours if key in theirs]
    differences = [ours[key] - theirs[key] for key in shared]
    n = len(differences)
    if n == 0:
        return Paired(0, math.nan, math.nan, math.nan, math.nan)
    mean = statistics.fmean(differences)
    if n == 1 or len(set(differences)) == 1:  # no spread, no test
        return Paired(n, mean, math.nan, math.nan, math.nan)
    from scipy.stats import ttest_1samp  # 0.7 s to import

    test = ttest_1samp(differences, 0.0)
    interval = test.confidence_interval(0.95)
    return Paired(n, mean, float(interval.low), float(interval.high), float(test.pvalue))
