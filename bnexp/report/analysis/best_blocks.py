"""A grid over a number, as over learning rates: each group at the number that validation prefers for it.

At one common learning rate a comparison can have any answer. Here each group is compared at its own best one.
Validation chooses it, so the test accuracy stays honest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from bnexp.report.analysis.group_comparison import designs_overlap, judge, measure_difference
from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.groups import Grouping
from bnexp.report.analysis.repeated_looks import PairedTest
from bnexp.report.analysis.statistical_tests import Difference

CHOICE_METRIC = "val/accuracy"
MIN_BLOCKS = 3  # fewer values are no search


@dataclass(frozen=True)
class BestBlockComparison:
    """A group and its baseline, each in its own best block; ``at_edge``: one is the first or last block."""

    candidate: GroupSummary
    baseline: GroupSummary
    difference: Difference
    outcome: str
    at_edge: bool


def compare_best_blocks(
    grouping: Grouping, summaries: Sequence[GroupSummary], test: PairedTest, delta: float | None
) -> tuple[BestBlockComparison, ...]:
    """One comparison for each value against the baseline's; empty where the blocks are no grid of one number.

    Groups are left out that have no trained run in any block, or runs without a validation set.
    """
    numbers = list(dict.fromkeys(summary.group.block for summary in summaries))
    if len(grouping.block_keys) != 1 or len(numbers) < MIN_BLOCKS or not all(map(_is_number, numbers)):
        return ()
    best: dict[str, GroupSummary] = {}
    for value in dict.fromkeys(summary.group.value for summary in summaries):
        scored = [(_score(s), s) for s in summaries if s.group.value == value]
        if trained := [pair for pair in scored if not math.isnan(pair[0])]:
            best[value] = max(trained, key=lambda pair: pair[0])[1]
    baseline = best.pop(grouping.baseline, None)
    if baseline is None:
        return ()
    edges = (numbers[0], numbers[-1])
    return tuple(
        _compare(
            candidate,
            baseline,
            test,
            delta,
            at_edge=bool({candidate.group.block, baseline.group.block} & {*edges}),
        )
        for candidate in best.values()
    )


def _compare(
    candidate: GroupSummary, baseline: GroupSummary, test: PairedTest, delta: float | None, *, at_edge: bool
) -> BestBlockComparison:
    is_paired = designs_overlap(candidate, baseline)
    difference = measure_difference(candidate, baseline, is_paired, test, delta)
    outcome = judge(difference, difference.p, math.nan, difference.p_equivalent, candidate.metric.sign)
    return BestBlockComparison(candidate, baseline, difference, outcome, at_edge)


def _score(summary: GroupSummary) -> float:
    """Mean validation accuracy at the best epoch; a lost run counts as 0. nan where no run trained."""
    scores = [run.best.get(CHOICE_METRIC, math.nan) for run in summary.usable_runs]
    if not scores:
        return math.nan
    return fmean(scores) * len(scores) / len(summary.group.runs)


def _is_number(block: str) -> bool:
    try:
        return math.isfinite(float(block.partition("=")[2]))
    except ValueError:
        return False
