"""What to run next: more seeds where a comparison is open, with their cost and the commands."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bnexp.report.analysis.group_comparison import GroupComparison
from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.sample_size import sweep_commands
from bnexp.report.analysis.statistical_tests import mean_sd
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.numbers import agree

MAX_SEEDS = 100  # a plan for more seeds than this is not worth printing


@dataclass(frozen=True)
class NextStep:
    """``count`` more runs of some groups; no commands where the runs of a group differ in their overrides."""

    count: int
    noun: str
    minutes: float  # at the speed of the runs so far; nan where not known
    commands: tuple[str, ...]

    @property
    def sentence(self) -> str:
        cost = "" if math.isnan(self.minutes) else f", about {max(self.minutes, 1):.0f} min as trained so far"
        return f"next: {self.count} more {agree(self.count, self.noun)} of each{cost}"


def next_steps(verdict: Verdict) -> list[NextStep]:
    """For each block: seeds for a first verdict, and seeds for a narrower interval, often many more."""
    return [step for summaries in verdict.blocks.values() for step in _block_steps(summaries, verdict)]


def _block_steps(summaries: Sequence[GroupSummary], verdict: Verdict) -> Iterator[NextStep]:
    comparisons = [c for summary in summaries if (c := verdict.comparison_of(summary))]
    for is_first_verdict in (True, False):
        planned = [c for c in comparisons if c.plan and math.isnan(c.plan.half_width) is is_first_verdict]
        seeds = max((c.plan.seeds for c in planned if c.plan), default=0)
        if 0 < seeds <= MAX_SEEDS:
            yield _step(planned, seeds)


def _step(comparisons: Sequence[GroupComparison], seeds: int) -> NextStep:
    """One step for the baseline and all groups that are compared with it."""
    groups = [comparisons[0].baseline.group, *(c.candidate.group for c in comparisons)]
    minutes = sum(mean_sd([run.total_s for run in group.runs])[0] for group in groups) / 60
    return NextStep(seeds, comparisons[0].further_noun, seeds * minutes, sweep_commands(groups, seeds))
