"""What each comparison of a sweep with ``seed=auto`` stands at, in one line, after a planned look."""

from __future__ import annotations

from bnexp.report.analysis.group_comparison import GroupComparison, Outcome
from bnexp.report.analysis.repeated_looks import PlannedLooks
from bnexp.report.analysis.statistical_tests import upper_sd
from bnexp.report.analysis.sweep_verdict import is_open
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.numbers import points, size, unit

MAX_LINES = 8  # more comparisons are counted
WORDS: dict[Outcome, str] = {
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
        return lines
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
        return f"undecided{resolution(c)}"
    if c.is_confounded:
        return "not comparable"
    if c.differs_in_stability:
        return f"decided: loses {'fewer' if c.is_more_stable else 'more'} runs"
    if c.outcome in WORDS:
        return f"decided: {WORDS[c.outcome]}"
    is_over = isinstance(c.test, PlannedLooks) and c.test.reached >= c.test.last_seeds
    return "open" if is_over else "given up: more seeds could hardly decide it"


def resolution(c: GroupComparison) -> str:
    """``; 40 seeds resolve about 0.12 points, 0.1 matter``; "" where the spread is not known."""
    if not isinstance(c.test, PlannedLooks) or not c.difference.df > 0:
        return ""
    half, _ = c.test.half_widths_at_last_look(upper_sd(c.difference.sd, c.difference.df))
    matters = "" if c.delta is None else f", {size(c.delta, c.metric)} matter"
    return f"; {c.test.last_seeds} seeds resolve about {size(half, c.metric)}{matters}"
