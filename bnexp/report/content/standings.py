"""What each comparison of a sweep with ``seed=auto`` stands at, in one line, after a planned look."""

from __future__ import annotations

import math

from bnexp.report.analysis.group_comparison import GroupComparison, Outcome
from bnexp.report.analysis.repeated_looks import PlannedLooks
from bnexp.report.analysis.statistical_tests import upper_sd
from bnexp.report.analysis.sweep_verdict import is_open
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.numbers import points, size, unit

MAX_LINES = 8  # more comparisons are counted
OUTCOMES: dict[Outcome, str] = {
    "better": "better",
    "worse": "worse",
    "small": "a difference smaller than what matters",
    "equivalent": "no difference that matters",
    "identical": "identical",
    "constant": "no spread",
}


def standings(verdict: Verdict) -> list[str]:
    """``batch vs none: +0.9 points, 10 of at most 40 seeds, undecided`` for each comparison."""
    lines = [standing(c) for c in verdict.comparisons]
    if len(lines) <= MAX_LINES:
        return [*lines, *_resolution(verdict)]
    is_undecided = [is_open(c) for c in verdict.comparisons]
    return [f"{sum(is_undecided)} of {len(lines)} comparisons undecided, {_seeds(verdict.comparisons[0])}"]


def standing(c: GroupComparison) -> str:
    difference = f"{points(c.difference.mean, c.metric)}{unit(c.metric)}, " if c.difference.n else ""
    return f"{c.candidate.group.full_label} vs {c.baseline.group.label}: {difference}{_seeds(c)}, {_state(c)}"


def _seeds(c: GroupComparison) -> str:
    most = c.test.last_seeds if isinstance(c.test, PlannedLooks) else 0
    return f"{len(c.candidate.attempted)} of at most {most} seeds"


def _state(c: GroupComparison) -> str:
    if is_open(c):
        return "undecided"
    if c.is_confounded:
        return "not comparable"
    if c.differs_in_stability:
        return f"decided: loses {'fewer' if c.is_more_stable else 'more'} runs"
    if c.outcome in OUTCOMES:
        return f"decided: {OUTCOMES[c.outcome]}"
    is_over = isinstance(c.test, PlannedLooks) and c.test.reached >= c.test.last_seeds
    return "open" if is_over else "given up: more seeds could hardly decide it"


def _resolution(verdict: Verdict) -> list[str]:
    """At the first look, what the last can resolve: ``40 seeds resolve about 0.42 points; 1.00 matter``."""
    halves, seeds = [], 0
    for c in verdict.comparisons:
        if isinstance(c.test, PlannedLooks) and c.test.reached == c.test.looks[0] and is_open(c):
            seeds = c.test.last_seeds
            halves.append(resolution(c))
    largest = max((half for half in halves if not math.isnan(half)), default=math.nan)
    if math.isnan(largest):
        return []
    delta = next((c.delta for c in verdict.comparisons if c.delta is not None), None)
    matters = "" if delta is None else f"; {size(delta, verdict.metric)} matter"
    return [f"{seeds} seeds resolve about {size(largest, verdict.metric)}{matters}"]


def resolution(c: GroupComparison) -> float:
    """Half of the 95 % interval that is to be expected at the last look; nan where no spread is known."""
    if not isinstance(c.test, PlannedLooks) or not c.difference.df > 0:
        return math.nan
    return c.test.half_widths_at_last_look(upper_sd(c.difference.sd, c.difference.df))[0]
