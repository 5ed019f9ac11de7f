"""What a run needs to know about the sweep that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SweepJob:
    jobs_at_once: int  # the number of jobs that share this machine
    number: int | None  # the job's number, from 0, if bnexp distributes GPUs among the jobs
    quiet: bool  # whether other jobs write to the same terminal at the same time
    hparams: dict[str, float | str]  # the overrides that distinguish the jobs: same keys and types in all
    command: str  # the command that started the sweep; a worker process has another one
