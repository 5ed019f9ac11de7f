"""The folders of a sweep's jobs: their names, and which jobs are completed."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from bnexp.errors import UserError
from bnexp.runs.folder import SUMMARY, load_summary


def job_folder(sweep: Path, words: str, identity: str) -> str:
    """A sweep job's folder: what tells it from the others, readable, and the hash of its configuration.

    Where the job has been begun under other words it stays there.
    """
    begun = sorted(path.parent.name for path in sweep.glob(f"*-{identity}/{SUMMARY}"))
    plain = re.sub(r"[^A-Za-z0-9_.,=+-]+", "_", words)[:180] or "job"
    return begun[0] if begun else f"{plain}-{identity}"


def completed_jobs(sweep: Path, identity: str = "*") -> list[Path]:
    """Where a sweep has seen the job with this configuration hash, or any, to its end, well or diverged."""
    found = []
    for path in sweep.glob(f"*-{identity}/{SUMMARY}"):
        with suppress(UserError):
            if load_summary(path.parent)["status"] in ("finished", "diverged"):
                found.append(path.parent)
    return found
