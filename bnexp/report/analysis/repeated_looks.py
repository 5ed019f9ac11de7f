"""Tests for studies that look at their results more than once.

``PlannedLooks`` is for numbers of seeds that were fixed beforehand (``seed=auto``): the group-sequential t
test with repeated confidence intervals (Jennison and Turnbull 2000, chapter 9). ``AnyLooks`` is for seeds
that were added after a look that nobody planned: the anytime-valid t test of Wang and Ramdas (2025). Both
hold whenever a study stops. ``SingleLook`` is the plain t test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

from bnexp.report.analysis.statistical_tests import (
    ALPHA,
    NAN,
    Difference,
    mcnemar_p,
    mean_sd,
    paired_t_test,
    upper_sd,
)

PairValues = Mapping[Any, float]  # by (seed, fold)
DEFAULT_LOOKS = (5, 10, 20, 40)
MIXTURE_G = 1.0  # prior variance of the effect, in standard deviations
PATHS = 400_000  # simulated studies; a probability of .05 has a standard error of .0003
PATHS_AT_ONCE = 20_000
GRID = tuple(10 ** (tenth / 10) for tenth in range(-30, 1))  # values of p, from .001 to 1
# P(smallest p of all looks <= x) at each x of GRID for DEFAULT_LOOKS, from 20 million simulated studies.
DEFAULT_PROBABILITIES = (
    0.0037353, 0.0046647, 0.0058437, 0.00731795, 0.0091681, 0.0114272, 0.0142656, 0.0177526, 0.0221083,
    0.0274948, 0.0341004, 0.0422835, 0.0523803, 0.064796, 0.0800155, 0.0987114, 0.121492, 0.149171, 0.182708,
    0.223176, 0.271834, 0.329764, 0.398247, 0.478108, 0.569431, 0.67092, 0.777519, 0.879152, 0.957576,
    0.995267, 1.0,
)  # fmt: skip


class PairedTest(Protocol):
    """How differences between twins are tested."""

    stability_method: str
    is_planned: bool  # how many seeds each group gets was planned: one with fewer seeds was decided earlier

    def difference(self, candidate: PairValues, baseline: PairValues, delta: float | None) -> Difference:
        """``candidate - baseline`` with intervals and p; ``delta``: the smallest difference of interest."""
        ...

    def stability_p(self, only_candidate: Sequence[Any], only_baseline: Sequence[Any]) -> float:
        """p of "both groups lose runs at one rate", from the pairs that lost only their one or other run."""
        ...


class SingleLook:
    """The plain paired t test: the number of seeds was fixed, and nobody looked before."""

    stability_method = "McNemar's test, mid-p"
    is_planned = False

    def difference(self, candidate: PairValues, baseline: PairValues, delta: float | None) -> Difference:
        return with_equivalence(paired_t_test(candidate, baseline), delta)

    def stability_p(self, only_candidate: Sequence[Any], only_baseline: Sequence[Any]) -> float:
        return mcnemar_p(len(only_candidate), len(only_baseline))


@dataclass(frozen=True)
class PlannedLooks:
    """The group-sequential t test of seeds 0, 1, ... with looks after ``looks`` seeds each.

    ``reached`` is the number of seeds at the last look that took place.
    """

    looks: tuple[int, ...]
    reached: int
    stability_method = "e-value of the discordant twins"
    is_planned = True

    def difference(self, candidate: PairValues, baseline: PairValues, delta: float | None) -> Difference:
        """Its p is F(smallest p of the looks so far), its interval mean ± t(n - 1, 1 - p*/2) s / sqrt(n).

        F(x) is the probability, without a difference, that the smallest p of all looks is x or less, and
        p* = F^-1(.05). The interval holds at all looks at once, whenever the study stops. The p of
        equivalence is F(twice the smallest one-sided p) / 2: at most .05 where a 90 % interval lies within
        ± delta.
        """
        at_looks = self._differences_at_looks(candidate, baseline)
        last = at_looks[-1] if at_looks else paired_t_test(candidate, baseline)
        if math.isnan(last.p):
            return replace(last, method="group-sequential paired t")
        distribution = smallest_p_distribution(self.looks)
        tested = [d for d in at_looks if not math.isnan(d.p)]
        p_equivalent = NAN
        if delta is not None:
            smallest = min(1.0, *(2 * one_sided_p(d, delta) for d in tested))
            p_equivalent = distribution.probability(smallest) / 2
        return _with_intervals(
            last,
            self._half_widths(last.n, last.sd),
            method="group-sequential paired t",
            p=distribution.probability(min(d.p for d in tested)),
            p_equivalent=p_equivalent,
        )

    def stability_p(self, only_candidate: Sequence[Any], only_baseline: Sequence[Any]) -> float:
        return stability_p_at_any_look(only_candidate, only_baseline)

    def _differences_at_looks(self, candidate: PairValues, baseline: PairValues) -> list[Difference]:
        """The plain t test at each look that brought new pairs; a group that was decided gets none."""
        differences: list[Difference] = []
        for look in self.looks:
            if look > self.reached:
                break
            pairs = {key: value for key, value in candidate.items() if key[0] < look}
            difference = paired_t_test(pairs, baseline)
            if difference.n > (differences[-1].n if differences else 1):
                differences.append(difference)
        return differences

    @property
    def last_seeds(self) -> int:
        return self.looks[-1]

    def is_futile(self, difference: Difference, delta: float | None) -> bool:
        """Whether the last look can hardly decide anything: then more seeds are wasted. Costs no alpha.

        With the upper 80 % limit of s, the half-width at the last look exceeds ``delta``, and also what the
        mean difference can still become (1.96 standard deviations of what is to come).
        """
        if difference.n < 2 or math.isnan(difference.df):
            return False
        last, sd = self.last_seeds, upper_sd(difference.sd, difference.df)
        half95, half90 = self.half_widths_at_last_look(sd)
        reach = abs(difference.mean) + 1.96 * sd * math.sqrt(max(0.0, 1 / difference.n - 1 / last))
        return half95 > reach and not half90 < (delta or 0)

    def half_widths_at_last_look(self, sd: float) -> tuple[float, float]:
        """Half of the 95 % and of the 90 % interval at the last look."""
        return self._half_widths(self.last_seeds, sd)

    def _half_widths(self, n: int, sd: float) -> tuple[float, float]:
        """Half of the 95 % and of the 90 % interval of n pairs: t(n - 1, 1 - p*/2) sd / sqrt(n)."""
        distribution = smallest_p_distribution(self.looks)
        half95, half90 = (
            t_quantile(n - 1, 1 - distribution.quantile(alpha) / 2) * sd / math.sqrt(n)
            for alpha in (ALPHA, 2 * ALPHA)
        )
        return half95, half90


class AnyLooks:
    """The anytime-valid t test: p and interval hold at every number of seeds at once (Wang and Ramdas 2025).

    e_n is the ratio of two probabilities of the differences: with a normal prior of variance g for the mean
    in standard deviations, and without a difference.

        log e_n = -ln(1 + n g) / 2 + (n / 2) [ln(1 + t²/v) - ln(1 + t²/(v (1 + n g)))],  v = n - 1

    p = min(1, 1 / largest e_n so far), in the order of the seeds.
    """

    stability_method = "e-value of the discordant twins"
    is_planned = False

    def difference(self, candidate: PairValues, baseline: PairValues, delta: float | None) -> Difference:
        plain = paired_t_test(candidate, baseline)
        if math.isnan(plain.p):
            return replace(plain, method="anytime-valid paired t")
        half95, half90 = (anytime_half_width(plain.n, plain.sd, alpha) for alpha in (ALPHA, 2 * ALPHA))
        differences = _differences(candidate, baseline)
        return _with_intervals(
            plain,
            (half95, half90),
            method="anytime-valid paired t",
            p=anytime_p(differences),
            p_equivalent=anytime_equivalence_p(differences, delta),
        )

    def stability_p(self, only_candidate: Sequence[Any], only_baseline: Sequence[Any]) -> float:
        return stability_p_at_any_look(only_candidate, only_baseline)


@dataclass(frozen=True)
class SmallestP:
    """The distribution of the smallest p of all looks, where there is no difference."""

    looks: int
    probabilities: tuple[float, ...]  # at each x of GRID

    def probability(self, x: float) -> float:
        """F(x). Below the table it is the bound looks * x, which is a little larger."""
        if x < GRID[0]:
            return min(self.looks * x, self.probabilities[0])
        return math.exp(_interpolate(math.log(x), GRID, self.probabilities))

    def quantile(self, probability: float) -> float:
        """The x with F(x) = ``probability``."""
        return math.exp(_interpolate(math.log(probability), self.probabilities, GRID))


def _interpolate(log_x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    import numpy as np

    return float(np.interp(log_x, np.log(xs), np.log(ys)))


@cache
def smallest_p_distribution(looks: tuple[int, ...]) -> SmallestP:
    """F for these looks. It depends on nothing else. Simulated, except for DEFAULT_LOOKS."""
    if looks == DEFAULT_LOOKS:
        return SmallestP(len(looks), DEFAULT_PROBABILITIES)
    return SmallestP(len(looks), simulate_smallest_p(looks, PATHS))


def simulate_smallest_p(looks: Sequence[int], paths: int, seed: int = 0) -> tuple[float, ...]:
    """P(smallest p of the looks <= x) at each x of GRID, from simulated studies without a difference."""
    import numpy as np
    from scipy.special import stdtr

    rng, grid = np.random.default_rng(seed), np.array(GRID)
    counts = np.zeros(len(grid))
    for _ in range(paths // PATHS_AT_ONCE):
        values = rng.standard_normal((PATHS_AT_ONCE, looks[-1]))
        sums, squares = values.cumsum(1), (values**2).cumsum(1)
        smallest = np.ones(PATHS_AT_ONCE)
        for n in looks:
            mean = sums[:, n - 1] / n
            variance = (squares[:, n - 1] - n * mean**2) / (n - 1)
            smallest = np.minimum(smallest, 2 * stdtr(n - 1, -np.abs(mean) * np.sqrt(n / variance)))
        counts += (smallest[:, None] <= grid).sum(0)
    shares = counts / (paths // PATHS_AT_ONCE * PATHS_AT_ONCE)
    return tuple(float(share) for share in np.maximum(shares, 1e-9))


def anytime_log_e(t: float, n: int, g: float = MIXTURE_G) -> float:
    """log e_n of ``AnyLooks`` for a t statistic of n values."""
    v, widened = n - 1, 1 + n * g
    return -math.log(widened) / 2 + n / 2 * (math.log1p(t * t / v) - math.log1p(t * t / (v * widened)))


def anytime_p(differences: Sequence[float]) -> float:
    """min(1, 1 / largest e_n), n = 2, 3, ... in the given order."""
    largest = 0.0
    for n in range(2, len(differences) + 1):
        mean, sd = mean_sd(differences[:n])
        if sd > 1e-9 * max(1.0, abs(mean)):
            largest = max(largest, anytime_log_e(math.sqrt(n) * mean / sd, n))
    return math.exp(-largest)


def anytime_equivalence_p(differences: Sequence[float], delta: float | None) -> float:
    """p of "the true difference is ``delta`` or more": half of the two-sided p at ± delta."""
    if delta is None:
        return NAN
    if abs(mean_sd(differences)[0]) >= delta:
        return 1.0
    return max(anytime_p([difference - bound for difference in differences]) for bound in (-delta, delta)) / 2


def anytime_half_width(n: int, sd: float, alpha: float, g: float = MIXTURE_G) -> float:
    """sd sqrt(W / n) with A = ((1 + n g) / alpha^2)^(1/n), W = (n - 1) (A - 1) / (1 - A / (1 + n g)).

    inf where A >= 1 + n g: so few values exclude nothing.
    """
    widened = 1 + n * g
    a = (widened / alpha**2) ** (1 / n)
    if a >= widened:
        return math.inf
    return sd * math.sqrt((n - 1) * (a - 1) / (1 - a / widened) / n)


def stability_p_at_any_look(only_candidate: Sequence[Any], only_baseline: Sequence[Any]) -> float:
    """1 / the largest e so far of the discordant twins, in the order of the seeds; valid at every look.

    e = 2^(b + c) B(b + 1/2, c + 1/2) / pi for b and c twins that lost only the first and only the second run:
    the ratio of their probability under a Jeffreys prior to that of a fair coin.
    """
    losses = [(_order(key), True) for key in only_candidate] + [(_order(key), False) for key in only_baseline]
    largest, b, c = 0.0, 0, 0
    for _, is_candidate in sorted(losses):
        b, c = b + is_candidate, c + (not is_candidate)
        log_beta = math.lgamma(b + 0.5) + math.lgamma(c + 0.5) - math.lgamma(b + c + 1)
        largest = max(largest, (b + c) * math.log(2) + log_beta - math.log(math.pi))
    return math.exp(-largest)


def _with_intervals(plain: Difference, half_widths: tuple[float, float], **changes: Any) -> Difference:
    """A plain t test with other intervals, 95 % and 90 %, and other ``changes``."""
    half95, half90 = half_widths
    return replace(
        plain,
        low=plain.mean - half95,
        high=plain.mean + half95,
        low90=plain.mean - half90,
        high90=plain.mean + half90,
        **changes,
    )


def with_equivalence(plain: Difference, delta: float | None) -> Difference:
    """A plain t test with the p of its two one-sided tests of "the true difference is ``delta`` or more"."""
    return plain if delta is None else replace(plain, p_equivalent=one_sided_p(plain, delta))


def one_sided_p(plain: Difference, delta: float) -> float:
    """The larger p of the two one-sided tests; nan where nothing was tested."""
    if math.isnan(plain.p):
        return NAN
    from scipy.special import stdtr

    error = (plain.high - plain.mean) / t_quantile(plain.df, 1 - ALPHA / 2)
    return max(float(stdtr(plain.df, (sign * plain.mean - delta) / error)) for sign in (1, -1))


def t_quantile(df: float, probability: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def _differences(candidate: PairValues, baseline: PairValues) -> list[float]:
    """The differences of the pairs in the order of seed and fold."""
    keys = sorted((key for key in candidate if key in baseline), key=_order)
    differences = [candidate[key] - baseline[key] for key in keys]
    return [difference for difference in differences if math.isfinite(difference)]


def _order(key: Any) -> tuple[int, int]:
    seed, fold = key
    return seed, -1 if fold is None else fold
