"""One group against the baseline of its block: the difference, its test, the outcome that may be stated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bnexp.report.analysis.group_summary import GroupSummary, Metric
from bnexp.report.analysis.sample_size import ENOUGH_SEEDS, SampleSizePlan, plan_sample_size
from bnexp.report.analysis.statistical_tests import (
    ALPHA,
    Difference,
    chance_sd,
    correlation,
    paired_t_test,
    sign_flip_p,
    welch_t_test,
)
from bnexp.report.read.runs import PairKey, Run

DECIDED = ("better", "worse", "small", "equivalent", "identical", "constant")
Z95 = 1.96


@dataclass(frozen=True)
class GroupComparison:
    """A group against the baseline of its block: candidate - baseline, in the metric's unit."""

    by: str
    candidate: GroupSummary
    baseline: GroupSummary
    difference: Difference
    p_adjusted: float
    delta: float | None  # the smallest difference of interest
    confounders: tuple[str, ...]

    @property
    def metric(self) -> Metric:
        return self.candidate.metric

    @property
    def is_paired(self) -> bool:
        return are_paired(self.candidate, self.baseline)

    @cached_property
    def noun(self) -> str:
        """What n counts: seeds, folds, or seed-fold pairs."""
        return repetition_noun((*self.candidate.group.runs, *self.baseline.group.runs))

    @property
    def further_noun(self) -> str:
        """What more runs are called: the folds of a seed are fixed, so more folds need more seeds."""
        return "seed-fold pairs" if self.noun == "folds" else self.noun

    @cached_property
    def pairs(self) -> tuple[PairKey, ...]:
        """Seed and fold of the twins: both groups have a usable run."""
        return tuple(key for key in self.candidate.values if key in self.baseline.values)

    @property
    def incomplete_pairs(self) -> tuple[PairKey, ...]:
        """Seed and fold of the attempted runs that have no usable twin."""
        attempted = self.candidate.attempted | self.baseline.attempted
        return tuple(sorted(attempted - set(self.pairs), key=str)) if self.is_paired else ()

    @cached_property
    def differences(self) -> tuple[float, ...]:
        return tuple(self.candidate.values[key] - self.baseline.values[key] for key in self.pairs)

    @cached_property
    def single_run_noise(self) -> float:
        """95 % of the differences of two single runs of one configuration lie within ± this, in points.

        nan where the metric is no accuracy on a known number of images that were not trained on.
        """
        split = self.metric.key.partition("/")[0]
        images = self.candidate.group.runs[0].images.get(split)
        if not self.metric.is_accuracy or split.startswith("train") or not images:
            return math.nan
        if not self.candidate.values or not self.baseline.values:
            return math.nan
        errors = [1 - summary.mean / 100 for summary in (self.candidate, self.baseline)]
        return Z95 * 100 * chance_sd(errors[0], errors[1], images)

    @property
    def noise_floor(self) -> float:
        """The mean difference of n pairs must exceed this as well as pass its test: 1.96 f / sqrt(n)."""
        return self.single_run_noise / math.sqrt(max(self.difference.n, 1))

    @property
    def wins(self) -> int:
        """Pairs in which the candidate is the better one."""
        return sum(self.metric.sign * difference > 0 for difference in self.differences)

    @property
    def is_provisional(self) -> bool:
        return self.difference.n < ENOUGH_SEEDS

    @cached_property
    def sign_flip_p(self) -> float:
        return sign_flip_p(self.differences)

    @property
    def correlation(self) -> float:
        """Pearson's r of the twins."""
        candidate = [self.candidate.values[key] for key in self.pairs]
        return correlation(candidate, [self.baseline.values[key] for key in self.pairs])

    @property
    def at_best_val(self) -> Difference:
        """The difference at the epoch with the best validation value."""
        return paired_t_test(self.candidate.values_at_best_val, self.baseline.values_at_best_val)

    @cached_property
    def outcome(self) -> str:
        return judge(self.difference, self.p_adjusted, self.noise_floor, self.delta, self.metric.sign)

    @cached_property
    def plan(self) -> SampleSizePlan | None:
        """The seeds that would decide; None where none are needed, and where no number of seeds can.

        The latter includes groups of which most runs diverge: more seeds do not decide about accuracy.
        """
        if max(self.candidate.divergence_rate, self.baseline.divergence_rate) > 0.5:
            return None
        return plan_sample_size(self.difference, self.delta, self.outcome in DECIDED)


def judge(difference: Difference, p: float, noise_floor: float, delta: float | None, sign: int = 1) -> str:
    """The outcome in one word; ``sign``: +1 where a higher metric is better.

    - "nothing", "single", "few": n is 0, 1 or 2, so there is no verdict
    - "identical", "constant": no spread, so no test; the difference is 0, or not
    - "better", "worse": the adjusted ``p`` is at most .05, and the difference exceeds ``noise_floor``, which
      chance alone gives on a test set of this size
    - "small": the same, and the 90 % interval lies within ± ``delta`` (two one-sided tests)
    - "equivalent": only the 90 % interval lies within ± ``delta``
    - "undecided": all else
    """
    if difference.n < 3:
        return ("nothing", "single", "few")[difference.n]
    if math.isnan(difference.p):
        return "identical" if abs(difference.mean) < 1e-9 else "constant"
    is_within_delta = delta is not None and -delta < difference.low90 and difference.high90 < delta
    if p <= ALPHA and not abs(difference.mean) <= noise_floor:
        return "small" if is_within_delta else "better" if sign * difference.mean > 0 else "worse"
    return "equivalent" if is_within_delta else "undecided"


def are_paired(candidate: GroupSummary, baseline: GroupSummary) -> bool:
    """Pairing follows the design: both groups attempted some seed and fold, finished or not."""
    return bool(candidate.attempted & baseline.attempted)


def measure_difference(candidate: GroupSummary, baseline: GroupSummary) -> Difference:
    """Paired t test, or Welch's where no seed and fold is shared."""
    if are_paired(candidate, baseline):
        return paired_t_test(candidate.values, baseline.values)
    return welch_t_test([*candidate.values.values()], [*baseline.values.values()])


def repetition_noun(runs: Sequence[Run]) -> str:
    """What the runs of a group are: seeds, folds of one seed, or seed-fold pairs."""
    if all(run.fold is None for run in runs):
        return "seeds"
    return "folds" if len({run.seed for run in runs}) == 1 else "seed-fold pairs"
