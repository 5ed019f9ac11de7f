"""What bnexp knows of Hydra's launchers: their extras, how many jobs share a machine, jobs that are lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

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
lost: list[str] = []  # what is known of each job that never answered


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


def one_console(hydra: DictConfig) -> bool:
    """Whether jobs that run side by side write to one terminal."""
    return kind(hydra) in ("JoblibLauncher", "RayLauncher")


def wait_for_all(hydra: DictConfig) -> None:
    """Makes submitit and Ray wait for a sweep's other jobs where one is lost: killed, out of time or memory.

    Their plugins raise at the first such job and leave the others to themselves. What a job raises by
    itself never comes here: its run records it.
    """
    if (name := kind(hydra)) in ("LocalLauncher", "SlurmLauncher"):
        from submitit.core.core import Job
        from submitit.core.utils import FailedJobError, UncompletedJobError

        given_up = (FailedJobError, UncompletedJobError)
        if not hasattr(Job.results, "patient"):
            Job.results = _patient(Job.results, given_up, lambda nothing: [nothing])
    elif name == "RayLauncher":
        import ray
        from hydra_plugins.hydra_ray_launcher import _core
        from ray.exceptions import RayError

        if _core.ray is ray:
            _core.ray = _Ray(_patient(ray.get, (RayError,), lambda nothing: nothing))


class _Ray:
    """All that the plugin takes from the module ``ray`` where it collects results."""

    def __init__(self, get: Callable[[Any], Any]) -> None:
        self.get = get


def _patient(
    results: Callable[[Any], Any], given_up: tuple[type[Exception], ...], form: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    def collect(job: Any) -> Any:
        from hydra.core.utils import JobReturn, JobStatus

        try:
            return results(job)
        except given_up as error:
            lost.append(one_line(f"a job was lost: {error}")[:300])
            return form(JobReturn(status=JobStatus.COMPLETED))

    collect.patient = True  # type: ignore[attr-defined]
    return collect
