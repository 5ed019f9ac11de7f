"""What a worker does with a unit. It imports no Hydra."""

from __future__ import annotations

import signal
from dataclasses import replace
from functools import partial

from bnexp.cli.exit_codes import failure_of
from bnexp.compute.process_tuning import restored_process
from bnexp.errors import Interrupted
from bnexp.runs.folder import LOG
from bnexp.runs.job import Job, MachineShare
from bnexp.runs.run_log import log_to
from bnexp.signals import StopSignal
from bnexp.sweeps.launchers.launcher import JobEnd, Unit
from bnexp.training.job import train_job, train_jobs


def train_unit(unit: Unit, share: MachineShare, stop: StopSignal) -> list[JobEnd]:
    """Trains a unit's jobs; their folders hold the record. After a signal no further job starts."""
    if stop.received is not None:
        return [JobEnd(job, Interrupted(stop.received).exit_code) for job in unit.jobs]
    try:
        for job in unit.jobs:
            job.path.mkdir(parents=True, exist_ok=True)
        with log_to(*(job.path / LOG for job in unit.jobs)) as warnings, restored_process():
            if len(unit.jobs) == 1:
                ends = [_train_alone(unit.jobs[0], share, stop)]
            else:
                ends = _train_together(unit, share, stop)
        return [replace(end, warnings=warnings.about(end.job.path)) for end in ends]
    except OSError as error:
        line = f"bnexp: {error.filename}: cannot be written ({error.strerror})"
        return [JobEnd(job, 1, (line,)) for job in unit.jobs]


def _train_alone(job: Job, share: MachineShare, stop: StopSignal) -> JobEnd:
    failure = failure_of(partial(train_job, job, share, stop))  # a traceback goes into the log
    return JobEnd(job, failure.code, tuple(failure.lines))


def _train_together(unit: Unit, share: MachineShare, stop: StopSignal) -> list[JobEnd]:
    statuses: list[str] = []
    failure = failure_of(lambda: statuses.extend(train_jobs(unit.jobs, share, stop)))
    if failure.code:
        return [JobEnd(job, failure.code, tuple(failure.lines)) for job in unit.jobs]
    codes = {"finished": 0, "interrupted": 128 + (stop.received or signal.SIGINT)}
    return [JobEnd(job, codes.get(status, 1)) for job, status in zip(unit.jobs, statuses, strict=True)]
