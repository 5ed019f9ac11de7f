"""What bnexp knows of Hydra's launchers: their extras, how many jobs share a machine, jobs that are lost."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from bnexp.errors import one_line

# The extra of bnexp that brings each launcher.
EXTRAS = {
    "joblib": "parallel",
    "submitit_local": "slurm",
    "submitit_slurm": "slurm",
    "slurm": "slurm",
    "ray": "ray",
    "ray_cluster": "ray",
}
_lost: list[str] = []  # what is known of each job that never answered


def kind(hydra: DictConfig) -> str:
    """The launcher's class: BasicLauncher, JoblibLauncher, LocalLauncher, SlurmLauncher, RayLauncher, ..."""
    return str(hydra.launcher.get("_target_")).rpartition(".")[2]


def at_once(hydra: DictConfig, jobs: int) -> int | None:
    """How many of a sweep's jobs share one machine; None where the launcher gives each its part of one.

    SLURM and Ray set a job's CPUs and its GPUs themselves; the others leave the whole machine to all.
    """
    if (name := kind(hydra)) == "JoblibLauncher":
        wanted, cores = int(hydra.launcher.n_jobs or 1), os.cpu_count() or 1
        return min(jobs, max(1, cores + 1 + wanted) if wanted < 0 else wanted)
    if name == "LocalLauncher":  # all of a batch at once
        return min(jobs, int(hydra.sweeper.get("max_batch_size") or jobs))
    return 1 if name == "BasicLauncher" else None


def deals_gpus(hydra: DictConfig, shared: int | None) -> bool:
    """Whether bnexp has to deal the GPUs that it sees: several jobs see them, and no one has parted them.

    SLURM shows a job its own. Ray does where it is asked for GPUs, and else shows all to everyone.
    """
    name = kind(hydra)
    if name == "RayLauncher":
        return not (hydra.launcher.ray.get("remote") or {}).get("num_gpus")
    return shared != 1 and name != "SlurmLauncher"


def one_console(hydra: DictConfig) -> bool:
    """Whether jobs that run side by side write to one terminal."""
    return kind(hydra) in ("JoblibLauncher", "RayLauncher")


def wait_for_all(hydra: DictConfig) -> None:
    """Makes submitit and Ray wait for a sweep's other jobs where one is lost: killed, out of time or memory.

    Their plugins raise at the first such job and leave the others to themselves. What a job raises by
    itself never comes here: its run records it.
    """
    if (name := kind(hydra)) in ("LocalLauncher", "SlurmLauncher"):
        from submitit.core import core, utils

        patient = _patient(core.Job.results, (utils.FailedJobError, utils.UncompletedJobError))
        setattr(core.Job, "results", lambda job: [patient(job)])  # noqa: B010
    elif name == "RayLauncher":
        import ray
        from hydra_plugins.hydra_ray_launcher import _core

        # All that the plugin takes from the module ray where it collects results.
        setattr(_core, "ray", SimpleNamespace(get=_patient(ray.get, (ray.exceptions.RayError,))))  # noqa: B010


def _patient(result: Callable[[Any], Any], given_up: tuple[type[Exception], ...]) -> Callable[[Any], Any]:
    def collect(job: Any) -> Any:
        try:
            found = result(job)
        except given_up as error:
            _lost.append(one_line(f"a job was lost: {error}")[:300])
            return JobReturn(status=JobStatus.COMPLETED)  # for Hydra; its summary.json knows how far it came
        return found[0] if isinstance(found, list) else found

    return collect


def finish() -> list[str]:
    """What is known of a sweep's lost jobs; ends its Ray, so that no line comes after the verdict."""
    if (ray := sys.modules.get("ray")) is not None:
        ray.shutdown()
    said, _lost[:] = list(_lost), []
    return said
