"""Which jobs a sweep trains, batch after batch: all at once, or as many seeds as the answer takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bnexp.config.overrides import split_override
from bnexp.config.schema import Sweep, parse
from bnexp.errors import UserError
from bnexp.report.analysis.sweep_verdict import look_at
from bnexp.report.content.standings import standings
from bnexp.report.read.design import Design, Interval, TuningDesign, read_design, write_design
from bnexp.report.read.runs import TUNING_FOLDER
from bnexp.runs.job import Job
from bnexp.sweeps.axes import Axes
from bnexp.sweeps.tree_search import import_optuna
from bnexp.sweeps.tuning import FIRST_TUNING_SEED, Tuning

Overrides = list[str]  # of one job


class Batch(NamedTuple):
    """Jobs that are trained next; ``subfolder`` is in the sweep's folder, "" for the jobs of the verdict."""

    jobs: list[Overrides]
    subfolder: str = ""


class SeedPlan(Protocol):
    """The batches of a sweep's jobs."""

    @property
    def standings(self) -> tuple[str, ...]:
        """What each comparison stands at, in a line."""
        ...

    def batches(self) -> Iterator[Batch]:
        """The runs of a batch have ended when the next one is asked for. Raises UserError."""
        ...

    def note_jobs(self, jobs: Sequence[Job]) -> None:
        """``jobs`` are those of the newest batch."""
        ...


class DesignRecord:
    """The design of a sweep that plans its seeds or tunes, in memory and on disk; None for other sweeps."""

    def __init__(self, sweep: Path, design: Design | None) -> None:
        self.sweep, self._design = sweep, design

    @property
    def design(self) -> Design:
        assert self._design is not None  # only asked for where something is planned
        return self._design

    def check(self) -> None:
        """Raises UserError where the sweep's folder holds another plan."""
        earlier = read_design(self.sweep)
        if earlier is None:
            return
        if self._design is None:
            hint = "carry on with its own command or bnexp-resume, or choose another folder"
            raise UserError(f"{self.sweep}: holds a sweep that plans its jobs; {hint}")
        if not earlier.is_same_plan(self._design):
            looks = f"sweep.looks={list(earlier.looks)} " if earlier.looks else ""
            raise UserError(
                f"{self.sweep}: holds a sweep with another plan ({looks}for {', '.join(earlier.arms)});"
                " choose another folder"
            )
        self._design = replace(self._design, reached=earlier.reached)

    @property
    def has_plan(self) -> bool:
        return self._design is not None

    def describe(self, jobs: Sequence[Job]) -> None:
        """Notes what identifies the plan; ``jobs`` are those of the first batch.

        Raises UserError for a sweep that tunes without validation images.
        """
        if self._design is None:
            return
        configs = [parse(job.values) for job in jobs]
        if self._design.tuning and not all(config.dataset.has_val for config in configs):
            raise UserError(
                "dataset.val_size=0: an interval is tuned on validation images; it must be above 0"
            )
        first_seed = [
            job for job, config in zip(jobs, configs, strict=True) if config.seed == configs[0].seed
        ]
        keys = {"seed", *(interval.key for interval in self._intervals)}
        labels = [
            " ".join(text for text in job.label.split(" ") if split_override(text)[0] not in keys)
            for job in first_seed
        ]
        self._design = replace(
            self._design,
            arms=tuple(dict.fromkeys(labels)),
            config_hashes=tuple(job.config_hash for job in first_seed),
            epoch=configs[0].report.epoch,
            delta=min((c.dataset.delta for c in configs if c.dataset.delta is not None), default=None),
        )

    @property
    def _intervals(self) -> tuple[Interval, ...]:
        return self.design.tuning.intervals if self.design.tuning else ()

    def save(self, **changes: Any) -> None:
        if self._design is not None:
            self._design = replace(self._design, **changes)
            write_design(self.sweep, self._design)


class FixedSeeds:
    """All jobs in one batch."""

    standings: tuple[str, ...] = ()

    def __init__(self, jobs: list[Overrides]) -> None:
        self.jobs = jobs

    def batches(self) -> Iterator[Batch]:
        yield Batch(self.jobs)

    def note_jobs(self, jobs: Sequence[Job]) -> None:
        pass


class PlannedSeeds:
    """``seed=auto``: seeds 0, 1, ... of each arm until every comparison is decided, or the last look is over.

    Nothing but the runs in the folder decides: after an interruption the same batches come again.
    """

    def __init__(self, arms: list[Overrides], record: DesignRecord) -> None:
        self.arms, self.record = arms, record
        self.standings: tuple[str, ...] = ()
        self._arm_of: dict[str, Overrides] = {}  # the name of a job's folder -> its arm

    def batches(self) -> Iterator[Batch]:
        arms, first = self.arms, 0
        for look in self.record.design.looks:
            yield Batch([[f"seed={seed}", *arm] for seed in range(first, look) for arm in arms])
            self.record.save(reached=max(look, self.record.design.reached))
            arms = self._open_arms(look)
            if not arms:
                return
            first = look

    def note_jobs(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            arm = [override for override in job.overrides if not override.startswith("seed=")]
            self._arm_of[job.path.name] = arm

    def _open_arms(self, look: int) -> list[Overrides]:
        """The arms that need more seeds: those of open comparisons, with their baselines."""
        folder = Path(os.path.relpath(self.record.sweep))
        try:
            verdict, open_comparisons = look_at([folder], self.record.design, look)
        except UserError:  # no run has ended that could be compared
            return []
        self.standings = tuple(standings(verdict))
        groups = [summary.group for c in open_comparisons for summary in (c.candidate, c.baseline)]
        names = {Path(run.folder).name for group in groups for run in group.runs}
        open_arms = [arm for name, arm in self._arm_of.items() if name in names]
        return [arm for arm in self.arms if arm in open_arms]


class TunedSeeds:
    """First the trials of every arm, then the seeds of each arm at its best values.

    ``plan_seeds`` makes the plan of the arms with their chosen values.
    """

    def __init__(
        self, tuning: Tuning, plan_seeds: Callable[[Tuning], SeedPlan], record: DesignRecord
    ) -> None:
        self.tuning, self.plan_seeds, self.record = tuning, plan_seeds, record
        self._seeds: SeedPlan | None = None

    @property
    def standings(self) -> tuple[str, ...]:
        return self.tuning.standings + (self._seeds.standings if self._seeds else ())

    def batches(self) -> Iterator[Batch]:
        for jobs in self.tuning.batches():
            yield Batch(jobs, TUNING_FOLDER)
        self.record.save(tuning=self.tuning.design)
        self._seeds = self.plan_seeds(self.tuning)
        yield from self._seeds.batches()

    def note_jobs(self, jobs: Sequence[Job]) -> None:
        if self._seeds is not None:
            self._seeds.note_jobs(jobs)


def plan_design(axes: Axes, settings: Sweep) -> Design | None:
    """What must be written down: the looks of ``seed=auto``, the intervals; None where there is neither."""
    if not axes.plans_seeds and not axes.intervals:
        return None
    tuning = None
    if axes.intervals:
        seeds = tuple(range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + settings.tuning_seeds))
        tuning = TuningDesign(axes.intervals, settings.trials, seeds, settings.search)
    return Design(looks=settings.looks if axes.plans_seeds else (), arms=(), tuning=tuning)


def first_jobs(axes: Axes, settings: Sweep) -> list[Overrides]:
    """The jobs that are trained in any case."""
    plan = make_seed_plan(axes, DesignRecord(Path(), plan_design(axes, settings)))
    return next(plan.batches()).jobs


def make_seed_plan(axes: Axes, record: DesignRecord) -> SeedPlan:
    def plan_seeds(tuning: Tuning | None = None) -> SeedPlan:
        if axes.plans_seeds:
            return PlannedSeeds(tuning.tuned_arms if tuning else axes.jobs, record)
        return FixedSeeds([tuning.tuned(job) for job in axes.jobs] if tuning else axes.jobs)

    if not axes.intervals:
        return plan_seeds()
    assert record.design.tuning is not None  # it has the intervals
    if record.design.tuning.search == "tpe":
        import_optuna()
    return TunedSeeds(Tuning(axes.arms, record.design.tuning, record.sweep), plan_seeds, record)
