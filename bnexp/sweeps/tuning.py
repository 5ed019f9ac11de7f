"""Tuning: each arm tries the same values of the intervals, and validation chooses for each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hydra.core.override_parser.types import IntervalSweep
from omegaconf import DictConfig, OmegaConf

from bnexp.config.overrides import override_values
from bnexp.errors import UserError
from bnexp.report.analysis.tuning import Arm, ArmTuning, arm_of, tune
from bnexp.report.read.design import Interval, TuningDesign
from bnexp.report.read.runs import TUNING_FOLDER, read_runs
from bnexp.runs.identity import PAIRING_KEYS
from bnexp.sweeps.tree_search import POINTS_AT_ONCE, TreeSearch

FIRST_TUNING_SEED = 1_000_000_000  # far from the seeds that anybody types
LOG_KEYS = ("optimizer.lr", "optimizer.weight_decay")  # on a logarithmic scale unless tagged otherwise
MAX_INTERVALS = 3
WIDENED_LINEAR = 0.5  # of the interval's length; a logarithmic one gets a decade
TAGS = ("log", "linear")
Overrides = list[str]


def read_intervals(sweeps: Mapping[str, IntervalSweep], config: DictConfig) -> tuple[Interval, ...]:
    """The intervals as typed: ``optimizer.lr=tag(log,interval(0.001,10))``.

    Raises UserError for an interval that is empty, reversed, not finite, or logarithmic over zero; for an
    unknown tag; and for more than three.
    """
    if paired := [key for key in sweeps if key.lstrip("+") in PAIRING_KEYS]:
        raise UserError(f"{paired[0]}=interval(...): repeats a run and is not tuned; give a list or a range")
    if len(sweeps) > MAX_INTERVALS:
        raise UserError(f"{', '.join(sweeps)}: at most {MAX_INTERVALS} intervals are tuned together")
    return tuple(_read_interval(key, sweep, config) for key, sweep in sweeps.items())


def _read_interval(key: str, sweep: IntervalSweep, config: DictConfig) -> Interval:
    low, high = float(sweep.start or 0), float(sweep.end or 0)
    text, name = f"{key}=interval({low:g},{high:g})", key.lstrip("+")
    tags = set(sweep.tags)
    if tags - set(TAGS) or len(tags) > 1:
        raise UserError(f"{key}: tag({','.join(sorted(map(str, tags)))}): must be log or linear")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"{text}: must go from a number to a larger one")
    default = OmegaConf.select(config, name)
    if isinstance(default, str | bool) and not isinstance(default, int | float):
        raise UserError(f"{text}: {name}={default} is no number; a list compares its values")
    is_log = "log" in tags or (name in LOG_KEYS and not tags)
    if is_log and low <= 0:
        linear = f"tag(linear,interval({low:g},{high:g}))"
        raise UserError(f"{text}: a logarithmic scale starts above 0; a linear one is {linear}")
    is_integer = isinstance(default, int) and not isinstance(default, bool)
    return Interval(key, low, high, is_log, is_integer)


class Tuning:
    """``arms`` are the overrides of each arm, without a seed; ``tuned_arms`` those with the chosen values."""

    def __init__(self, arms: Sequence[Overrides], design: TuningDesign, sweep: Path) -> None:
        self.arms, self.design, self.folder = list(arms), design, sweep / TUNING_FOLDER
        self.tuned_arms: list[Overrides] = []
        self.standings: tuple[str, ...] = ()  # what was chosen for each arm
        self._results: dict[Arm, ArmTuning] = {}
        self._points: set[tuple[float, ...]] = set()  # those of the trials so far

    def batches(self) -> Iterator[list[Overrides]]:
        """The jobs of the trials. Raises UserError where every run of an arm was lost."""
        yield from self._search(self.design.intervals)
        edges = {edge for arm in self.arms for edge in self._result(arm).edges}
        if edges:
            self.design = replace(self.design, is_widened=True)
            yield from self._search(*_beyond(self.design.intervals, edges))
        self.tuned_arms = [self.tuned(arm) for arm in self.arms]
        shared = set.intersection(*map(set, self.arms))
        names = [" ".join(text for text in arm if text not in shared) or "all" for arm in self.arms]
        self.standings = tuple(
            f"{name}: best {' '.join(self._chosen(arm))}, validation {score:.2f} %"
            for name, arm in zip(names, self.arms, strict=True)
            if (score := self._result(arm).best.score)
        )

    def _search(self, *regions: Sequence[Interval]) -> Iterator[list[Overrides]]:
        """The trials of every arm, shared between the regions of the intervals."""
        if self.design.search == "tpe":
            for region in regions:
                yield from self._search_tree(region, self.design.trials // len(regions))
            return
        count = self.design.trials // len(regions)
        points = [point for region in regions for point in sobol_points(region, count)]
        # Whole numbers come again beyond an edge, and a region can have fewer of them than trials.
        points = [list(point) for point in dict.fromkeys(map(tuple, points))]
        points = [point for point in points if point_values(point) not in self._points]
        if points:
            yield self.jobs({tuple(arm): points for arm in self.arms})
            self.read()

    def _search_tree(self, region: Sequence[Interval], count: int) -> Iterator[list[Overrides]]:
        """``count`` points of a region for each arm, by a search of its own."""
        searches = {tuple(arm): TreeSearch(region) for arm in self.arms}
        for first in range(0, count, POINTS_AT_ONCE):
            points = {arm: s.ask(min(POINTS_AT_ONCE, count - first)) for arm, s in searches.items()}
            yield self.jobs(points)
            self.read()
            for arm, search in searches.items():
                search.tell([self.score_of(list(arm), point) for point in points[arm]])

    def tuned(self, job: Overrides) -> Overrides:
        """The overrides of a job with the values that were chosen for its arm."""
        return [*job, *self._chosen(job)]

    def jobs(self, points: Mapping[tuple[str, ...], Sequence[Overrides]]) -> list[Overrides]:
        """The jobs of each arm's points; the seeds of a point side by side."""
        self._points |= {point_values(point) for arm_points in points.values() for point in arm_points}
        most = max(map(len, points.values()))
        return [
            [f"seed={seed}", *arm, *arm_points[number]]
            for number in range(most)
            for seed in self.design.seeds
            for arm, arm_points in points.items()
            if number < len(arm_points)
        ]

    def read(self) -> None:
        """Reads the runs that have ended. Raises UserError where all those of an arm were lost."""
        runs, _ = read_runs([self.folder])
        self._results = tune(runs, self.design, self._points)
        for arm in self.arms:
            if self._result(arm).is_hopeless:
                name = " ".join(arm) or "tuning"
                raise UserError(f"{name}: every trial diverged or stayed at chance; choose another interval")

    def _result(self, arm: Overrides) -> ArmTuning:
        keys = [interval.key for interval in self.design.intervals]
        result = self._results.get(arm_of(override_values(arm), keys))
        if result is None:
            raise UserError(f"{' '.join(arm) or 'tuning'}: no trial has ended with all its seeds")
        return result

    def score_of(self, arm: Overrides, point: Overrides) -> float | None:
        """The mean validation accuracy of a point; None where it was lost or has not ended."""
        values = point_values(point)
        trial = next((trial for trial in self._result(arm).trials if trial.values == values), None)
        return None if trial is None or trial.lost_runs else trial.score

    def _chosen(self, arm: Overrides) -> Overrides:
        best = self._result(arm).best
        return [i.assignment(value) for i, value in zip(self.design.intervals, best.values, strict=True)]


def point_values(point: Overrides) -> tuple[float, ...]:
    return tuple(float(override.partition("=")[2]) for override in point)


def sobol_points(intervals: Sequence[Interval], count: int) -> list[Overrides]:
    """``count`` points of a scrambled Sobol sequence (scipy.stats.qmc), always the same, each one once."""
    from scipy.stats import qmc

    power = math.ceil(math.log2(max(count, 2)))
    positions = qmc.Sobol(len(intervals), scramble=True, seed=0).random_base2(power)[:count]
    points = [[i.assignment(i.value_at(u)) for i, u in zip(intervals, row, strict=True)] for row in positions]
    return [list(point) for point in dict.fromkeys(map(tuple, points))]


def _beyond(intervals: Sequence[Interval], edges: set[tuple[str, str]]) -> list[tuple[Interval, ...]]:
    """The regions beyond each edge: a decade of a logarithmic interval, half the length of another."""
    regions = []
    for key, side in sorted(edges):
        region = []
        for interval in intervals:
            if interval.key != key:
                region.append(interval)
                continue
            step = WIDENED_LINEAR * (interval.high - interval.low)
            if side == "high":
                end = interval.high * 10 if interval.is_log else interval.high + step
                region.append(replace(interval, low=interval.high, high=end))
            else:
                end = interval.low / 10 if interval.is_log else interval.low - step
                region.append(replace(interval, low=end, high=interval.low))
        regions.append(tuple(region))
    return regions
