"""``sweep.json``: which jobs a sweep has, written by the sweep and read by everybody who watches it.

How far a job has come is not in it: the folder of its run says so (``status.py``). Imports no torch.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bnexp.errors import UserError, one_line
from bnexp.files import write_json
from bnexp.runs.summary import SUMMARY

PLAN_FILE = "sweep.json"
COMMAND_FILE = "multirun.yaml"  # written by Hydra; older sweeps have no other file of their own
MAX_SUMMARY_BYTES = 10_000_000


@dataclass(frozen=True)
class PlannedJob:
    folder: str  # relative to the sweep's folder
    label: str  # the overrides that distinguish the job from the others: "model.norm=batch seed=0"
    overrides: tuple[str, ...] = ()
    config_hash: str = ""
    epochs: int = 0  # 0: not known
    skipped: bool = False  # it was completed before this start of the sweep


@dataclass(frozen=True)
class SweepPlan:
    jobs: tuple[PlannedJob, ...]
    command: str = ""
    started: float = 0.0  # seconds since 1970; 0: not known
    launcher: str = ""
    jobs_at_once: int | None = None  # None: the launcher decides it, or it is not known
    pid: int | None = None  # the process that runs the sweep, and its machine
    host: str = ""
    axes: tuple[str, ...] = ()  # the keys that have several values
    standings: tuple[str, ...] = ()  # what each comparison stands at after a planned look


def write_plan(sweep: Path, plan: SweepPlan) -> None:
    """Writes ``sweep.json``, complete or not at all. Raises WriteError."""
    write_json(sweep / PLAN_FILE, asdict(plan))


def is_sweep(folder: Path) -> bool:
    """Whether ``folder`` is a sweep's: it has the plan, or Hydra's file of an older sweep."""
    return (folder / PLAN_FILE).is_file() or (folder / COMMAND_FILE).is_file()


def read_plan(sweep: Path) -> SweepPlan:
    """The plan of the sweep in a folder; that of an older sweep has the runs that are in the folder.

    Raises UserError, in one line, where the folder is no sweep's or its plan is damaged.
    """
    path = sweep / PLAN_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return _plan_of_runs(sweep)
    except NotADirectoryError:
        raise UserError(f"{sweep}: must name a folder, but is a file") from None
    except (OSError, ValueError) as error:
        raise UserError(one_line(f"{path}: cannot be read ({error})")) from None
    try:
        return _parse_plan(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(one_line(f"{path}: damaged ({error})")) from None


def _parse_plan(values: Any) -> SweepPlan:
    if not isinstance(values, dict) or not isinstance(values.get("jobs"), list):
        raise ValueError("no list of jobs")
    pid, jobs_at_once = values.get("pid"), values.get("jobs_at_once")
    return SweepPlan(
        jobs=tuple(_parse_job(job) for job in values["jobs"]),
        command=printable(values.get("command", "")),
        started=float(values.get("started") or 0),
        launcher=printable(values.get("launcher", "")),
        jobs_at_once=None if jobs_at_once is None else max(1, int(jobs_at_once)),
        pid=pid if isinstance(pid, int) and pid > 0 else None,
        host=str(values.get("host", "")),
        axes=tuple(map(printable, values.get("axes", ()))),
        standings=tuple(map(printable, values.get("standings", ()))),
    )


def _parse_job(values: Mapping[str, Any]) -> PlannedJob:
    """Raises ValueError for a folder outside of the sweep's: a sweep may come from somebody else."""
    folder = PurePosixPath(str(values["folder"]).replace("\\", "/"))
    if folder.is_absolute() or ".." in folder.parts or not folder.parts:
        raise ValueError(f"the job's folder {folder} lies outside the sweep's")
    return PlannedJob(
        folder=str(folder),
        label=printable(values.get("label") or folder),
        overrides=tuple(map(printable, values.get("overrides", ()))),
        config_hash=str(values.get("config_hash", "")),
        epochs=max(0, int(values.get("epochs") or 0)),
        skipped=bool(values.get("skipped")),
    )


def _plan_of_runs(sweep: Path) -> SweepPlan:
    """The plan of an older sweep: its jobs are the runs in the folder, in the order of their numbers."""
    if not sweep.is_dir():
        raise UserError(f"{sweep}: no such folder")
    if (sweep / SUMMARY).exists():
        raise UserError(f"{sweep}: a single run, not a sweep")
    runs = [(path.parent, read_summary(path.parent)) for path in sweep.glob(f"*/{SUMMARY}")]
    if not runs and not is_sweep(sweep):
        raise UserError(f"{sweep}: no sweep (it has no {PLAN_FILE} and no runs)")
    runs.sort(key=lambda run: (_number(run[1].get("job_number")), run[0].name))
    jobs = [
        PlannedJob(
            folder=folder.name,
            label=printable(folder.name.rpartition("-")[0].replace(",", " ") or folder.name),
            overrides=tuple(map(printable, summary.get("overrides") or ())),
            config_hash=str(summary.get("config_hash", "")),
            epochs=int(_number(summary.get("epochs"))),
        )
        for folder, summary in runs
    ]
    return SweepPlan(jobs=tuple(jobs))


def read_summary(run: Path) -> dict[str, Any]:
    """The summary in a run's folder; empty where it is missing or damaged.

    ``load_summary`` of runs/summary.py searches the complete folder for links, which costs too much for a
    look at 10,000 runs. This function opens a regular file only.
    """
    path = run / SUMMARY
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_SUMMARY_BYTES:
            return {}
        summary = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}


def printable(text: object) -> str:
    """``text`` on one line, without characters that control a terminal."""
    return "".join(c if c.isprintable() else "?" for c in one_line(text))


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0
