"""What bnexp knows of Hydra's launchers: their extras, how many jobs share a machine, jobs that are lost."""

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

PATIENCE_S = 30  # for the step at hand and its checkpoint, where a signal ends a sweep's jobs
_lost: list[str] = []  # what is known of each job that never answered
_kept: list[subprocess.Popen[bytes]] = []  # submitit's keepers of the jobs on this machine
_asked: list[Any] = []  # Ray's promises of the jobs' results


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


def prepare(hydra: DictConfig) -> None:
    """Makes submitit and Ray wait for a sweep's other jobs where one is lost: killed, out of time or memory.

    Their plugins raise at the first such job and leave the others to themselves. What a job raises by
    itself never comes here: its run records it. A signal ends a sweep on this machine with its jobs.
    """
    if (name := kind(hydra)) in ("LocalLauncher", "SlurmLauncher"):
        from submitit.core import core, utils
        from submitit.local import local

        patient = _patient(core.Job.results, (utils.FailedJobError, utils.UncompletedJobError))
        setattr(core.Job, "results", lambda job: [patient(job)])  # noqa: B010
        setattr(local, "subprocess", SimpleNamespace(Popen=_aside))  # noqa: B010
    elif name == "RayLauncher":
        import ray
        from hydra_plugins.hydra_ray_launcher import _core

        # All that the plugin takes from the module ray where it collects results.
        setattr(_core, "ray", SimpleNamespace(get=_patient(ray.get, (ray.exceptions.RayError,))))  # noqa: B010
        setattr(_core, "start_ray", _hearing(_core.start_ray))  # noqa: B010
        setattr(_core, "launch_job_on_ray", _noted(_core.launch_job_on_ray))  # noqa: B010


def _aside(command: Any, shell: bool, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Starts submitit's keeper of a job out of the terminal's reach: a Ctrl-C is bnexp's to hand on."""
    keeper = subprocess.Popen(
        command, shell=shell, env=env, start_new_session=True, stderr=subprocess.DEVNULL
    )
    _kept.append(keeper)
    return keeper


def _noted(launch: Callable[..., Any]) -> Callable[..., Any]:
    def run(*words: Any) -> Any:
        _asked.append(launch(*words))
        return _asked[-1]

    return run


def _hearing(start: Callable[..., None]) -> Callable[..., None]:
    """Ray takes SIGTERM for itself; it stays bnexp's."""

    def run(*words: Any) -> None:
        before = signal.getsignal(signal.SIGTERM)
        start(*words)
        signal.signal(signal.SIGTERM, before)

    return run


def _patient(result: Callable[[Any], Any], given_up: tuple[type[Exception], ...]) -> Callable[[Any], Any]:
    def collect(job: Any) -> Any:
        try:
            found = result(job)
        except given_up as error:
            _lost.append(one_line(f"a job was lost: {error}")[:300])
            return JobReturn(status=JobStatus.COMPLETED)  # for Hydra; its summary.json knows how far it came
        return found[0] if isinstance(found, list) else found

    return collect


def finish(stop_file: Path | None) -> list[str]:
    """What is known of a sweep's lost jobs; ends what is left of it where a signal came before its end.

    A job on this machine or on Ray saves and goes. SLURM's jobs run on, as they do when the terminal closes.
    """
    left = [keeper.pid for keeper in _kept if keeper.poll() is None]
    for group in left:
        with suppress(OSError):  # gone in between
            os.killpg(group, signal.SIGUSR1)  # ends the keeper, which would kill its job; the job saves
    for keeper in _kept:
        keeper.wait()
    until = time.monotonic() + PATIENCE_S
    while any(map(_alive, left)) and time.monotonic() < until:
        time.sleep(0.05)
    if (ray := sys.modules.get("ray")) is not None:
        # Not ray.cancel: where a job then ends by itself it brings Ray down (2.60).
        if stop_file is not None and _asked and ray.wait(_asked, num_returns=len(_asked), timeout=0)[1]:
            stop_file.touch()
            ray.wait(_asked, num_returns=len(_asked), timeout=PATIENCE_S)
        ray.shutdown()  # its last line then comes before the verdict
    said = list(_lost)
    for known in (_kept, _asked, _lost):
        known.clear()
    return said


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
