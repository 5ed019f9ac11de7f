"""SLURM's queue as ``squeue`` shows it: on every cluster, at once, and also where no accounting is set up."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable

# States without a way back, except that SLURM may queue the job again by itself within a few seconds.
ENDED = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
    "TIMEOUT",
)  # fmt: skip
UNKNOWN = "UNKNOWN"  # of a job that SLURM has forgotten
TIMEOUT_S = 60  # of a command: a controller that starts again answers after a while


def job_states(ids: Iterable[str]) -> dict[str, str] | None:
    """The state of each job of this user; None if SLURM does not answer now.

    ``ids`` are those of jobs and of an array's tasks ("7" or "7_3").
    """
    command = ["squeue", f"--user={os.getuid()}", "--array", "--states=all", "--noheader", "--format=%i %T"]
    lines = _output(command)
    if lines is None:
        return None
    states = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return {job_id: states.get(job_id, UNKNOWN) for job_id in ids}


def cancel_waiting(ids: Iterable[str]) -> None:
    """Takes jobs out of the queue. A job that has started meanwhile is left alone."""
    arrays = sorted({job_id.partition("_")[0] for job_id in ids})
    _output(["scancel", "--state=PENDING", *arrays])


def _output(command: list[str]) -> list[str] | None:
    try:
        process = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.splitlines()
