"""Trains the jobs of a sweep batch by batch, and keeps ``sweep.json``, which says what the jobs are."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bnexp.errors import UserError
from bnexp.runs.folder import discard
from bnexp.runs.job import Job
from bnexp.runs.summary import load_summary
from bnexp.sweeps.job_folders import ended_jobs
from bnexp.sweeps.job_warnings import JobWarnings
from bnexp.sweeps.launchers.launcher import JobEnd, UnitLauncher
from bnexp.sweeps.plan_file import PlannedJob, SweepPlan, write_plan
from bnexp.sweeps.units import make_units, recipe_of


class BatchTrainer:
    """``planned`` has the jobs of all batches so far.

    ``messages`` has a line for each unit that was lost, and for each job that failed without a record.
    ``warnings`` are those of the jobs that were trained.
    """

    def __init__(self, folder: Path, launcher: UnitLauncher, axes: list[str]) -> None:
        self.folder, self.launcher, self.axes = folder, launcher, axes
        self.planned: list[Job] = []
        self.messages: list[str] = []
        self.warnings = JobWarnings()
        self._mistakes: list[JobEnd] = []  # before the first step
        self._has_other_ends = False  # of jobs that met no mistake, now or before
        self._ended = ended_jobs(folder)  # before this start of the sweep
        self._started = time.time()

    def add(self, jobs: Sequence[Job], standings: tuple[str, ...]) -> None:
        """Plans a batch; ``standings`` are what the comparisons stand at before it, for the live view."""
        self.planned += jobs
        self._has_other_ends |= any(job.config_hash in self._ended for job in jobs)
        self.write_plan(self.planned, standings)

    def train(self, jobs: Sequence[Job]) -> bool:
        """Trains the jobs that have not ended before; whether the sweep goes on."""
        waiting = [job for job in jobs if job.config_hash not in self._ended]
        if skipped := len(jobs) - len(waiting):
            print(f"{skipped} of {len(jobs)} jobs ended before: skipped")
        stops_at_failure = any(job.values["on_failure"] == "stop" for job in jobs)
        goes_on = True

        def on_end(ends: Sequence[JobEnd]) -> bool:
            nonlocal goes_on
            for end in ends:
                self.warnings.add(end)
                if end.code == 2 and _has_record(end) and not any(end.job.path.glob("checkpoints/*")):
                    self._mistakes.append(end)
                    continue
                self._has_other_ends = True
                if end.code and not _has_record(end):
                    lines = (line.removeprefix("bnexp: ") for line in end.lines)
                    self.messages += [f"{end.job.label}: {line}" for line in lines]
            stops = stops_at_failure and any(end.code in (1, 2) for end in ends)
            goes_on = goes_on and not stops and not self.mistakes()
            return goes_on

        units = make_units(waiting, self.launcher.fuse, self.launcher.jobs_at_once(waiting))
        self.messages += self.launcher.run(units, on_end) if units else []
        return goes_on

    def mistakes(self) -> list[str]:
        """The lines of the user's mistakes, each once, if every recipe has met one and no job has a result.

        Further seeds would meet them too. Some mistakes show when a job starts, as an image that is broken.
        """
        recipes = {recipe_of(end.job) for end in self._mistakes}
        if self._has_other_ends or recipes != {recipe_of(job) for job in self.planned}:
            return []
        return list(dict.fromkeys(line for end in self._mistakes for line in end.lines))

    def discard_records(self) -> None:
        """Removes what the jobs that met a mistake have written."""
        for end in self._mistakes:
            discard(end.job.path, [end.job.path])

    def write_plan(self, jobs: Sequence[Job], standings: tuple[str, ...] = ()) -> None:
        """Writes ``sweep.json`` with these jobs."""
        planned = tuple(
            PlannedJob(
                folder=os.path.relpath(job.folder, self.folder), label=job.label,
                overrides=tuple(job.overrides), config_hash=job.config_hash, epochs=int(job.values["epochs"]),
                skipped=job.config_hash in self._ended,
            )
            for job in jobs
        )  # fmt: skip
        launcher, at_once = self.launcher.name, self.launcher.jobs_at_once(jobs)
        plan = SweepPlan(
            planned, shlex.join(sys.argv), self._started, launcher, at_once,
            os.getpid(), socket.gethostname(), tuple(self.axes), standings,
        )  # fmt: skip
        write_plan(self.folder, plan)


def _has_record(end: JobEnd) -> bool:
    """Whether the folder of a job that failed says how. It does not where the job was refused its folder."""
    try:
        status = load_summary(end.job.path)["status"]
    except UserError:
        return False
    return status not in ("running", "finished") and not (status == "diverged" and end.code == 2)
