"""Which jobs a sweep trains, batch after batch: all at once, or as many seeds as the answer takes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from bnexp.errors import UserError
from bnexp.report.analysis.sweep_verdict import look_at
from bnexp.report.content.standings import standings
from bnexp.report.read.design import Design, read_design, write_design
from bnexp.runs.job import Job

Overrides = list[str]  # of one job


class SeedPlan(Protocol):
    """The batches of a sweep's jobs."""

    standings: tuple[str, ...]  # what each comparison stands at, in a line

    def check(self) -> None:
        """Raises UserError where the sweep's folder holds another plan."""
        ...

    def save(self) -> None:
        """Writes what the report must know."""
        ...

    def batches(self) -> Iterator[list[Overrides]]:
        """The jobs to train next; the runs of the batch before have ended."""
        ...

    def note_jobs(self, jobs: Sequence[Job]) -> None:
        """``jobs`` are those of the newest batch."""
        ...


class FixedSeeds:
    """All jobs in one batch."""

    standings: tuple[str, ...] = ()

    def __init__(self, jobs: list[Overrides], folder: Path) -> None:
        self.jobs, self.folder = jobs, folder

    def check(self) -> None:
        if read_design(self.folder) is not None:
            hint = "carry on with seed=auto, or choose another folder"
            raise UserError(f"{self.folder}: holds a sweep that plans its seeds; {hint}")

    def save(self) -> None:
        pass

    def batches(self) -> Iterator[list[Overrides]]:
        yield self.jobs

    def note_jobs(self, jobs: Sequence[Job]) -> None:
        pass


class PlannedSeeds:
    """``seed=auto``: seeds 0, 1, ... of each arm until every comparison is decided, or the last look is over.

    Nothing but the runs in the folder decides: after an interruption the same batches come again.
    """

    def __init__(self, arms: list[Overrides], design: Design, folder: Path) -> None:
        self.arms, self.design, self.folder = arms, design, folder
        self.standings: tuple[str, ...] = ()
        self._arm_of: dict[str, Overrides] = {}  # the name of a job's folder -> its arm

    def check(self) -> None:
        earlier = read_design(self.folder)
        if earlier is None:
            return
        if not earlier.is_same_plan(self.design):
            raise UserError(
                f"{self.folder}: holds a sweep with another plan (sweep.looks={list(earlier.looks)} for"
                f" {', '.join(earlier.arms)}); choose another folder"
            )
        self.design = replace(self.design, reached=earlier.reached)

    def save(self) -> None:
        write_design(self.folder, self.design)

    def note_jobs(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            arm = [override for override in job.overrides if not override.startswith("seed=")]
            self._arm_of[job.path.name] = arm

    def batches(self) -> Iterator[list[Overrides]]:
        arms, first = self.arms, 0
        for look in self.design.looks:
            yield [[f"seed={seed}", *arm] for seed in range(first, look) for arm in arms]
            self.design = replace(self.design, reached=max(look, self.design.reached))
            write_design(self.folder, self.design)
            arms = self._open_arms(look)
            if not arms:
                return
            first = look

    def _open_arms(self, look: int) -> list[Overrides]:
        """The arms that need more seeds: those of open comparisons, with their baselines."""
        try:
            verdict, open_comparisons = look_at([Path(os.path.relpath(self.folder))], self.design, look)
        except UserError:  # no run has ended that could be compared
            return []
        self.standings = tuple(standings(verdict))
        groups = [summary.group for c in open_comparisons for summary in (c.candidate, c.baseline)]
        folders = {Path(run.folder).name for group in groups for run in group.runs}
        open_arms = [arm for name, arm in self._arm_of.items() if name in folders]
        return [arm for arm in self.arms if arm in open_arms]
