"""The comparison of groups of runs as one object; text, Markdown, CSV, JSON, page and plots come from it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bnexp.errors import UserError, bad_choice
from bnexp.report import statistics as st
from bnexp.report.collect import Problem, Run
from bnexp.report.curves import Reached, default_target, reached, watched
from bnexp.report.groups import Group, Grouping, group
from bnexp.report.plan import ENOUGH, Plan, plan

METRIC = "test/accuracy"
# The smallest difference of interest, in points, where --delta gives none.
DELTAS = {"mnist": 0.1, "fashion_mnist": 0.1, "cifar10": 0.5, "digits": 1.0}
Twin = tuple[int, int | None]  # seed and fold
Look = Mapping[str, object]
SECONDARY = tuple(f"{split}/{name}" for split in ("val", "test") for name in ("accuracy", "loss"))
DECIDED = ("better", "worse", "small", "equivalent")


@dataclass(frozen=True)
class Metric:
    """A final metric: accuracies in per cent and points, losses as they are."""

    key: str

    @property
    def is_accuracy(self) -> bool:
        return self.key.endswith("/accuracy")

    @property
    def label(self) -> str:
        return self.key.replace("/", " ")

    @property
    def scale(self) -> float:
        return 100.0 if self.is_accuracy else 1.0

    @property
    def sign(self) -> int:
        """+1 where more is better."""
        return -1 if self.key.endswith("loss") else 1


@dataclass(frozen=True)
class Row:
    """One group: its values by twin, scaled, and what its runs cost."""

    group: Group
    values: Mapping[Twin, float]  # runs that finished
    diverged: tuple[Twin, ...]
    mean: float
    sd: float
    secondary: Mapping[str, tuple[int, float, float]]  # n, mean, sd of each other metric
    best: Mapping[Twin, float]  # the metric at the epoch that val chose
    split: str  # whose curves are shown: val, or test where nothing was held out
    target: Reached | None
    images_per_s: float
    parameters: float

    @property
    def started(self) -> int:
        return len(self.values) + len(self.diverged)


@dataclass(frozen=True)
class Compared:
    """A group against the baseline of its block: ours - theirs, in the metric's units."""

    by: str
    ours: Row
    theirs: Row
    sign: int  # +1 where more is better
    found: st.Difference
    twins: tuple[Twin, ...]
    differences: tuple[float, ...]
    missing: tuple[Twin, ...]  # twins without a finished run on both sides
    chance: float  # 95 % of differences between two single runs of one configuration lie within ±chance
    delta: float | None
    confounders: tuple[str, ...]
    exact: float  # p of the sign flips
    correlation: float
    secondary: st.Difference  # at the epoch that val chose
    p_adjusted: float = math.nan
    outcome: str = ""
    plan: Plan | None = None

    @property
    def floor(self) -> float:
        """What the mean difference must exceed besides its test: 1.96 f / sqrt(n)."""
        return self.chance / math.sqrt(max(self.found.n, 1))

    @property
    def ahead(self) -> int:
        """Twins in which this group is the better one."""
        return sum(self.sign * difference > 0 for difference in self.differences)

    @property
    def provisional(self) -> bool:
        return self.found.n < ENOUGH


@dataclass(frozen=True)
class Comparison:
    metric: Metric
    grouping: Grouping
    rows: tuple[Row, ...]
    compared: tuple[Compared, ...]
    problems: tuple[Problem, ...]
    looks: tuple[Look, ...]
    notes: tuple[str, ...]

    @property
    def family(self) -> int:
        """How many comparisons Holm's adjustment covers."""
        return len(self.compared)

    def of(self, row: Row) -> Compared | None:
        return next((one for one in self.compared if one.ours is row), None)


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
    """The verdict over runs; raises UserError where there is nothing to compare or a name is unknown."""
    used, more = _with_metric(runs, metric)
    grouping, measure = group(used, by, baseline), Metric(metric)
    rows = tuple(row for block in grouping.blocks() for row in _rows(block, measure, target))
    by_group = {id(row.group): row for row in rows}
    pairs = [(row, reference) for row in rows if (reference := grouping.reference(row.group))]
    found = [_compared(row, by_group[id(reference)], measure, grouping, delta) for row, reference in pairs]
    adjusted = st.holm([one.found.p if one.found.n >= 3 else math.nan for one in found])
    found = [_judged(one, p) for one, p in zip(found, adjusted, strict=True)]
    return Comparison(
        measure,
        grouping,
        rows,
        tuple(found),
        (*problems, *more, *grouping.problems),
        (*looks, *_look(rows, looks)),
        _notes(grouping, rows, found),
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


def stuck(run: Run) -> bool:
    """Diverged, by the declared rule: it stopped at a loss that was not finite, or it ended at chance.

    At chance is a test accuracy of at most 1/c + 3 sqrt((1/c)(1 - 1/c) / N) with c classes and N images.
    """
    accuracy = run.final.get(METRIC, math.nan)
    if run.diverged or any(math.isinf(v) or math.isnan(v) for v in run.final.values()):
        return True
    if not run.classes or "test" not in run.images:
        return False
    chance = 1 / run.classes
    return accuracy <= chance + 3 * math.sqrt(chance * (1 - chance) / run.images["test"])


def _with_metric(runs: Sequence[Run], metric: str) -> tuple[list[Run], list[Problem]]:
    if not runs:
        raise UserError("no finished run to compare")
    used = [run for run in runs if run.diverged or metric in run.final]
    if not any(metric in run.final for run in used):
        names = sorted({key for run in runs for key in run.final})
        if metric in names or not names:
            raise UserError(f"no finished run to compare (all {len(runs)} diverged)")
        raise bad_choice("--metric", metric, names)
    without = [run for run in runs if run not in used]
    return used, [Problem(run.folder, f"no {metric} among its final metrics") for run in without]


def _rows(groups: Sequence[Group], metric: Metric, target: float | None) -> list[Row]:
    """The rows of one block, which share split and target."""
    split = watched([run for one in groups for run in one.runs])
    if target is None:
        target = default_target([one.runs for one in groups], f"{split}/accuracy")
    return [_row(one, metric, split, target) for one in groups]


def _row(group: Group, metric: Metric, split: str, target: float | None) -> Row:
    ended = [run for run in group.runs if not stuck(run)]
    values = {run.twin: metric.scale * run.final[metric.key] for run in ended}
    secondary = {}
    for where in ("final", "best"):
        for key in SECONDARY:
            scale = Metric(key).scale
            found = [scale * getattr(run, where)[key] for run in ended if key in getattr(run, where)]
            if found:
                secondary[f"{where} {key}"] = (len(found), *st.mean_sd(found))
    return Row(
        group,
        values,
        tuple(run.twin for run in group.runs if stuck(run)),
        *st.mean_sd(list(values.values())),
        secondary,
        {run.twin: metric.scale * run.best[metric.key] for run in ended if metric.key in run.best},
        split,
        None if target is None else reached(group.runs, split, target),
        st.mean_sd([run.images_per_s for run in ended])[0],
        next((run.parameters for run in group.runs if run.parameters > 0), math.nan),
    )


def _compared(ours: Row, theirs: Row, metric: Metric, grouping: Grouping, delta: float | None) -> Compared:
    twins = tuple(twin for twin in ours.values if twin in theirs.values)
    every = {run.twin for row in (ours, theirs) for run in row.group.runs}
    pairs = [(ours.values[twin], theirs.values[twin]) for twin in twins]
    differences = tuple(a - b for a, b in pairs)
    found = (
        st.paired(ours.values, theirs.values)
        if twins
        else st.welch([*ours.values.values()], [*theirs.values.values()])
    )
    run = ours.group.runs[0]
    if delta is None and metric.is_accuracy:
        delta = DELTAS.get(run.dataset)
    return Compared(
        grouping.by or "",
        ours,
        theirs,
        metric.sign,
        found,
        twins,
        differences,
        tuple(sorted(every - set(twins), key=str)) if twins else (),
        _chance(ours, theirs, metric),
        delta,
        tuple(grouping.confounders(ours.group, theirs.group)),
        st.sign_flip(differences),
        st.correlation([a for a, _ in pairs], [b for _, b in pairs]),
        st.paired(ours.best, theirs.best),
    )


def _chance(ours: Row, theirs: Row, metric: Metric) -> float:
    """1.96 f in points, for an accuracy on a known number of images; else nan, and the floor is not held."""
    images = ours.group.runs[0].images.get(metric.key.partition("/")[0])
    if not metric.is_accuracy or metric.key.startswith("train") or not images:
        return math.nan
    if not ours.values or not theirs.values:
        return math.nan
    errors = (1 - ours.mean / 100, 1 - theirs.mean / 100)
    return 1.96 * 100 * st.chance_sd(*errors, images)


def _judged(one: Compared, p: float) -> Compared:
    outcome = judge(one.found, p, one.floor, one.delta, one.sign)
    decided = outcome in DECIDED or outcome in ("identical", "constant")
    more = plan(one.found, one.delta, decided)
    return replace(one, p_adjusted=p, outcome=outcome, plan=more)


def _look(rows: Sequence[Row], looks: Sequence[Look]) -> list[Look]:
    """This look at the groups, unless the last one saw as many runs of each."""
    seen = {row.group.name: len(row.values) for row in rows}
    if looks and looks[-1].get("runs") == seen:
        return []
    return [{"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "runs": seen}]


def _notes(grouping: Grouping, rows: Sequence[Row], found: Sequence[Compared]) -> tuple[str, ...]:
    notes = list(grouping.notes)
    alone = [row.group.name for row in rows if not any(row in (one.ours, one.theirs) for one in found)]
    if alone and len(rows) > 1:
        why = (
            "no baseline agrees with them in every other key"
            if grouping.by
            else "nothing but the data set differs"
        )
        notes.append(f"not compared ({why}): {', '.join(alone)}")
    if any(run.fold is not None for row in rows for run in row.group.runs):
        notes.append(
            "folds share training images, so intervals over them are too narrow (Nadeau and Bengio 2003)"
        )
    if any(math.isnan(one.chance) and one.found.n for one in found):
        notes.append(
            "the noise of the test set is not known for this metric or data; no difference is held against it"
        )
    return tuple(notes)
