"""The comparison of groups of runs as one object. Text, Markdown, CSV, JSON, page and plots are made from it.

A ``GroupSummary`` holds what one group's runs achieved, a ``GroupComparison`` how it differs from the
baseline of its block, a ``Verdict`` all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from bnexp.errors import UserError, bad_choice
from bnexp.report.analysis.best_blocks import BestBlockComparison, compare_best_blocks
from bnexp.report.analysis.curves import default_target, time_to_target, watched_split
from bnexp.report.analysis.epoch_rule import EpochRule, choose_epoch_rule
from bnexp.report.analysis.group_comparison import (
    GroupComparison,
    compare_stability,
    designs_overlap,
    measure_difference,
)
from bnexp.report.analysis.group_summary import DEFAULT_METRIC, GroupSummary, Metric, is_usable
from bnexp.report.analysis.groups import Group, Grouping, group_runs
from bnexp.report.analysis.notes import collect_notes, describe_not_compared
from bnexp.report.analysis.repeated_looks import AnyLooks, PairedTest, SingleLook
from bnexp.report.analysis.statistical_tests import Difference, holm_adjust
from bnexp.report.analysis.tuning import Arm, ArmTuning, tuning_of
from bnexp.report.read.looks import Look, looks_at, record_look
from bnexp.report.read.runs import Problem, Run

MIN_TESTED = 3  # pairs from which p is reported


@dataclass(frozen=True)
class Verdict:
    """All groups, each group's comparison with its baseline, and what a reader must know about them."""

    metric: Metric
    rule: EpochRule
    grouping: Grouping
    summaries: tuple[GroupSummary, ...]
    comparisons: tuple[GroupComparison, ...]
    best_blocks: tuple[BestBlockComparison, ...]  # each group at its own best learning rate, for instance
    problems: tuple[Problem, ...]
    looks: tuple[Look, ...]  # earlier ones and this one
    test: PairedTest  # of the twins
    tuning: tuple[tuple[GroupSummary, ArmTuning], ...]  # what was tried for each tuned group
    published: float | None
    not_compared: str  # a sentence, or ""
    notes: tuple[str, ...]

    @property
    def family(self) -> int:
        """The number of tests that Holm's adjustment covers: of accuracy where a pair of runs is left, and of
        stability where a run was lost.
        """
        return sum(_hypotheses(c.difference.n, c.stability.p) for c in self.comparisons)

    @property
    def runs(self) -> list[Run]:
        return [run for summary in self.summaries for run in summary.group.runs]

    @cached_property
    def blocks(self) -> dict[str, list[GroupSummary]]:
        """The summaries by block, each block's baseline first."""
        blocks: dict[str, list[GroupSummary]] = {}
        for summary in self.summaries:
            blocks.setdefault(summary.group.block, []).append(summary)
        return blocks

    def comparison_of(self, summary: GroupSummary) -> GroupComparison | None:
        """The comparison of a group with its baseline; None for a baseline."""
        return next((c for c in self.comparisons if c.candidate is summary), None)


def compare(
    runs: Sequence[Run],
    problems: Sequence[Problem] = (),
    *,
    by: str | None = None,
    metric: str = DEFAULT_METRIC,
    baseline: str | None = None,
    target: float | None = None,
    delta: float | None = None,
    epoch: str | None = None,
    looks: Sequence[Look] = (),
    test: PairedTest | None = None,
    tuning: Mapping[Arm, ArmTuning] | None = None,
    published: float | None = None,
    is_interim: bool = False,
) -> Verdict:
    """The verdict over runs. Raises UserError for an unknown name and where there is nothing to compare.

    - ``target``: an accuracy between 0 and 1
    - ``delta``: the smallest difference of interest in points, in place of the configured one
    - ``epoch``: in place of the configured ``report.epoch``
    - ``looks``: the earlier looks at these runs
    - ``test``: of the twins; by default the plain t test, or the one for any looks where there were some
    - ``tuning``: the trials of each arm; the tuned keys are no settings that are compared
    - ``published``: a published value that every group is compared with, in the metric's unit
    - ``is_interim``: a sweep that was cut short. It counts as no look: the planned number of seeds counts
    """
    runs, metric_problems = _with_metric(runs, metric)
    rule = choose_epoch_rule(runs, metric, epoch)
    tuned_keys = tuple(interval.name for arm in (tuning or {}).values() for interval in arm.intervals)
    grouping, shown_metric = group_runs(runs, by, baseline, tuned_keys), Metric(metric)
    summaries = [
        summary
        for groups in grouping.blocks.values()
        for summary in _summarise(groups, shown_metric, rule, target)
    ]
    runs_by_group = {summary.group.name: len(summary.group.runs) for summary in summaries}
    looks = tuple(looks) if is_interim else record_look(looks, runs_by_group)
    test = test or (AnyLooks() if len(looks_at(looks, runs_by_group)) > 1 else SingleLook())
    comparisons = _compare_with_baselines(grouping, summaries, delta, test)
    return Verdict(
        metric=shown_metric,
        rule=rule,
        grouping=grouping,
        summaries=tuple(summaries),
        comparisons=comparisons,
        best_blocks=compare_best_blocks(grouping, summaries, test, _least_delta(comparisons)),
        problems=(*problems, *metric_problems, *grouping.problems),
        looks=looks,
        test=test,
        tuning=tuple(
            (summary, result)
            for summary in summaries
            if (result := tuning_of(summary.group.runs[0], tuning or {})) is not None
        ),
        published=published,
        not_compared=describe_not_compared(grouping, summaries, comparisons),
        notes=collect_notes(grouping, summaries, comparisons, delta),
    )


def _with_metric(runs: Sequence[Run], metric: str) -> tuple[list[Run], list[Problem]]:
    """The runs that diverged or have the metric, and a problem for each other run."""
    if not runs:
        raise UserError("no finished run to compare")
    if not any(metric in run.final for run in runs):
        names = sorted({key for run in runs for key in run.final})
        if not names:
            raise UserError(f"no finished run to compare (all {len(runs)} diverged)")
        raise bad_choice("--metric", metric, names)
    usable = [run for run in runs if run.diverged or metric in run.final]
    problems = [
        Problem(run.folder, f"no {metric} among its final metrics")
        for run in runs
        if not run.diverged and metric not in run.final
    ]
    return usable, problems


def _summarise(
    groups: Sequence[Group], metric: Metric, rule: EpochRule, target: float | None
) -> list[GroupSummary]:
    """Summaries of the groups of one block, with one split and one target accuracy for all."""
    split = watched_split([run for group in groups for run in group.runs])
    if target is None:
        usable_runs = [[run for run in group.runs if is_usable(run, rule)] for group in groups]
        target = default_target(usable_runs, f"{split}/accuracy")
    times = [None if target is None else time_to_target(group.runs, split, target) for group in groups]
    return [GroupSummary(group, metric, rule, split, time) for group, time in zip(groups, times, strict=True)]


def _compare_with_baselines(
    grouping: Grouping, summaries: Sequence[GroupSummary], delta: float | None, test: PairedTest
) -> tuple[GroupComparison, ...]:
    """Each group against its baseline, with p values adjusted over all tests of the verdict."""
    summary_of = {id(summary.group): summary for summary in summaries}  # two groups may have one name
    pairs = [
        (summary, summary_of[id(baseline)])
        for summary in summaries
        if (baseline := grouping.baseline_of(summary.group))
    ]
    # Groups that differ in another key are no twins.
    paired = [
        (test.is_planned or designs_overlap(*p)) and not grouping.differing_settings(p[0].group, p[1].group)
        for p in pairs
    ]
    deltas = [
        delta if delta or not pair[0].metric.is_accuracy else _configured_delta(*pair) for pair in pairs
    ]
    arguments = list(zip(pairs, paired, deltas, strict=True))
    differences = [measure_difference(*pair, twins, test, small) for pair, twins, small in arguments]
    stabilities = [compare_stability(*pair, twins, test) for pair, twins, _ in arguments]
    finals = [
        None if pair[0].rule == "final" else measure_difference(*pair, twins, test, small, at_final=True)
        for pair, twins, small in arguments
    ]
    p_values = _adjust_family(differences, [stability.p for stability in stabilities])
    final_p = holm_adjust([math.nan if d is None else _tested_p(d) for d in finals])
    # A family of its own: claims of a difference and claims of none are each wrong in at most .05.
    equivalence_p, final_equivalence_p = (
        holm_adjust([math.nan if d is None else _tested(d, d.p_equivalent) for d in ds])
        for ds in (differences, finals)
    )
    return tuple(
        GroupComparison(
            by=grouping.by or "",
            candidate=candidate,
            baseline=baseline,
            is_paired=paired[i],
            difference=differences[i],
            p_adjusted=p_values[i][0],
            p_equivalent_adjusted=equivalence_p[i],
            stability=stabilities[i],
            stability_p_adjusted=p_values[i][1],
            final=finals[i],
            final_p_adjusted=final_p[i],
            final_p_equivalent_adjusted=final_equivalence_p[i],
            delta=deltas[i],
            confounders=tuple(grouping.confounders(candidate.group, baseline.group)),
            test=test,
        )
        for i, (candidate, baseline) in enumerate(pairs)
    )


def _adjust_family(
    differences: Sequence[Difference], stability_p: Sequence[float]
) -> list[tuple[float, float]]:
    """Holm's adjusted p of each difference and of each stability test, all in one family.

    A comparison without any pair of usable runs, and one without lost runs, is no hypothesis about
    accuracy, or about stability: it takes no part in the family, and its p is nan.
    """
    accuracy = [i for i, difference in enumerate(differences) if difference.n]
    stability = [i for i, p in enumerate(stability_p) if not math.isnan(p)]
    p_values = [_tested_p(differences[i]) for i in accuracy] + [stability_p[i] for i in stability]
    adjusted = holm_adjust(p_values)
    accuracy_p = dict(zip(accuracy, adjusted, strict=False))
    adjusted_stability = dict(zip(stability, adjusted[len(accuracy) :], strict=True))
    return [
        (accuracy_p.get(i, math.nan), adjusted_stability.get(i, math.nan)) for i in range(len(differences))
    ]


def _tested_p(difference: Difference) -> float:
    return _tested(difference, difference.p)


def _tested(difference: Difference, p: float) -> float:
    return math.nan if difference.n < MIN_TESTED else p


def _hypotheses(pairs: int, stability_p: float) -> int:
    return (pairs > 0) + (not math.isnan(stability_p))


def _least_delta(comparisons: Sequence[GroupComparison]) -> float | None:
    return min((c.delta for c in comparisons if c.delta is not None), default=None)


def _configured_delta(candidate: GroupSummary, baseline: GroupSummary) -> float | None:
    """The smallest difference of interest in the runs' configurations; the least where they disagree."""
    runs = (*candidate.group.runs, *baseline.group.runs)
    return min((run.delta for run in runs if run.delta is not None), default=None)
