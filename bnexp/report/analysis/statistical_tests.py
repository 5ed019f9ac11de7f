"""Tests and intervals for differences between groups. One value a run: epochs and images are no replicates.

Twins are compared by the paired t test. Over 3 to 10 seeds it gives false alarms at the stated rate of .05;
percentile bootstrap intervals give .25 to .10. Quantiles come from ``scipy.special``, which loads in half the
time of ``scipy.stats``; the tests check every number against ``scipy.stats``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ALPHA = 0.05
NAN = math.nan
MAX_ENUMERATED = 20  # differences: 2^20 sign patterns take 8 MB
OUTLIER_ALPHA = 0.001  # a report has many groups
SAMPLED_PATTERNS = 20_000  # of more differences; gives a p of .05 to within .003


@dataclass(frozen=True)
class Difference:
    """A mean difference, candidate - baseline, with its 95 % and 90 % intervals and two-sided p.

    The intervals and p are nan below n = 2 and where the values have no spread. ``p_equivalent`` is the p of
    "the true difference is delta or more"; nan where no delta is known.

    ``sd`` is the standard deviation of a single difference. Sample sizes are planned with it.

    - paired: that of the paired differences
    - unpaired: that of one run of each group, sqrt(sd1^2 + sd2^2)

    ``standardised`` is the mean divided by a standard deviation (Cohen 1988, section 2.3). The two kinds are
    on different scales.

    - paired: by that of the paired differences
    - unpaired: by the pooled one, with equal weight for both variances, sqrt((sd1^2 + sd2^2) / 2)
    """

    method: str
    n: int
    mean: float
    sd: float = NAN
    df: float = NAN
    low: float = NAN
    high: float = NAN
    low90: float = NAN
    high90: float = NAN
    p: float = NAN
    p_equivalent: float = NAN
    standardised: float = NAN


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); nan where there are too few values."""
    if not values:
        return NAN, NAN
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else NAN


def paired_t_test(candidate: Mapping[Any, float], baseline: Mapping[Any, float]) -> Difference:
    """``candidate - baseline`` over the keys of both: mean ± t(n - 1) s / sqrt(n) (Student 1908).

    A pair with a value that is not finite is left out.
    """
    pairs = [(candidate[key], baseline[key]) for key in candidate if key in baseline]
    differences = [a - b for a, b in pairs if math.isfinite(a - b)]
    n = len(differences)
    mean, sd = mean_sd(differences)
    return _t_test("paired t", n, mean, sd, df=n - 1, error=sd / math.sqrt(n) if n else NAN, unit=sd)


def welch_t_test(candidate: Sequence[float], baseline: Sequence[float]) -> Difference:
    """``candidate - baseline`` of unpaired runs (Welch 1947); ``n`` is the size of the smaller group.

    Standard error sqrt(a + b) with a = sd1^2 / n1 and b = sd2^2 / n2. Degrees of freedom (Satterthwaite
    1946): (a + b)^2 / (a^2 / (n1 - 1) + b^2 / (n2 - 1)). ``sd`` and ``standardised`` as in ``Difference``.
    """
    first, second = ([x for x in values if math.isfinite(x)] for values in (candidate, baseline))
    n = min(len(first), len(second))
    (mean1, sd1), (mean2, sd2) = mean_sd(first), mean_sd(second)
    mean = mean1 - mean2
    if n < 2 or sd1 + sd2 == 0:
        return Difference("Welch", n, mean)
    a, b = sd1**2 / len(first), sd2**2 / len(second)
    df = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    pooled_sd = math.sqrt((sd1**2 + sd2**2) / 2)
    return _t_test("Welch", n, mean, math.hypot(sd1, sd2), df=df, error=math.sqrt(a + b), unit=pooled_sd)


def _t_test(
    method: str, n: int, mean: float, sd: float, *, df: float, error: float, unit: float
) -> Difference:
    """Intervals and p from the standard error of the mean; ``unit`` is the deviation to standardise it by."""
    # Equal differences still differ by rounding: a spread below this limit is none.
    if n < 2 or not sd > 1e-9 * max(1.0, abs(mean)):
        return Difference(method, n, mean, sd)
    from scipy.special import stdtr, stdtrit

    half95, half90 = (float(stdtrit(df, quantile)) * error for quantile in (0.975, 0.95))
    return Difference(
        method,
        n,
        mean,
        sd,
        df,
        low=mean - half95,
        high=mean + half95,
        low90=mean - half90,
        high90=mean + half90,
        p=2 * float(stdtr(df, -abs(mean) / error)),
        standardised=mean / unit,
    )


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p of the sign-flip test (Fisher 1935): the share of 2^n sign patterns with as large a sum.

    Above 20 differences a fixed sample of 20,000 patterns stands for all; the observed pattern counts as one
    more.
    """
    import numpy as np

    values = np.asarray([d for d in differences if math.isfinite(d)])
    if not len(values):
        return NAN
    threshold = abs(values.sum()) - 1e-9 * np.abs(values).sum()
    if len(values) > MAX_ENUMERATED:
        rng, count = np.random.default_rng(0), 0
        for _ in range(SAMPLED_PATTERNS // 1000):  # in parts: the memory does not grow with the sample
            is_flipped = rng.integers(0, 2, (1000, len(values)), dtype=np.int8)
            count += int((np.abs(values.sum() - 2 * (is_flipped @ values)) >= threshold).sum())
        return (count + 1) / (SAMPLED_PATTERNS + 1)
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return float((np.abs(sums) >= threshold).mean())


def sign_flip_min_n(comparisons: int, alpha: float = ALPHA) -> int:
    """The fewest pairs n with which the sign-flip p of m comparisons can reach alpha: 2 m / 2^n <= alpha."""
    return math.ceil(math.log2(2 * max(comparisons, 1) / alpha))


def holm_adjust(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values (Holm 1979): the maximum over i <= k of (m - i) p_(i), at most 1.

    A p of nan belongs to the family: it counts in m and stays nan.
    """
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted, highest = [NAN] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def chance_sd(error1: float, error2: float, images: float) -> float:
    """Standard deviation of the difference of two runs of one configuration: sqrt((err1 + err2) / (2 N)).

    As a share, on N ``images``. Jordan (2023): over training seeds the variance of one configuration's test
    accuracy is about err / (2 N).
    """
    return math.sqrt((error1 + error2) / (2 * images))


def wilson_interval(k: int, n: int) -> tuple[float, float]:
    """95 % interval of a rate k / n (Wilson 1927): (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)."""
    if n == 0:
        return 0.0, 1.0
    z, rate = 1.959963984540054, k / n
    centre = rate + z * z / (2 * n)
    spread = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low, high = ((centre + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
    return (0.0 if k == 0 else low), (1.0 if k == n else high)


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Two-sided mid-p of McNemar's test (1947) for pairs of which one run alone was lost.

    The counts are those of the pairs that lost only the first run, and only the second. Mid-p: half of the
    observed table's probability. Unlike the exact test it reaches .05 with 5 pairs, and it keeps the level
    (Fagerland, Lydersen and Laake 2013).
    """
    n, k = only_first + only_second, min(only_first, only_second)
    if only_first == only_second:
        return 1.0
    tail = sum(math.comb(n, i) for i in range(k)) + math.comb(n, k) / 2
    return min(1.0, 2 * tail / 2**n)


def fisher_p(lost1: int, runs1: int, lost2: int, runs2: int) -> float:
    """Two-sided p of Fisher's exact test (1934) for two rates of lost runs."""
    all_lost = lost1 + lost2
    total = math.comb(runs1 + runs2, all_lost)
    counts = range(max(0, all_lost - runs2), min(all_lost, runs1) + 1)
    tables = {k: math.comb(runs1, k) * math.comb(runs2, all_lost - k) / total for k in counts}
    limit = tables[lost1] * (1 + 1e-7)  # equal probabilities differ by rounding
    return min(1.0, sum(p for p in tables.values() if p <= limit))


def low_outlier(values: Sequence[float]) -> int | None:
    """The index of a value far below the others, by Grubbs's one-sided test (1950) at .001; None without one.

    Needs four values or more.
    """
    n = len(values)
    mean, sd = mean_sd(values)
    if n < 4 or not sd > 1e-9 * max(1.0, abs(mean)):
        return None
    from scipy.special import stdtrit

    t_squared = float(stdtrit(n - 2, 1 - OUTLIER_ALPHA / n)) ** 2
    limit = (n - 1) / math.sqrt(n) * math.sqrt(t_squared / (n - 2 + t_squared))
    lowest = min(range(n), key=lambda i: values[i])
    return lowest if (mean - values[lowest]) / sd > limit else None


def upper_sd(sd: float, df: float) -> float:
    """The upper 80 % confidence limit of a standard deviation: s sqrt(df / chi2(0.2, df))."""
    from scipy.special import chdtri

    return sd * math.sqrt(df / float(chdtri(df, 0.8)))


def seeds_to_decide(mean: float, sd: float, delta: float | None) -> float:
    """The seeds that probably decide about a difference ``mean`` with standard deviation ``sd``.

    7.85 sd^2 / mean^2 = (1.96 + 0.84)^2 sd^2 / mean^2 show a difference of this size with 80 % power. A
    difference inside of ± delta is shown to be small once the 90 % interval fits: (1.645 + 0.84)^2 sd^2 /
    (delta - |mean|)^2. The smaller number counts. inf where neither applies.
    """
    shown = 7.85 * sd**2 / mean**2 if mean else math.inf
    room = (delta or 0) - abs(mean)
    return min(shown, 6.18 * sd**2 / room**2 if room > 0 else math.inf)


def correlation(candidate: Sequence[float], baseline: Sequence[float]) -> float:
    """Pearson's r of paired values; nan below three pairs and where one side has no spread."""
    if len(candidate) < 3 or min(mean_sd(candidate)[1], mean_sd(baseline)[1]) == 0:
        return NAN
    return statistics.correlation(candidate, baseline)


def correlation_interval(r: float, n: int) -> tuple[float, float]:
    """95 % interval of a correlation of n pairs, tanh(atanh r ± 1.96 / sqrt(n - 3)) (Fisher 1921)."""
    if n < 4 or math.isnan(r) or abs(r) >= 1:
        return -1.0, 1.0
    half = 1.959963984540054 / math.sqrt(n - 3)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)
