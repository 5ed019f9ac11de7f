"""What a difference between groups of runs can carry. One value a run: epochs, images are no replicates.

Differences of twins are tested by the paired t test: over 3 to 10 seeds it errs as often as it says (0.05),
where percentile bootstrap intervals err in 0.25 to 0.10 of cases. Quantiles come from ``scipy.special``,
which loads in half the time of ``scipy.stats``; the tests hold every number against ``scipy.stats``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ALPHA = 0.05
NAN = math.nan
ENUMERATED = 20  # 2^20 sign patterns take 8 MB; above, a fixed sample of them
SAMPLED = 20_000  # by which a p of .05 is known to .003


@dataclass(frozen=True)
class Difference:
    """A mean difference, its 95 % and 90 % intervals, its two-sided p; nan without spread or below n = 2."""

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

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); nan where there are too few values."""
    if not values:
        return NAN, NAN
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else NAN


def paired(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> Difference:
    """``ours - theirs`` over the twins that both have: mean ± t(n - 1) s / sqrt(n) (Student 1908).

    Twins with a value that is not finite are left out.
    """
    pairs = [(ours[twin], theirs[twin]) for twin in ours if twin in theirs]
    differences = [a - b for a, b in pairs if math.isfinite(a - b)]
    n = len(differences)
    mean, sd = mean_sd(differences)
    return _difference("paired t", n, mean, sd, sd / math.sqrt(n) if n else NAN, n - 1)


def welch(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """``ours - theirs`` where no twins are shared (Welch 1947); n is the smaller group's, sd the pooled one.

    Degrees of freedom (Satterthwaite 1946): (a + b)^2 / (a^2 / (n1 - 1) + b^2 / (n2 - 1)), a = s1^2 / n1.
    """
    first, second = ([x for x in values if math.isfinite(x)] for values in (ours, theirs))
    n = min(len(first), len(second))
    (mean1, sd1), (mean2, sd2) = mean_sd(first), mean_sd(second)
    if n < 2 or sd1 + sd2 == 0:
        return Difference("Welch", n, mean1 - mean2)
    a, b = sd1**2 / len(first), sd2**2 / len(second)
    df = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    return _difference("Welch", n, mean1 - mean2, math.hypot(sd1, sd2), math.sqrt(a + b), df)


def _difference(method: str, n: int, mean: float, sd: float, error: float, df: float) -> Difference:
    # Equal differences carry rounding noise of their own: below it there is no spread to test against.
    if n < 2 or not sd > 1e-9 * max(1.0, abs(mean)):
        return Difference(method, n, mean, sd)
    from scipy.special import stdtr, stdtrit

    wide, narrow = (float(stdtrit(df, q)) * error for q in (0.975, 0.95))
    p = 2 * float(stdtr(df, -abs(mean) / error))
    return Difference(
        method, n, mean, sd, df, mean - wide, mean + wide, mean - narrow, mean + narrow, p
    )  # fmt: skip


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p of the sign-flip test (Fisher 1935): the share of the 2^n patterns with as large a sum.

    Above 20 differences a fixed sample of 20,000 patterns stands for all, the data's own counted once.
    """
    import numpy as np

    values = np.asarray([d for d in differences if math.isfinite(d)])
    if not len(values):
        return NAN
    reached = abs(values.sum()) - 1e-9 * np.abs(values).sum()
    if len(values) > ENUMERATED:
        rng, count = np.random.default_rng(0), 0
        for _ in range(SAMPLED // 1000):  # so many at a time, however many seeds there are
            flipped = rng.integers(0, 2, (1000, len(values)), dtype=np.int8)
            count += int((np.abs(values.sum() - 2 * (flipped @ values)) >= reached).sum())
        return (count + 1) / (SAMPLED + 1)
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return float((np.abs(sums) >= reached).mean())


def sign_flip_needs(comparisons: int, alpha: float = ALPHA) -> int:
    """The fewest seeds with which the sign-flip test can fall to ``alpha`` after Holm: 2 m / 2^n <= alpha."""
    return math.ceil(math.log2(2 * max(comparisons, 1) / alpha))


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p values (Holm 1979): max over i <= k of (m - i) p_(i), at most 1.

    The family is all that was declared: a comparison whose p is nan counts in m and stays nan.
    """
    order = sorted((i for i, p in enumerate(ps) if not math.isnan(p)), key=lambda i: ps[i])
    adjusted, highest = [NAN] * len(ps), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = highest
    return adjusted


def chance_sd(error1: float, error2: float, images: int) -> float:
    """How far two runs of one configuration differ by chance: sqrt((err1 + err2) / (2 N)), as a share.

    Jordan (2023): over training seeds the test accuracy of one configuration varies by about err / (2 N).
    """
    return math.sqrt((error1 + error2) / (2 * images))


def wilson(k: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a rate (Wilson 1927): (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)."""
    if n == 0:
        return 0.0, 1.0
    z, rate = 1.959963984540054, k / n
    centre = rate + z * z / (2 * n)
    spread = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low, high = ((centre + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
    return (0.0 if k == 0 else low), (1.0 if k == n else high)


def seeds_for(half_width: float, sd: float, most: int = 10_000) -> int | None:
    """The least n whose 95 % interval t(n - 1) s / sqrt(n) is within ``half_width``; None above ``most``."""
    import numpy as np
    from scipy.special import stdtrit

    n = np.arange(2, most + 1)
    enough = stdtrit(n - 1, 0.975) * sd <= half_width * np.sqrt(n)
    return int(n[enough.argmax()]) if enough.any() else None


def upper_sd(sd: float, df: float) -> float:
    """What the deviation stays below with 80 % certainty, to plan with: s sqrt(df / chi2(0.2, df))."""
    from scipy.special import chdtri

    return sd * math.sqrt(df / float(chdtri(df, 0.8)))


def correlation(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Pearson's r of the twins; nan where one side has no spread or there are fewer than three."""
    if len(ours) < 3 or min(mean_sd(ours)[1], mean_sd(theirs)[1]) == 0:
        return NAN
    return statistics.correlation(ours, theirs)
