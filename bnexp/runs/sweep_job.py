"""What a run knows of the sweep that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SweepJob:
    jobs_at_once: int  # jobs that share this machine
    number: int | None  # the job's number, from 0, where GPUs are dealt among the jobs
    quiet: bool  # whether other jobs write to the same terminal
    hparams: dict[str, float | str]  # what differs between the jobs: the same keys and types in each
    command: str  # the command of the sweep; a launcher's worker has another one
