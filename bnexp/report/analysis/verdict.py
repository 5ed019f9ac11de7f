"""The comparison of groups of runs as one object; text, Markdown, CSV, JSON, page and plots come from it.

A ``Row`` is a group and what its runs came to, a ``Compared`` two rows of one block and how they differ, a
``Comparison`` all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bnexp.errors import UserError, bad_choice
from bnexp.report.analysis import statistical_tests as st
from bnexp.report.analysis.curves import default_target, time_to_target, watched_split
from bnexp.report.analysis.group_summary import METRIC, GroupSummary, Metric, is_lost
from bnexp.report.analysis.groups import Group, Grouping, group
from bnexp.report.analysis.sample_size import ENOUGH_SEEDS, SampleSizePlan, plan_sample_size
from bnexp.report.read.looks import Look, record_look
from bnexp.report.read.runs import Problem, Run, Twin

DECIDED = ("better", "worse", "small", "equivalent", "identical", "constant")


@dataclass(frozen=True)
class GroupComparison:
    """A group against the baseline of its block: candidate - baseline, in the metric's units."""

    by: str
    candidate: GroupSummary
    baseline: GroupSummary
    difference: st.Difference
    p_adjusted: float
    delta: float | None
    confounders: tuple[str, ...]

    @property
    def metric(self) -> Metric:
        return self.candidate.metric

    @property
    def paired(self) -> bool:
        return paired(self.candidate, self.baseline)

    @cached_property
    def noun(self) -> str:
        """What is counted."""
        return repetition_noun((*self.candidate.group.runs, *self.baseline.group.runs))

    @cached_property
    def twins(self) -> tuple[Twin, ...]:
        return tuple(twin for twin in self.candidate.values if twin in self.baseline.values)

    @property
    def missing(self) -> tuple[Twin, ...]:
        """Twins without a finished run on both sides."""
        every = self.candidate.attempted | self.baseline.attempted
        return tuple(sorted(every - set(self.twins), key=str)) if self.paired else ()

    @cached_property
    def differences(self) -> tuple[float, ...]:
        return tuple(self.candidate.values[twin] - self.baseline.values[twin] for twin in self.twins)

    @cached_property
    def chance(self) -> float:
        """95 % of differences between two single runs of one configuration lie within ± this, in points.

        nan, and nothing is held against it, where the metric is no accuracy on a known number of images.
        """
        split = self.metric.key.partition("/")[0]
        images = self.candidate.group.runs[0].images.get(split)
        if not self.metric.is_accuracy or split.startswith("train") or not images:
            return math.nan
        if not self.candidate.values or not self.baseline.values:
            return math.nan
        return 1.96 * 100 * st.chance_sd(1 - self.candidate.mean / 100, 1 - self.baseline.mean / 100, images)

    @property
    def floor(self) -> float:
        """What the mean difference must exceed besides its test: 1.96 f / sqrt(n)."""
        return self.chance / math.sqrt(max(self.difference.n, 1))

    @property
    def ahead(self) -> int:
        """Twins in which this group is the better one."""
        return sum(self.metric.sign * difference > 0 for difference in self.differences)

    @property
    def provisional(self) -> bool:
        return self.difference.n < ENOUGH_SEEDS

    @cached_property
    def exact(self) -> float:
        """p of the sign flips."""
        return st.sign_flip(self.differences)

    @property
    def correlation(self) -> float:
        pairs = [(self.candidate.values[twin], self.baseline.values[twin]) for twin in self.twins]
        return st.correlation([a for a, _ in pairs], [b for _, b in pairs])

    @property
    def at_best_val(self) -> st.Difference:
        return st.paired(self.candidate.best, self.baseline.best)

    @cached_property
    def outcome(self) -> str:
        return judge(self.difference, self.p_adjusted, self.floor, self.delta, self.metric.sign)

    @cached_property
    def plan(self) -> SampleSizePlan | None:
        """Where most runs of a group diverge, no number of seeds decides about accuracy."""
        if max(self.candidate.divergence_rate, self.baseline.divergence_rate) > 0.5:
            return None
        return plan_sample_size(self.difference, self.delta, self.outcome in DECIDED)


@dataclass(frozen=True)
class Comparison:
    metric: Metric
    grouping: Grouping
    summaries: tuple[GroupSummary, ...]
    comparisons: tuple[GroupComparison, ...]
    problems: tuple[Problem, ...]
    looks: tuple[Look, ...]
    notes: tuple[str, ...]

    @property
    def family(self) -> int:
        """How many comparisons Holm's adjustment covers."""
        return len(self.comparisons)

    @cached_property
    def blocks(self) -> dict[str, list[GroupSummary]]:
        """The rows by block, each block's baseline first."""
        found: dict[str, list[GroupSummary]] = {}
        for row in self.summaries:
            found.setdefault(row.group.block, []).append(row)
        return found

    @cached_property
    def _by_group(self) -> dict[str, GroupComparison]:
        return {one.candidate.group.name: one for one in self.comparisons}

    def of(self, row: GroupSummary) -> GroupComparison | None:
        return self._by_group.get(row.group.name)


def compare(
    runs: Sequence[Run],
    problems: Sequence[Problem] = (),
    *,
    by: str | None = None,
    metric: str = METRIC,
    baseline: str | None = None,
    target: float | None = None,
    delta: float | None = None,
    looks: Sequence[Look] = (),
) -> Comparison:
    """The verdict over runs; raises UserError where there is nothing to compare or a name is unknown.

    ``target`` is an accuracy, 0 to 1; ``delta`` the smallest difference of interest, in points, in place of
    what the runs' own configurations say; ``looks`` those before this one.
    """
    used, more = _with_metric(runs, metric)
    grouping, measure = group(used, by, baseline), Metric(metric)
    rows = [row for block in grouping.blocks.values() for row in _rows(block, measure, target)]
    by_group = {id(row.group): row for row in rows}
    pairs = [(row, by_group[id(one)]) for row in rows if (one := grouping.reference(row.group))]
    found = [_difference(*pair) for pair in pairs]
    adjusted = st.holm([one.p if one.n >= 3 else math.nan for one in found])
    compared = tuple(
        GroupComparison(
            grouping.by or "", ours, theirs, difference, p,
            delta if delta or not measure.is_accuracy else least_of_interest((ours.group, theirs.group)),
            tuple(grouping.confounders(ours.group, theirs.group)),
        )
        for (ours, theirs), difference, p in zip(pairs, found, adjusted, strict=True)
    )  # fmt: skip
    return Comparison(
        measure,
        grouping,
        tuple(rows),
        compared,
        (*problems, *more, *grouping.problems),
        record_look(looks, {row.group.name: len(row.group.runs) for row in rows}),
        _notes(grouping, rows, compared, delta),
    )


def judge(found: st.Difference, p: float, floor: float, delta: float | None, sign: int = 1) -> str:
    """The outcome in a word.

    A difference is called where its adjusted p is at most 0.05 and it exceeds what chance alone gives on a
    test set of that size. Within ± delta (two one-sided tests: the 90 % interval inside) it is "small" where
    called, else "equivalent"; called and not within, "better" or "worse"; the rest is "undecided".
    """
    if found.n < 3:
        return ("nothing", "single", "few")[found.n]
    if math.isnan(found.p):
        return "identical" if abs(found.mean) < 1e-9 else "constant"
    inside = delta is not None and -delta < found.low90 and found.high90 < delta
    if p <= st.ALPHA and not abs(found.mean) <= floor:
        return "small" if inside else "better" if sign * found.mean > 0 else "worse"
    return "equivalent" if inside else "undecided"


def paired(ours: GroupSummary, theirs: GroupSummary) -> bool:
    """Pairing is a matter of design: the groups were started with shared seeds, finished or not."""
    return bool(ours.attempted & theirs.attempted)


def least_of_interest(groups: Sequence[Group]) -> float | None:
    """The difference of interest that the runs' configurations declare; the least where they disagree."""
    declared = [run.delta for one in groups for run in one.runs if run.delta is not None]
    return min(declared, default=None)


def _difference(ours: GroupSummary, theirs: GroupSummary) -> st.Difference:
    if paired(ours, theirs):
        return st.paired(ours.values, theirs.values)
    return st.welch([*ours.values.values()], [*theirs.values.values()])


def _with_metric(runs: Sequence[Run], metric: str) -> tuple[list[Run], list[Problem]]:
    if not runs:
        raise UserError("no finished run to compare")
    used = [run for run in runs if run.diverged or metric in run.final]
    if not any(metric in run.final for run in used):
        names = sorted({key for run in runs for key in run.final})
        if metric in names or not names:
            raise UserError(f"no finished run to compare (all {len(runs)} diverged)")
        raise bad_choice("--metric", metric, names)
    without = [run for run in runs if not run.diverged and metric not in run.final]
    return used, [Problem(run.folder, f"no {metric} among its final metrics") for run in without]


def _rows(groups: Sequence[Group], metric: Metric, target: float | None) -> list[GroupSummary]:
    """The rows of one block, which share split and target."""
    split = watched_split([run for one in groups for run in one.runs])
    if target is None:
        target = default_target(
            [[run for run in one.runs if not is_lost(run)] for one in groups], f"{split}/accuracy"
        )
    goals = [None if target is None else time_to_target(one.runs, split, target) for one in groups]
    return [GroupSummary(one, metric, split, goal) for one, goal in zip(groups, goals, strict=True)]


def _notes(
    grouping: Grouping, rows: Sequence[GroupSummary], found: Sequence[GroupComparison], delta: float | None
) -> tuple[str, ...]:
    """What else a reader must know: what differs, what was left out, what an interval does not hold."""
    notes, runs = list(grouping.notes), [run for row in rows for run in row.group.runs]
    alone = [row.group.name for row in rows if not any(row in (one.candidate, one.baseline) for one in found)]
    if alone and len(rows) > 1:
        agree = "no baseline agrees with them in every other key"
        why = agree if grouping.by else "nothing but the data set differs"
        notes.append(f"not compared ({why}): {', '.join(alone)}")
    for pair in found:
        deltas = {run.delta for row in (pair.candidate, pair.baseline) for run in row.group.runs if run.delta}
        if len(deltas) > 1 and delta is None and pair.delta is not None:
            listed = ", ".join(f"{value:g}" for value in sorted(deltas))
            notes.append(f"runs disagree on dataset.delta ({listed}): the least is used")
    blocks = {row.group.block: [one for one in rows if one.group.block == row.group.block] for row in rows}
    notes += [note for block in blocks.values() if (note := _threads(block))]
    if any(run.fold is not None for run in runs):
        notes.append(
            "folds share training images, so intervals over them are too narrow (Nadeau and Bengio 2003)"
        )
    if any(math.isnan(one.chance) and one.difference.n for one in found):
        notes.append(
            "the noise of the test set is not known for this metric or data; no difference is held against it"
        )
    return tuple(dict.fromkeys(notes))


def repetition_noun(runs: Sequence[Run]) -> str:
    """What the runs of a group are: seeds, folds of one seed, or pairs of both."""
    if all(run.fold is None for run in runs):
        return "seeds"
    return "folds" if len({run.seed for run in runs}) == 1 else "seed-fold pairs"


def _threads(rows: Sequence[GroupSummary]) -> str:
    """Groups of one block that took other numbers of CPU threads: their seconds are no match."""
    each = {row.group.name: sorted({run.threads for run in row.group.runs if run.threads}) for row in rows}
    if len({number for numbers in each.values() for number in numbers}) < 2:
        return ""
    said = "; ".join(f"{name} {', '.join(map(str, numbers))}" for name, numbers in each.items() if numbers)
    return f"runs differ in CPU threads ({said}): their seconds are no match, and last bits may differ"
