"""Hydra's launchers: how many jobs share a machine, and what happens when a job is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from bnexp.errors import one_line

PATIENCE_S = 30  # how long to wait for a job's current step and its checkpoint after a signal
_lost_jobs: list[str] = []  # one message for each job that ended without a result
_keepers: list[subprocess.Popen[bytes]] = []  # submitit's processes that supervise the jobs on this machine
_references: list[Any] = []  # Ray's references to the jobs' results


def kind(hydra: DictConfig) -> str:
    """The launcher's class: BasicLauncher, JoblibLauncher, LocalLauncher, SlurmLauncher, RayLauncher, ..."""
    return str(hydra.launcher.get("_target_")).rpartition(".")[2]


def jobs_at_once(hydra: DictConfig, jobs: int) -> int | None:
    """How many of a sweep's jobs share one machine; None if the launcher divides the machine among them.

    SLURM and Ray set a job's CPUs and GPUs. With the other launchers every job sees the whole machine.
    """
    if (name := kind(hydra)) == "JoblibLauncher":
        n_jobs, cores = int(hydra.launcher.n_jobs or 1), os.cpu_count() or 1
        return min(jobs, max(1, cores + 1 + n_jobs) if n_jobs < 0 else n_jobs)
    if name == "LocalLauncher":  # starts all jobs of a batch at the same time
        return min(jobs, int(hydra.sweeper.get("max_batch_size") or jobs))
    return 1 if name == "BasicLauncher" else None


def deals_gpus(hydra: DictConfig, jobs_at_once: int | None) -> bool:
    """Whether bnexp distributes the GPUs among the jobs: several jobs see all of them.

    SLURM shows a job its own GPUs only. Ray does so if num_gpus is set; otherwise every job sees all GPUs.
    """
    name = kind(hydra)
    if name == "RayLauncher":
        return not (hydra.launcher.ray.get("remote") or {}).get("num_gpus")
    return jobs_at_once != 1 and name != "SlurmLauncher"


def jobs_share_console(hydra: DictConfig) -> bool:
    """Whether jobs that run side by side write to one terminal."""
    return kind(hydra) in ("JoblibLauncher", "RayLauncher")


def prepare(hydra: DictConfig) -> None:
    """Makes submitit and Ray wait for a sweep's other jobs if one is killed or runs out of time or memory.

    Their plugins would raise at the first such job and no longer wait for the others. An exception of a
    job's own never arrives here: its run records it. A signal ends a sweep on this machine with its jobs.
    """
    if (name := kind(hydra)) in ("LocalLauncher", "SlurmLauncher"):
        from submitit.core import core, utils
        from submitit.local import local

        collect = _tolerate_lost_jobs(core.Job.results, (utils.FailedJobError, utils.UncompletedJobError))
        setattr(core.Job, "results", lambda job: [collect(job)])  # noqa: B010
        setattr(local, "subprocess", SimpleNamespace(Popen=_start_keeper))  # noqa: B010
    elif name == "RayLauncher":
        import ray
        from hydra_plugins.hydra_ray_launcher import _core

        # The only function of the module ray that the plugin uses to collect results.
        setattr(_core, "ray", SimpleNamespace(get=_tolerate_lost_jobs(ray.get, (ray.exceptions.RayError,))))  # noqa: B010
        setattr(_core, "start_ray", _keep_sigterm_handler(_core.start_ray))  # noqa: B010
        setattr(_core, "launch_job_on_ray", _collect_references(_core.launch_job_on_ray))  # noqa: B010


def _start_keeper(command: Any, shell: bool, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Starts submitit's keeper of a job in its own session: bnexp forwards a Ctrl-C, not the terminal."""
    keeper = subprocess.Popen(
        command, shell=shell, env=env, start_new_session=True, stderr=subprocess.DEVNULL
    )
    _keepers.append(keeper)
    return keeper


def _collect_references(launch: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        _references.append(launch(*arguments))
        return _references[-1]

    return run


def _keep_sigterm_handler(start: Callable[..., None]) -> Callable[..., None]:
    """Ray installs its own handler of SIGTERM; this puts bnexp's back."""

    def run(*arguments: Any) -> None:
        handler = signal.getsignal(signal.SIGTERM)
        start(*arguments)
        signal.signal(signal.SIGTERM, handler)

    return run


def _tolerate_lost_jobs(
    get_result: Callable[[Any], Any], errors: tuple[type[Exception], ...]
) -> Callable[[Any], Any]:
    def collect(job: Any) -> Any:
        try:
            result = get_result(job)
        except errors as error:
            _lost_jobs.append(one_line(f"a job was lost: {error}")[:300])
            return JobReturn(status=JobStatus.COMPLETED)  # for Hydra; the job's summary.json has its status
        return result[0] if isinstance(result, list) else result

    return collect


def finish(stop_file: Path | None) -> list[str]:
    """One message for each lost job of a sweep; stops the jobs that still run after a signal.

    A job on this machine or on Ray saves its run and ends. SLURM's jobs continue, as they do after the
    terminal is closed.
    """
    groups = [keeper.pid for keeper in _keepers if keeper.poll() is None]
    for group in groups:
        with suppress(OSError):  # it has just ended
            os.killpg(group, signal.SIGUSR1)  # ends the keeper, which would kill its job; the job saves
    for keeper in _keepers:
        keeper.wait()
    deadline = time.monotonic() + PATIENCE_S
    while any(map(_alive, groups)) and time.monotonic() < deadline:
        time.sleep(0.05)
    if (ray := sys.modules.get("ray")) is not None:
        # Not ray.cancel: if the job ends by itself at that moment, Ray 2.60 crashes.
        if stop_file is not None and _references:
            jobs = len(_references)
            if ray.wait(_references, num_returns=jobs, timeout=0)[1]:
                stop_file.touch()
                ray.wait(_references, num_returns=jobs, timeout=PATIENCE_S)
        ray.shutdown()  # prints its last line before the verdict
    messages = list(_lost_jobs)
    for records in (_keepers, _references, _lost_jobs):
        records.clear()
    return messages


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
