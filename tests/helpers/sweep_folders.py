"""Folders of sweeps as they are while the jobs run, written without training."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from bnexp.sweeps.plan_file import PlannedJob, SweepPlan, write_plan

HEADER = (
    "epoch,train/loss,train/accuracy,val/loss,val/accuracy,test/loss,test/accuracy,lr,images_per_s,epoch_s"
)


def planned_jobs(
    norms: Sequence[str] = ("none", "batch"), seeds: int = 5, epochs: int = 5
) -> list[PlannedJob]:
    """One job for each seed and norm, the seeds outermost."""
    return [
        PlannedJob(
            folder=f"model.norm={norm},seed={seed}-{seed:06x}{index:06x}",
            label=f"model.norm={norm} seed={seed}",
            overrides=(f"seed={seed}", f"model.norm={norm}"),
            config_hash=f"{seed:06x}{index:06x}",
            epochs=epochs,
        )
        for seed in range(seeds)
        for index, norm in enumerate(norms)
    ]


def write_made_plan(sweep: Path, jobs: Sequence[PlannedJob], *, jobs_at_once: int = 2, pid: int | None = None,
                    started: float | None = None) -> SweepPlan:  # fmt: skip
    """The plan of a sweep that this process runs, unless another ``pid`` is given."""
    sweep.mkdir(parents=True, exist_ok=True)
    plan = SweepPlan(
        jobs=tuple(jobs), command="bnexp -m", started=time.time() - 60 if started is None else started,
        launcher="local", jobs_at_once=jobs_at_once, pid=pid or os.getpid(), host=socket.gethostname(),
        axes=("model.norm", "seed"),
    )  # fmt: skip
    write_plan(sweep, plan)
    return plan


def write_job(sweep: Path, job: PlannedJob, *, status: str = "finished", epoch: int | None = None,
              epoch_s: float = 1.0, first_epoch_s: float | None = None, total_s: float | None = None,
              accuracy: float = 0.97, error: str | None = None,
              changed: float | None = None) -> Path:  # fmt: skip
    """A job's run folder after ``epoch`` epochs; ``changed`` is the time of its files, now if not given."""
    run = sweep / job.folder
    run.mkdir(exist_ok=True)
    epoch = job.epochs if epoch is None else epoch
    times = [
        epoch_s if number > 1 or first_epoch_s is None else first_epoch_s for number in range(1, epoch + 1)
    ]
    rows = [f"{n},0.1,0.9,0.2,{accuracy},,,0.1,1000,{s}" for n, s in enumerate(times, 1)]
    (run / "metrics.csv").write_text("".join(f"{row}\r\n" for row in [HEADER, *rows]), newline="")
    summary = {
        "status": status,
        "config_hash": job.config_hash,
        "overrides": list(job.overrides),
        "epochs": job.epochs,
        "seed": 0,
        "best": {"epoch": epoch, "val/accuracy": accuracy, "test/accuracy": accuracy} if epoch else None,
        "final": {"test/accuracy": accuracy} if status == "finished" else {},
        "time": {"total_s": sum(times) if total_s is None else total_s} if status != "running" else {},
        "error": error,
    }
    (run / "summary.json").write_text(json.dumps(summary))
    (run / ".lock").touch()
    if changed is not None:
        for name in ("metrics.csv", "summary.json"):
            os.utime(run / name, (changed, changed))
    return run
