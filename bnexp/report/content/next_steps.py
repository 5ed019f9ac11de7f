"""What to run next: missing twins, more epochs, or more seeds, with the cost and the commands."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bnexp.report.analysis.group_comparison import GroupComparison, notable_gain
from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.groups import Group
from bnexp.report.analysis.repeated_looks import DEFAULT_LOOKS
from bnexp.report.analysis.sample_size import (
    MAX_FORECAST,
    missing_twins_command,
    new_seeds,
    resume_command,
    shared_overrides,
    sweep_commands,
)
from bnexp.report.analysis.statistical_tests import mean_sd
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.numbers import agree


@dataclass(frozen=True)
class NextStep:
    """One thing to run: what it adds, and the commands for it."""

    reason: str
    commands: tuple[str, ...]


def next_steps(verdict: Verdict) -> list[NextStep]:
    """What to run, the most urgent first: missing twins, a first verdict, more epochs, more seeds."""
    if any(c.is_confounded for c in verdict.comparisons) or not _differ_in_overrides(verdict):
        return []
    if not verdict.test.is_planned and (steps := list(_missing_twins(verdict))):
        return steps
    return [*_more_seeds(verdict, is_forecast=False), *_more_epochs(verdict), *_more_seeds(verdict, True)]


def _differ_in_overrides(verdict: Verdict) -> bool:
    """Whether commands can name the groups: some differ only in code or files that have changed since."""
    overrides = [shared_overrides(summary.group) for summary in verdict.summaries]
    known = [frozenset(typed.items()) for typed in overrides if typed is not None]
    return len(set(known)) == len(known)


def _missing_twins(verdict: Verdict) -> Iterator[NextStep]:
    """The runs that one group of a paired comparison lacks."""
    missing: dict[str, NextStep] = {}
    for c in verdict.comparisons:
        if not c.is_paired:
            continue
        for summary, other in ((c.candidate, c.baseline), (c.baseline, c.candidate)):
            keys = sorted(other.attempted - summary.attempted, key=str)
            command = missing_twins_command(summary.group, keys) if keys else None
            if command is not None and command not in missing:
                count = f"{len(keys)} {agree(len(keys), c.noun)}"
                missing[command] = NextStep(f"{summary.group.name} lacks {count}", (command,))
    yield from missing.values()


def _more_epochs(verdict: Verdict) -> Iterator[NextStep]:
    deltas = {id(s): c.delta for c in verdict.comparisons for s in (c.candidate, c.baseline)}
    gaining = [s for s in verdict.summaries if id(s) in deltas and notable_gain(s, deltas[id(s)])]
    epochs = {run.epochs for run in verdict.runs}
    if not gaining or len(epochs) != 1:
        return
    override = f"epochs={2 * epochs.pop()}"
    groups = [summary.group for summary in verdict.summaries]
    command = None if verdict.test.is_planned else resume_command(groups, override)
    yield NextStep(
        "twice the epochs" if command else f"twice the epochs: {override}", (command,) if command else ()
    )


def _more_seeds(verdict: Verdict, is_forecast: bool) -> Iterator[NextStep]:
    planned = [c for c in verdict.comparisons if c.plan and c.plan.is_forecast is is_forecast]
    planned = [c for c in planned if c.plan and not c.plan.is_hopeless]
    count = min(max((c.plan.high for c in planned if c.plan), default=0), MAX_FORECAST)
    if count and is_forecast and (command := _planned_seeds(verdict)):
        yield NextStep(f"as many seeds as the answer takes, at most {DEFAULT_LOOKS[-1]}", (command,))
    elif count:
        summaries = list({id(s): s for c in planned for s in (c.baseline, c.candidate)}.values())
        yield _seeds_step(planned, summaries, count)


def _planned_seeds(verdict: Verdict) -> str | None:
    """The command that goes on with planned looks; None where the seeds are not the first of the plan."""
    seeds = {run.seed for run in verdict.runs}
    is_start = seeds == set(range(len(seeds))) and len(seeds) < DEFAULT_LOOKS[-1]
    if not is_start or any(run.fold is not None for run in verdict.runs):
        return None
    return resume_command([summary.group for summary in verdict.summaries], "seed=auto")


def _seeds_step(
    planned: Sequence[GroupComparison], summaries: Sequence[GroupSummary], count: int
) -> NextStep:
    """One step for all groups of a sweep, or for the groups that need it."""
    groups: list[Group] = [summary.group for summary in summaries]
    seeds = new_seeds(groups, count)
    command = resume_command(groups, seeds)
    minutes = count * sum(mean_sd([run.total_s for run in group.runs])[0] for group in groups) / 60
    cost = "" if math.isnan(minutes) else f", about {max(minutes, 1):.0f} min as trained so far"
    noun = agree(count, planned[0].further_noun)
    commands = (command,) if command else sweep_commands(groups, seeds)
    return NextStep(f"{count} more {noun} of each{cost}", commands)
