"""Jobs from their plain data to their complete records: one alone, or several seeds together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from bnexp.config.schema import parse
from bnexp.runs.folder import RunFolder
from bnexp.runs.job import Job, MachineShare
from bnexp.runs.lock import lock_folder
from bnexp.runs.outcome import record_outcome
from bnexp.signals import StopSignal
from bnexp.training.fused.run import train_fused
from bnexp.training.fused.unit import FusedRun
from bnexp.training.run import train


def train_job(job: Job, share: MachineShare, stop: StopSignal) -> None:
    """Trains in the job's folder, which must exist, and records there how it ended.

    Raises UserError where the folder holds another run or another process writes it, and everything that
    ``train`` raises.
    """
    with lock_folder(job.path):
        folder = _open_folder(job)
        with record_outcome(folder, keep=job.is_in_sweep):
            config = parse(job.values)
            if folder.previous_summary is not None:  # after parsing: a mistake changes no file
                job.write_texts()
            train(config, folder, job, share, stop)


def train_jobs(jobs: Sequence[Job], share: MachineShare, stop: StopSignal) -> list[str]:
    """Trains several seeds of one recipe together, each in its own folder, and returns their statuses.

    Raises UserError, before any is trained, where a folder holds another run or another process writes it.
    """
    with ExitStack() as locks:
        for job in jobs:
            locks.enter_context(lock_folder(job.path))
        folders = [_open_folder(job) for job in jobs]
        configs = [parse(job.values) for job in jobs]
        runs = []
        for job, folder, config in zip(jobs, folders, configs, strict=True):
            if folder.previous_summary is not None:
                job.write_texts()
            runs.append(FusedRun(config, folder, job, share))
        return train_fused(runs, stop)


def _open_folder(job: Job) -> RunFolder:
    """The folder with the job's texts; those of a run that goes on are written later."""
    folder = RunFolder(
        job.path, job.values, job.overrides, job.new_folders,
        fingerprints=job.fingerprints, choices=job.choices, job_number=job.number,
    )  # fmt: skip
    if folder.previous_summary is None:
        job.write_texts()
    return folder
