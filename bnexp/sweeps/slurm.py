"""The launcher ``slurm``: each unit is a job of a SLURM cluster, through submitit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnexp.errors import UserError, one_line
from bnexp.runs.job import Job, MachineShare
from bnexp.signals import StopSignal
from bnexp.sweeps.launcher import (
    STOP_PATIENCE_S,
    JobEnd,
    OnEnd,
    SweepContext,
    Unit,
    UnitLauncher,
    missing_extra,
    whole_number,
)

FOLDER = ".submitit"  # in the sweep's folder: scripts, logs and results of the cluster's jobs
POLL_S = 1.0  # how often the main process looks at the jobs; submitit asks SLURM less often
# Keys that every executor of submitit knows. The others are SLURM's, and submitit wants a prefix.
SHARED_KEYS = (
    "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "name",
    "stderr_to_stdout",
)  # fmt: skip


class UnitTask:
    """What a job of the cluster calls. submitit stores it in a file."""

    def __init__(self, unit: Unit, share: MachineShare, context: SweepContext) -> None:
        self.unit, self.share, self.context = unit, share, context

    def __call__(self) -> list[JobEnd]:
        from bnexp.sweeps.remote_worker import train_remotely

        return train_remotely(self.unit, self.share, self.context)

    def checkpoint(self) -> Any:
        """submitit calls it when a job is queued again: the folders have all that is needed to go on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class SlurmJobs(UnitLauncher):
    """Jobs of a cluster. ``cluster`` "local" runs them on this machine, all at once, to try it without SLURM.

    Raises UserError for a parameter that submitit does not know.
    """

    name = "slurm"

    def __init__(self, cluster: str, fuse: Any, parameters: dict[str, Any]) -> None:
        try:
            import submitit
        except ImportError:
            raise missing_extra("slurm") from None
        self.cluster, self.fuse = cluster, whole_number("hydra.launcher.fuse", fuse)
        if cluster not in ("slurm", "local"):
            raise UserError(f"hydra.launcher.cluster={cluster}: must be one of slurm, local")
        self._submitit = submitit
        self._parameters = {
            key if key in SHARED_KEYS else f"slurm_{key}": value for key, value in parameters.items()
        }

    def jobs_at_once(self, jobs: Sequence[Job]) -> int:
        return int(self._parameters.get("slurm_array_parallelism") or len(jobs))

    def _executor(self) -> Any:
        parameters = dict(self._parameters)
        retries = parameters.pop("slurm_max_num_timeout", None)
        folder = Path(self.context.folder) / FOLDER
        constructor = {"slurm_max_num_timeout": retries} if retries is not None else {}
        try:
            executor = self._submitit.AutoExecutor(folder, cluster=self.cluster, **constructor)
            executor.update_parameters(**parameters)
        except (NameError, AssertionError, RuntimeError) as error:
            raise UserError(one_line(f"hydra/launcher=slurm: {error}")[:300]) from None
        return executor

    def run(self, units: Sequence[Unit], on_end: OnEnd) -> list[str]:
        jobs_here = len(units) if self.cluster == "local" else 1
        tasks = []
        for number, unit in enumerate(units):
            gpu = number if self.cluster == "local" else None
            tasks.append(UnitTask(unit, MachineShare(jobs_here, gpu, has_console=False), self.context))
        executor = self._executor()
        running = dict(zip(executor.map_array(lambda task: task(), tasks), units, strict=True))
        lost: list[str] = []
        goes_on = True
        with StopSignal() as stop:
            deadline = float("inf")
            while running and time.monotonic() < deadline:
                for job in [job for job in running if job.done()]:
                    unit = running.pop(job)
                    if (error := job.exception()) is None:
                        goes_on = on_end(job.result()) and goes_on
                    elif deadline == float("inf"):
                        lost.append(one_line(f"a job was lost: {unit}: {error}")[:300])
                if (stop.received is not None or not goes_on) and deadline == float("inf"):
                    deadline = time.monotonic() + STOP_PATIENCE_S
                    self._stop(list(running))
                time.sleep(POLL_S)
        if stop.received is not None:
            raise stop.interrupted()
        return lost

    def _stop(self, jobs: list[Any]) -> None:
        """The running jobs see the file, are saved and end; those that wait in the queue leave it."""
        self.context.stop_file.touch()
        for job in jobs:
            if job.state == "PENDING":
                job.cancel()
