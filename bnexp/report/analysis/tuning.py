"""What tuning has tried for each arm, and which value it chose. Validation alone decides."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from bnexp.report.analysis.group_summary import has_nonfinite_loss
from bnexp.report.read.design import Interval, TuningDesign
from bnexp.report.read.runs import Run
from bnexp.runs.chance import is_at_chance

CHOICE_METRIC = "val/accuracy"
NEARLY_BEST = 0.5  # points
Arm = tuple[tuple[str, str], ...]  # the overrides of an arm, without seed and tuned keys


@dataclass(frozen=True)
class Trial:
    """One point of the intervals: its values, and each tuning seed's final validation accuracy in percent.

    A run that diverged or is at chance counts as 0.
    """

    values: tuple[float, ...]
    scores: tuple[float, ...]
    lost_runs: int
    seconds: float

    @property
    def score(self) -> float:
        return statistics.fmean(self.scores)


@dataclass(frozen=True)
class ArmTuning:
    """All trials of one arm."""

    arm: Arm
    trials: tuple[Trial, ...]
    intervals: tuple[Interval, ...]

    @cached_property
    def best(self) -> Trial:
        """The trial in the middle of the plateau: of those within one standard error of the highest score.

        With one interval the plateau is the unbroken part around the highest score.
        """
        highest = max(self.trials, key=lambda trial: trial.score)
        limit = highest.score - self._standard_error()
        plateau = [trial for trial in self.trials if trial.score >= limit]
        if len(self.intervals) == 1:
            plateau = _unbroken(sorted(self.trials, key=lambda trial: trial.values), highest, limit)
        positions = [self._position(trial) for trial in plateau]
        middle = [statistics.fmean(coordinates) for coordinates in zip(*positions, strict=True)]
        return min(plateau, key=lambda trial: math.dist(self._position(trial), middle))

    @cached_property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """Where the chosen or the highest trial is the smallest or largest: ("optimizer.lr", "high")."""
        highest = max(self.trials, key=lambda trial: trial.score)
        edges = []
        for i, interval in enumerate(self.intervals):
            values = sorted(trial.values[i] for trial in self.trials)
            chosen = {highest.values[i], self.best.values[i]}
            ends = (("low", values[0]), ("high", values[-1]))
            edges += [(interval.key, side) for side, end in ends if end in chosen]
        return tuple(edges)

    @property
    def is_hopeless(self) -> bool:
        """Whether every run was lost."""
        return all(trial.score == 0 for trial in self.trials)

    @property
    def lost_share(self) -> float:
        return sum(trial.lost_runs for trial in self.trials) / sum(len(trial.scores) for trial in self.trials)

    @property
    def seconds(self) -> float:
        return sum(trial.seconds for trial in self.trials)

    @property
    def nearly_best_span(self) -> float:
        """How much of the first key's scale has nearly the best scores: in decades where logarithmic."""
        interval = self.intervals[0]
        best = self.best
        ordered = sorted(self.trials, key=lambda trial: trial.values)
        values = [trial.values[0] for trial in _unbroken(ordered, best, best.score - NEARLY_BEST)]
        return math.log10(values[-1] / values[0]) if interval.is_log else values[-1] - values[0]

    def _standard_error(self) -> float:
        """Of a trial's score, from the median variance between its seeds over all trials without a lost run.

        The mean variance would be that of the rates at which training fails now and then: it would make the
        plateau too wide. The median of s^2 is sigma^2 times the median of chi^2(k - 1) / (k - 1).
        """
        scores = [trial.scores for trial in self.trials if not trial.lost_runs and len(trial.scores) > 1]
        if not scores:
            return 0.0
        from scipy.special import chdtri

        seeds = len(self.trials[0].scores)
        variance = statistics.median(map(statistics.variance, scores))
        return math.sqrt(variance * (seeds - 1) / float(chdtri(seeds - 1, 0.5)) / seeds)

    def _position(self, trial: Trial) -> tuple[float, ...]:
        return tuple(i.position_of(value) for i, value in zip(self.intervals, trial.values, strict=True))


def _unbroken(ordered: Sequence[Trial], start: Trial, limit: float) -> list[Trial]:
    """The neighbours of ``start``, on both sides, until a score is below ``limit``."""
    first = last = ordered.index(start)
    while first > 0 and ordered[first - 1].score >= limit:
        first -= 1
    while last + 1 < len(ordered) and ordered[last + 1].score >= limit:
        last += 1
    return list(ordered[first : last + 1])


def expected_best(scores: Sequence[float]) -> list[float]:
    """The mean best score of n = 1, 2, ... trials drawn without replacement from these B.

    sum_j v_(j) C(B - j, n - 1) / C(B, n), v sorted downwards: unbiased (Tang et al. 2020).
    """
    ordered, b = sorted(scores, reverse=True), len(scores)
    return [
        sum(v * math.comb(b - j, n - 1) for j, v in enumerate(ordered, 1)) / math.comb(b, n)
        for n in range(1, b + 1)
    ]


def arm_of(overrides: Mapping[str, str], keys: Iterable[str]) -> Arm:
    """The overrides that make an arm: without the seed, and without the tuned ``keys``."""
    left_out = {"seed", *keys}
    return tuple(sorted((key, value) for key, value in overrides.items() if key not in left_out))


def tune(
    runs: Sequence[Run], design: TuningDesign, points: Collection[tuple[float, ...]] | None = None
) -> dict[Arm, ArmTuning]:
    """The trials of each arm, of the runs with a tuning seed. A trial counts once all its seeds have ended.

    Where ``points`` are given, other trials do not count.
    """
    keys = [interval.key for interval in design.intervals]
    members: dict[Arm, dict[tuple[float, ...], list[Run]]] = {}
    for run in runs:
        if run.seed in design.seeds and all(key in run.overrides for key in keys):
            values = tuple(float(run.overrides[key]) for key in keys)
            if points is not None and values not in points:
                continue
            members.setdefault(arm_of(run.overrides, keys), {}).setdefault(values, []).append(run)
    arms = {}
    for arm, points in members.items():
        trials = [
            _trial(values, group) for values, group in points.items() if len(group) == len(design.seeds)
        ]
        if trials:
            arms[arm] = ArmTuning(arm, tuple(trials), design.intervals)
    return arms


def tuning_of(run: Run, tuning: Mapping[Arm, ArmTuning]) -> ArmTuning | None:
    """The trials of the arm that a run of the verdict belongs to."""
    keys = [interval.key for result in tuning.values() for interval in result.intervals]
    return tuning.get(arm_of(run.overrides, keys))


def _trial(values: tuple[float, ...], runs: Sequence[Run]) -> Trial:
    accuracies = [_score(run) for run in sorted(runs, key=lambda run: run.seed)]
    seconds = [run.total_s for run in runs if math.isfinite(run.total_s)]
    return Trial(values, tuple(accuracies), sum(score == 0 for score in accuracies), sum(seconds))


def _score(run: Run) -> float:
    """Final validation accuracy in percent; 0 for a lost run."""
    accuracy = run.final.get(CHOICE_METRIC, math.nan)
    if has_nonfinite_loss(run) or math.isnan(accuracy):
        return 0.0
    if is_at_chance(run.final.get("test/accuracy", math.nan), run.majority, run.predictions.get("final", ())):
        return 0.0
    return 100 * accuracy
