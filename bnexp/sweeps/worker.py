"""What a worker does with a unit. It imports no Hydra."""

from __future__ import annotations

from functools import partial

from bnexp.cli.exit_codes import failure_of
from bnexp.errors import Interrupted
from bnexp.runs.folder import LOG
from bnexp.runs.job import Job, MachineShare
from bnexp.runs.run_log import log_to
from bnexp.signals import StopSignal
from bnexp.sweeps.launcher import JobEnd, Unit
from bnexp.training.job import train_job


def train_unit(unit: Unit, share: MachineShare, stop: StopSignal) -> list[JobEnd]:
    """Trains a unit's jobs; their folders hold the record. After a signal the remaining jobs do not start."""
    ends: list[JobEnd] = []
    for job in unit.jobs:
        if stop.received is not None:
            ends.append(JobEnd(job, Interrupted(stop.received).exit_code))
            continue
        ends.append(_train(job, share, stop))
    return ends


def _train(job: Job, share: MachineShare, stop: StopSignal) -> JobEnd:
    try:
        job.path.mkdir(parents=True, exist_ok=True)
        with log_to(job.path / LOG):
            failure = failure_of(partial(train_job, job, share, stop))  # a traceback goes into the log
    except OSError as error:
        return JobEnd(job, 1, (f"bnexp: {error.filename}: cannot be written ({error.strerror})",))
    return JobEnd(job, failure.code, tuple(failure.lines))
