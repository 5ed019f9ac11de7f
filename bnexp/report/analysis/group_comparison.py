"""One group against the baseline of its block: the difference, its tests, the outcome that may be stated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from bnexp.report.analysis.curves import late_gain, late_jumps
from bnexp.report.analysis.group_summary import BALANCED_METRIC, GroupSummary, Metric
from bnexp.report.analysis.repeated_looks import PairedTest, with_equivalence
from bnexp.report.analysis.sample_size import ENOUGH_SEEDS, SampleSizePlan, plan_sample_size
from bnexp.report.analysis.statistical_tests import (
    ALPHA,
    Difference,
    chance_sd,
    correlation,
    correlation_interval,
    fisher_p,
    low_outlier,
    sign_flip_p,
    welch_t_test,
)
from bnexp.report.read.runs import PairKey, Run
from bnexp.runs.confusion import effective_images

Outcome = Literal[
    "nothing", "single", "few", "identical", "constant", "better", "worse", "leaning", "small", "equivalent",
    "undecided",
]  # fmt: skip
DECIDED: tuple[Outcome, ...] = ("better", "worse", "small", "equivalent", "identical", "constant")
Z95 = 1.96
MIN_CORRELATED = 8  # pairs from which the correlation of twins is reported
ROBUST_SEEDS = 20  # from this many on, the t test tolerates skewed values
# How much of an epoch's jump about its trend should show between seeds: all of it at the final epoch, less in
# a mean of several epochs, little where validation avoids the bad ones. A spread between seeds that is
# smaller by JUMP_RATIO is luck: with 5 seeds and normal values that happens in 4 % of the groups.
JUMP_SHARES = {"final": 1.0, "mean": 0.58, "best": 0.25}
JUMP_RATIO = 2.5
MIN_GAIN = 1.0  # points an epoch that count as a gain where too few runs show its noise


@dataclass(frozen=True)
class StabilityTest:
    """Whether one group loses more runs than the other; p is nan where no run was lost."""

    method: str
    p: float


@dataclass(frozen=True)
class GroupComparison:
    """A group against the baseline of its block: candidate - baseline, in the metric's unit."""

    by: str
    candidate: GroupSummary
    baseline: GroupSummary
    is_paired: bool
    difference: Difference
    p_adjusted: float
    p_equivalent_adjusted: float
    stability: StabilityTest
    stability_p_adjusted: float
    final: Difference | None  # at the final epoch, where another one is compared
    final_p_adjusted: float
    final_p_equivalent_adjusted: float
    delta: float | None  # the smallest difference of interest
    confounders: tuple[str, ...]
    test: PairedTest

    @property
    def metric(self) -> Metric:
        return self.candidate.metric

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
        """Seed and fold of the twins: both groups have a usable run. Empty for unpaired groups."""
        if not self.is_paired:
            return ()
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
        split, run = self.metric.key.partition("/")[0], self.candidate.group.runs[0]
        images: float | None = run.images.get(split)
        if self.metric.key == BALANCED_METRIC:
            images = next((effective_images(confusion) for confusion in run.confusion.values()), None)
        if not self.metric.is_accuracy or split.startswith("train") or not images:
            return math.nan
        if not self.candidate.values or not self.baseline.values:
            return math.nan
        errors = [1 - summary.mean / 100 for summary in (self.candidate, self.baseline)]
        return Z95 * 100 * chance_sd(errors[0], errors[1], images)

    @property
    def noise_floor(self) -> float:
        """With fewer than 5 pairs the mean difference must exceed this as well as pass its test.

        Few runs can have a small spread by luck. The floor is 1.96 f sqrt(1 - r) / sqrt(n): it assumes runs
        that differ by the noise of their test set, f, and twins that correlate by r. nan from 5 pairs on.
        """
        n, r = self.difference.n, self.correlation
        if n >= ENOUGH_SEEDS:
            return math.nan
        shared = 0.0 if math.isnan(r) else r
        return self.single_run_noise * math.sqrt(1 - shared) / math.sqrt(max(n, 1))

    @property
    def behind(self) -> GroupSummary:
        """The group with the worse mean."""
        return self.baseline if self.metric.sign * self.difference.mean > 0 else self.candidate

    @property
    def wins(self) -> int:
        """Pairs in which the candidate is the better one."""
        return sum(self.metric.sign * difference > 0 for difference in self.differences)

    @property
    def ties(self) -> int:
        return sum(difference == 0 for difference in self.differences)

    @property
    def is_provisional(self) -> bool:
        return self.difference.n < ENOUGH_SEEDS

    @property
    def is_confounded(self) -> bool:
        return bool(self.confounders)

    @cached_property
    def sign_flip_p(self) -> float:
        return sign_flip_p(self.differences)

    @property
    def correlation(self) -> float:
        """Pearson's r of the twins."""
        candidate = [self.candidate.values[key] for key in self.pairs]
        return correlation(candidate, [self.baseline.values[key] for key in self.pairs])

    @property
    def correlation_interval(self) -> tuple[float, float]:
        return correlation_interval(self.correlation, len(self.pairs))

    @cached_property
    def outcome(self) -> Outcome:
        """The outcome that may be stated; "leaning" stands for "better" or "worse" where there is a doubt."""
        sign = self.metric.sign
        outcome = judge(self.difference, self.p_adjusted, self.noise_floor, self.p_equivalent_adjusted, sign)
        return "leaning" if outcome in ("better", "worse") and self.doubt else outcome

    @cached_property
    def final_outcome(self) -> Outcome | None:
        """The outcome at the final epoch; None where that is the compared one, and without values there."""
        if self.final is None or self.final.n == 0:
            return None
        p_equivalent = self.final_p_equivalent_adjusted
        return judge(self.final, self.final_p_adjusted, math.nan, p_equivalent, self.metric.sign)

    @cached_property
    def doubt(self) -> str:
        """Why the t test is not trusted with fewer than 20 seeds, as a clause; "" where it is.

        Rare bad runs that happen not to be among the seeds make a t test claim too much. They show in the
        epochs, or in one run far below its group.
        """
        if self.difference.n >= ROBUST_SEEDS or not self.metric.is_accuracy:
            return ""
        for summary in (self.candidate, self.baseline):
            name, spread = summary.group.label, summary.sd
            jumps = late_jumps(summary.usable_runs, f"{summary.split}/accuracy")
            if JUMP_SHARES[summary.rule] * jumps > JUMP_RATIO * spread:
                return (
                    f"the accuracy of {name} jumps by ±{jumps:.1f} points between epochs but differs by only "
                    f"{spread:.2f} between seeds"
                )
            keys = list(summary.values)
            if (index := low_outlier([*summary.values.values()])) is not None:
                value = summary.values[keys[index]]
                return f"one run of {name} (seed {keys[index][0]}, {value:.2f} %) lies far below the others"
        return ""

    @cached_property
    def differs_in_stability(self) -> bool:
        """Whether the rates of lost runs differ by more than chance gives."""
        return self.stability_p_adjusted <= ALPHA

    @property
    def leans_in_stability(self) -> bool:
        """Whether the rates differ by their own test, but not once it is adjusted for all tests."""
        return self.stability.p <= ALPHA < self.stability_p_adjusted

    @property
    def is_more_stable(self) -> bool:
        return self.candidate.lost_rate < self.baseline.lost_rate

    @cached_property
    def plan(self) -> SampleSizePlan | None:
        """The seeds that would decide; None where none are needed, and where no number of seeds can.

        The latter includes groups of which most runs are lost, and groups that differ in more than one key. A
        sweep that plans its own seeds gets no other plan.
        """
        if max(self.candidate.lost_rate, self.baseline.lost_rate) > 0.5 or self.is_confounded:
            return None
        if self.test.is_planned:
            return None
        if self.outcome == "leaning":
            missing = ROBUST_SEEDS - self.difference.n
            return SampleSizePlan(missing, missing)
        is_decided = self.outcome in DECIDED or self.differs_in_stability
        return plan_sample_size(self.difference, self.delta, is_decided)


def judge(
    difference: Difference, p: float, noise_floor: float, p_equivalent: float, sign: int = 1
) -> Outcome:
    """The outcome in one word; ``sign``: +1 where a higher metric is better.

    - "nothing", "single", "few": n is 0, 1 or 2, so there is no verdict
    - "identical", "constant": no spread, so no test; the difference is 0, or not
    - "better", "worse": the adjusted ``p`` is at most .05, and the difference exceeds ``noise_floor``, which
      chance alone gives on a test set of this size; a floor of nan is none
    - "small": the same, and ``p_equivalent`` is at most .05 (two one-sided tests)
    - "equivalent": only ``p_equivalent`` is at most .05
    - "undecided": all else
    """
    few: tuple[Outcome, ...] = ("nothing", "single", "few")
    if difference.n < len(few):
        return few[difference.n]
    if math.isnan(difference.p):
        return "identical" if abs(difference.mean) < 1e-9 else "constant"
    is_small = p_equivalent <= ALPHA
    if p <= ALPHA and not abs(difference.mean) <= noise_floor:
        return "small" if is_small else "better" if sign * difference.mean > 0 else "worse"
    return "equivalent" if is_small else "undecided"


def designs_overlap(candidate: GroupSummary, baseline: GroupSummary) -> bool:
    """Whether both groups attempted at least half of the larger one's seeds and folds, finished or not."""
    shared = candidate.attempted & baseline.attempted
    return 2 * len(shared) >= max(len(candidate.attempted), len(baseline.attempted)) and bool(shared)


def measure_difference(
    candidate: GroupSummary,
    baseline: GroupSummary,
    is_paired: bool,
    test: PairedTest,
    delta: float | None,
    *,
    at_final: bool = False,
) -> Difference:
    """``test`` of the twins, or Welch's test over all runs; with ``delta`` also for equivalence."""
    rule = "final" if at_final else candidate.rule
    values, baseline_values = candidate.values_at(rule), baseline.values_at(rule)
    if is_paired:
        return test.difference(values, baseline_values, delta)
    return with_equivalence(welch_t_test([*values.values()], [*baseline_values.values()]), delta)


def compare_stability(
    candidate: GroupSummary, baseline: GroupSummary, is_paired: bool, test: PairedTest
) -> StabilityTest:
    """``test`` of the twins, or Fisher's over all runs; none where all trained or all were lost."""
    rates = {candidate.lost_rate, baseline.lost_rate}
    if rates in ({0.0}, {1.0}):
        return StabilityTest("", math.nan)
    if is_paired:
        shared = candidate.attempted & baseline.attempted
        only_candidate = (candidate.lost_keys - baseline.lost_keys) & shared
        only_baseline = (baseline.lost_keys - candidate.lost_keys) & shared
        p = test.stability_p([*only_candidate], [*only_baseline])
        return StabilityTest(test.stability_method, p)
    counts = [len(group) for s in (candidate, baseline) for group in (s.lost_keys, s.attempted)]
    return StabilityTest("Fisher's exact test", fisher_p(*counts))


def notable_gain(summary: GroupSummary, delta: float | None) -> float:
    """Points an epoch that a group still gains at its end; 0 where it is no more than noise or ``delta``.

    The gain over the last fifth of the epochs is what is compared with ``delta``. It is 0 too where early
    stopping ended all runs: more epochs would change nothing.
    """
    if len(summary.ended_early) == len(summary.group.runs):
        return 0.0
    gain, noise = late_gain(summary.usable_runs, f"{summary.split}/accuracy")
    epochs = max((len(run.curves.get("epoch", ())) for run in summary.usable_runs), default=0)
    limit = MIN_GAIN if math.isnan(noise) else noise
    matters = gain * max(1, epochs // 5) > (delta or 0)
    return gain if gain > limit and matters else 0.0


def repetition_noun(runs: Sequence[Run]) -> str:
    """What the runs of a group are: seeds, folds of one seed, or seed-fold pairs."""
    if all(run.fold is None for run in runs):
        return "seeds"
    return "folds" if len({run.seed for run in runs}) == 1 else "seed-fold pairs"
