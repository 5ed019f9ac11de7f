"""One job from its plain data to its complete record."""

from __future__ import annotations

from bnexp.config.schema import parse
from bnexp.runs.folder import RunFolder, lock_folder, record_outcome
from bnexp.runs.job import Job, MachineShare
from bnexp.signals import StopSignal
from bnexp.training.run import train


def train_job(job: Job, share: MachineShare, stop: StopSignal) -> None:
    """Trains in the job's folder, which must exist, and records there how it ended.

    Raises UserError where the folder holds another run or another process writes it, and everything that
    ``train`` raises.
    """
    with lock_folder(job.path):
        folder = RunFolder(
            job.path, job.values, job.overrides, job.new_folders,
            fingerprints=job.fingerprints, choices=job.choices, job_number=job.number,
        )  # fmt: skip
        if folder.previous_summary is None:
            job.write_texts()
        with record_outcome(folder, keep=job.is_in_sweep):
            config = parse(job.values)
            if folder.previous_summary is not None:  # after parsing: a mistake changes no file
                job.write_texts()
            train(config, folder, job, share, stop)
