"""The folders of a sweep's jobs: their names, and which jobs are completed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bnexp.errors import UserError
from bnexp.runs.identity import changed_files
from bnexp.runs.summary import SUMMARY, load_summary


def job_folder(sweep: Path, overrides: str, config_hash: str) -> str:
    """The name of a job's folder: the overrides that distinguish the job, and its configuration's hash.

    A job that was started under other overrides with the same hash keeps its folder.
    """
    existing = sorted(path.parent.name for path in sweep.glob(f"*-{config_hash}/{SUMMARY}"))
    if existing:
        return existing[0]
    # File systems allow 255 characters.
    label = re.sub(r"[^A-Za-z0-9_.,=+-]+", "_", overrides)[:180] or "job"
    return f"{label}-{config_hash}"


def is_free(sweep: Path) -> bool:
    """Whether a sweep may write into a folder: it is missing, holds only runs, or a sweep of bnexp."""
    saved_command = sweep / "multirun.yaml"
    if saved_command.is_file():
        text = saved_command.read_text(encoding="utf-8", errors="replace")
        return not text or "bnexp." in text  # empty after a kill: Hydra does not write it atomically
    return not sweep.is_dir() or all(_is_run(path) for path in sweep.iterdir())


def _is_run(path: Path) -> bool:
    try:
        return "config_hash" in load_summary(path)
    except UserError:
        return False


def is_complete(summary: Mapping[str, Any]) -> bool:
    """Whether a job needs no other run. A job whose data files have changed is one of other data."""
    return summary["status"] in ("finished", "diverged") and not changed_files(summary)


def completed_jobs(sweep: Path, config_hash: str = "*") -> list[Path]:
    """The folders of the jobs that finished or diverged: all of them, or those with one ``config_hash``."""
    folders = []
    for path in sweep.glob(f"*-{config_hash}/{SUMMARY}"):
        with suppress(UserError):  # a damaged summary: the job has to run again
            if is_complete(load_summary(path.parent)):
                folders.append(path.parent)
    return folders


def ended_jobs(sweep: Path) -> dict[str, str]:
    """How each job ended that finished or diverged: its configuration's hash -> its status."""
    statuses = {}
    for path in sweep.glob(f"*/{SUMMARY}"):
        with suppress(UserError):  # a damaged summary: the job has to run again
            summary = load_summary(path.parent)
            if is_complete(summary):
                statuses[str(summary.get("config_hash"))] = str(summary["status"])
    return statuses
