"""How far a sweep has come, read from its folder alone: for the live view, bnexp-watch and bnexp-plan.

Imports no torch.
"""

from __future__ import annotations

import csv
import json
import math
import os
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from bnexp.report.read.looks import RECORD_FILE
from bnexp.report.read.metrics_csv import METRICS_FILE
from bnexp.runs.lock import is_locked
from bnexp.runs.summary import SUMMARY
from bnexp.sweeps.plan_file import PLAN_FILE, PlannedJob, SweepPlan, printable, read_plan, read_summary

WAITING, RUNNING, FINISHED, DIVERGED = "waiting", "running", "finished", "diverged"
FAILED, INTERRUPTED, KILLED = "failed", "interrupted", "lost"
ENDED = (FINISHED, DIVERGED, FAILED, INTERRUPTED, KILLED)
TAIL_BYTES = 4000  # the last 20 to 30 rows of metrics.csv
LOCK_CHECK_S = 5.0  # how often the lock of a run is looked at that writes nothing
SETTLING_S = 2.0  # a folder's time may stay the same for two changes within this time
QUIET_S = 10.0  # a sweep whose jobs have all ended may add others within this time


@dataclass(frozen=True)
class JobStatus:
    job: PlannedJob
    state: str = WAITING
    epoch: int = 0  # completed epochs
    epochs: int = 0  # of the whole run; 0: not known
    accuracy: float | None = None  # of the newest epoch: val, else train
    test_accuracy: float | None = None  # at the best epoch, else the final one
    seconds: float | None = None  # of a job that has ended, from its start to its end
    epoch_s: float | None = None  # median of the newest epochs, without the first where there are others
    has_warm_epochs: bool = False  # whether epoch_s is of epochs after the first
    changed: float = 0.0  # when an ended job ended or a running one had its newest epoch, seconds since 1970
    error: str = ""

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    @property
    def is_final(self) -> bool:
        """Whether the job stays in this state: a cluster may start an interrupted or lost job again."""
        return self.state in (FINISHED, DIVERGED, FAILED)


@dataclass(frozen=True)
class SweepStatus:
    """One look at a sweep; ``time`` is when, in seconds since 1970."""

    plan: SweepPlan
    jobs: Sequence[JobStatus]
    time: float

    @cached_property
    def counts(self) -> Counter[str]:
        """How many jobs are in each state."""
        return Counter(job.state for job in self.jobs)

    @property
    def done(self) -> int:
        """Jobs that need not run again: finished or diverged, also before this start."""
        return self.counts[FINISHED] + self.counts[DIVERGED]

    @property
    def skipped(self) -> int:
        return sum(job.job.skipped for job in self.jobs)

    def running(self) -> list[JobStatus]:
        return [job for job in self.jobs if job.state == RUNNING]

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is to be expected from this sweep."""
        if self.counts[RUNNING]:
            return False
        is_alive = process_is_alive(self.plan)
        if is_alive is False:
            return True
        can_return = is_alive and (
            self.counts[INTERRUPTED] or self.counts[KILLED]
        )  # a cluster's queue does so
        if self.counts[WAITING] or can_return:
            return False
        return self.time - max((job.changed for job in self.jobs), default=self.plan.started) > QUIET_S


def process_is_alive(plan: SweepPlan) -> bool | None:
    """Whether the sweep's process runs; None if that cannot be told, as for one on another machine."""
    if plan.pid is None or plan.host != socket.gethostname() or os.name == "nt":
        return None
    try:
        os.kill(plan.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True


class SweepReader:
    """Reads a sweep's folder again and again. A look opens only the files that have changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._plan: SweepPlan | None = None
        self._plan_version: object = None
        self._jobs: list[JobStatus] = []
        self._open: list[int] = []  # the numbers of the jobs that have not ended
        self._files: dict[int, _RunFiles] = {}
        self._names = _FolderNames(folder)

    def read(self) -> SweepStatus:
        """Raises UserError where the folder holds no sweep."""
        now = time.time()
        plan = self._read_plan()
        names = self._names.read()
        still_open = []
        for number in self._open:
            job = plan.jobs[number]
            if PurePosixPath(job.folder).parts[0] in names:
                files = self._files.setdefault(number, _RunFiles(self.folder / job.folder))
                self._jobs[number] = files.read(job, plan.started)
            if not self._jobs[number].is_final:
                still_open.append(number)
        self._open = still_open
        return SweepStatus(plan, tuple(self._jobs), now)

    def _read_plan(self) -> SweepPlan:
        """The plan; where it has changed, all jobs count as not yet read."""
        version = _version(self.folder / PLAN_FILE) or _version(self.folder)
        if self._plan is None or version != self._plan_version:
            plan = read_plan(self.folder)
            if self._plan is None or plan != self._plan:
                is_same_start = self._plan is not None and plan.started == self._plan.started
                known = {s.job: s for s in self._jobs if s.has_ended} if is_same_start else {}
                self._plan, self._files = plan, {}
                self._jobs = [known.get(job, JobStatus(job, epochs=job.epochs)) for job in plan.jobs]
                self._open = [number for number, job in enumerate(self._jobs) if not job.is_final]
            self._plan_version = version
        return self._plan


class _FolderNames:
    """The names in a folder, listed again when the folder has changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: frozenset[str] = frozenset()
        self._version: object = None
        self._first_look = 0.0

    def read(self) -> frozenset[str]:
        version, now = _version(self.folder), time.monotonic()
        if version != self._version:
            self._version, self._first_look = version, now
        if now - self._first_look <= SETTLING_S:
            try:
                self._names = frozenset(os.listdir(self.folder))
            except OSError:
                self._names = frozenset()
        return self._names


class _RunFiles:
    """The files of one run that say how it goes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._summary: dict[str, Any] = {}
        self._rows: list[dict[str, float]] = []
        self._versions: tuple[object, object] = (None, None)
        self._lock_time = -math.inf
        self._is_locked = True

    def read(self, job: PlannedJob, sweep_started: float) -> JobStatus:
        versions = _version(self.folder / SUMMARY), _version(self.folder / METRICS_FILE)
        if versions[0] is None:
            return JobStatus(job, epochs=job.epochs)
        if versions[0] != self._versions[0]:
            self._summary = read_summary(self.folder)
        if versions[1] != self._versions[1]:
            self._rows = read_last_rows(self.folder / METRICS_FILE)
        has_changed, self._versions = versions != self._versions, versions
        changed = max(version[0] for version in versions if version is not None) / 1e9
        state = str(self._summary.get("status"))
        if state == RUNNING and not self._check_lock(has_changed):
            self._summary = read_summary(self.folder)  # it may have ended since the summary was read
            state = str(self._summary.get("status"))
            state = KILLED if state == RUNNING else state
        is_old = changed < sweep_started and state in (FAILED, DIVERGED, INTERRUPTED, KILLED)
        if state not in (RUNNING, *ENDED) or (is_old and not job.skipped):
            return JobStatus(job, epochs=job.epochs)
        return _job_status(job, state, self._summary, self._rows, changed)

    def _check_lock(self, has_changed: bool) -> bool:
        """Whether a process writes this run; one that has just written need not be asked."""
        now = time.monotonic()
        if now - self._lock_time > LOCK_CHECK_S or (has_changed and not self._is_locked):
            self._lock_time, self._is_locked = now, is_locked(self.folder)
        return self._is_locked


def _job_status(
    job: PlannedJob, state: str, summary: dict[str, Any], rows: list[dict[str, float]], changed: float
) -> JobStatus:
    newest = rows[-1] if rows else {}
    warm_rows = [row for row in rows if row["epoch"] > 1]
    times = sorted(row["epoch_s"] for row in (warm_rows or rows) if row.get("epoch_s", -1) >= 0)
    accuracies = (newest.get(f"{split}/accuracy") for split in ("val", "train"))
    status = JobStatus(
        job=job,
        state=state,
        epoch=int(newest.get("epoch", 0)),
        epochs=int(_number(summary.get("epochs")) or job.epochs),
        accuracy=next((accuracy for accuracy in accuracies if accuracy is not None), None),
        epoch_s=times[len(times) // 2] if times else None,
        has_warm_epochs=bool(warm_rows),
        changed=changed,
    )
    if state == RUNNING:
        return status
    final, best, times_of_run = (summary.get(key) for key in ("final", "best", "time"))
    test_accuracy = _value(best, "test/accuracy")
    return replace(
        status,
        test_accuracy=_value(final, "test/accuracy") if test_accuracy is None else test_accuracy,
        seconds=_value(times_of_run, "total_s"),
        error=printable(summary.get("error") or ""),
    )


def read_last_rows(path: Path) -> list[dict[str, float]]:
    """The last complete rows of a run's metrics.csv, as numbers; empty and damaged cells are left out.

    The file may grow meanwhile: a row without its line end is not read.
    """
    try:
        if not path.is_file():  # to open a pipe could block for ever
            return []
        with path.open("rb") as file:
            header = next(csv.reader([file.readline(10_000).decode("utf-8", "replace")]), [])
            start = file.tell()
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - TAIL_BYTES))
            lines = file.read(TAIL_BYTES).decode("utf-8", "replace").split("\n")[:-1]
    except (OSError, csv.Error):
        return []
    if end - TAIL_BYTES > start:
        lines = lines[1:]  # the first one is cut
    rows = [_parse_row(header, line.strip().split(",")) for line in lines]
    return [row for row in rows if "epoch" in row]


def _parse_row(names: list[str], cells: list[str]) -> dict[str, float]:
    row = {}
    for name, cell in zip(names, cells, strict=False):
        try:
            number = float(cell)
        except ValueError:
            continue
        if math.isfinite(number):
            row[name] = number
    return row


def read_answer(sweep: Path) -> str:
    """The first line of the verdict, the question and its answer; empty as long as there is none."""
    try:
        return printable(json.loads((sweep / RECORD_FILE).read_bytes())["answer"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _version(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file or a folder changes: time, size and inode; None if it is missing."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _value(section: Any, key: str) -> float | None:
    value = section.get(key) if isinstance(section, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0
