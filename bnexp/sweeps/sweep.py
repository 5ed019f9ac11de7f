"""A sweep from its arguments to its verdict."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from bnexp.cli import composed_config
from bnexp.cli.exit_codes import failure_of
from bnexp.compute import torchrun
from bnexp.errors import UserError
from bnexp.files import write_text
from bnexp.runs.folder import load_summary
from bnexp.runs.job import Job
from bnexp.runs.latest import point_latest
from bnexp.sweeps import verdict
from bnexp.sweeps.axes import jobs_of
from bnexp.sweeps.job_folders import ended_jobs, is_free
from bnexp.sweeps.launchers.launcher import JobEnd, SweepContext, UnitLauncher
from bnexp.sweeps.plan_file import PlannedJob, SweepPlan, write_plan
from bnexp.sweeps.planning import JobComposer
from bnexp.sweeps.progress.view import SweepView
from bnexp.sweeps.units import make_units

# Environment variables that a worker on another machine takes over from the command that started the sweep.
VARIABLES = ("BNEXP_DATA_DIR", "GOMP_SPINCOUNT")


def run_sweep(
    config: DictConfig, hydra_context: HydraContext, task_function: TaskFunction, arguments: list[str]
) -> int:
    """Trains the jobs that ``arguments`` mean, prints and writes the verdict, and returns the exit code.

    Raises UserError for a mistake, before the first job is trained.
    """
    if torchrun.is_distributed():
        raise UserError("-m: torchrun's processes train one network; a sweep needs no torchrun")
    _check_preset(config, hydra_context.config_loader)
    folder = _check_folder(config)
    plugin = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)
    jobs = jobs_of(config, arguments, hydra_context.config_loader)
    composer = JobComposer(config, hydra_context, folder, jobs)
    launcher = plugin.unit_launcher() if hasattr(plugin, "unit_launcher") else None
    if launcher is None:
        planned = _compose(composer, jobs)
        _save_command(folder, config)
        return verdict.finish_sweep(folder, planned, failure_of(partial(_launch, plugin, jobs)))
    with closing(launcher):
        launcher.start(_context(folder))
        planned = _compose(composer, jobs)
        _save_command(folder, config)
        ended = ended_jobs(folder)
        point_latest(folder)
        write_plan(folder, _plan(folder, planned, ended, launcher, list(composer.keys)))
        waiting = [job for job in planned if job.config_hash not in ended]
        if skipped := len(planned) - len(waiting):
            print(f"{skipped} of {len(planned)} jobs ended before: skipped")
        messages: list[str] = []
        with SweepView(folder):
            failure = failure_of(lambda: messages.extend(_train(waiting, launcher)))
    return verdict.finish_sweep(folder, planned, failure, messages)


def _compose(composer: JobComposer, jobs: list[list[str]]) -> list[Job]:
    """The jobs, each configuration once.

    Raises UserError where two of them would share a folder, and for a folder outside of the sweep's.
    """
    planned: dict[str, Job] = {}
    for place, overrides in enumerate(jobs):
        job = composer.compose(overrides, place)
        planned.setdefault(job.config_hash, job)
    folders: dict[str, Job] = {}
    for job in planned.values():
        if composer.folder not in Path(os.path.normpath(job.folder)).parents:
            raise UserError(f"hydra.sweep.subdir: {job.folder} must lie inside the sweep's folder")
        if (other := folders.setdefault(job.folder, job)) is not job:
            raise UserError(
                f"hydra.sweep.subdir: {other.label} and {job.label} would have one folder, {job.path.name}"
            )
    return list(planned.values())


def _plan(
    folder: Path, planned: Sequence[Job], ended: Collection[str], launcher: UnitLauncher, axes: list[str]
) -> SweepPlan:
    """What ``sweep.json`` says of the jobs; ``ended`` are the hashes of those that had ended before."""
    jobs = tuple(
        PlannedJob(
            folder=os.path.relpath(job.folder, folder), label=job.label, overrides=tuple(job.overrides),
            config_hash=job.config_hash, epochs=int(job.values["epochs"]), skipped=job.config_hash in ended,
        )
        for job in planned
    )  # fmt: skip
    return SweepPlan(
        jobs, shlex.join(sys.argv), time.time(), launcher.name, launcher.jobs_at_once(planned), os.getpid(),
        socket.gethostname(), tuple(axes),
    )  # fmt: skip


def _context(folder: Path) -> SweepContext:
    environment = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    return SweepContext(str(folder), os.getcwd(), environment)


def _check_folder(config: DictConfig) -> Path:
    """The sweep's absolute folder. Raises UserError where it holds files that belong to no sweep of bnexp."""
    folder = composed_config.output_folder(config, "hydra.sweep.dir")
    try:
        free = is_free(folder)
    except OSError as error:
        raise UserError(f"hydra.sweep.dir={folder}: cannot be read ({error.strerror})") from None
    if not free:
        raise UserError(f"hydra.sweep.dir={folder}: holds files but no sweep of bnexp; choose another folder")
    return Path(os.path.abspath(folder))


def _check_preset(config: DictConfig, loader: ConfigLoader) -> None:
    """Raises UserError for a preset that chooses a launcher or a sweeper: Hydra ignores that choice."""
    preset = config.hydra.runtime.choices.get("experiment")
    for source in loader.get_sources():
        if not preset or not source.is_config(f"experiment/{preset}"):
            continue
        loaded: Any = source.load_config(f"experiment/{preset}").config
        for default in loaded.get("defaults") or []:
            for key, value in default.items() if isinstance(default, DictConfig) else ():
                group = str(key).split()[-1].lstrip("/")
                if group in ("hydra/launcher", "hydra/sweeper"):
                    choice = f"{group}={value}"
                    raise UserError(
                        f"experiment={preset}: its {choice} comes too late for Hydra; take it out of the"
                        f" preset and write {choice} on the command line"
                    )
        return


def _save_command(folder: Path, config: DictConfig) -> None:
    """Writes multirun.yaml, from which bnexp-resume reads the sweep's command."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "multirun.yaml", OmegaConf.to_yaml(config))


def _launch(plugin: Launcher, jobs: list[list[str]]) -> None:
    """Runs the jobs with a launcher of Hydra's own, which calls bnexp's entry point for each."""
    plugin.launch(jobs, initial_job_idx=0)


def _train(jobs: Sequence[Job], launcher: UnitLauncher) -> list[str]:
    """Trains the jobs; returns a line for each unit that was lost, and for each job that left no record."""
    stops_at_failure = any(job.values["on_failure"] == "stop" for job in jobs)
    lines: list[str] = []

    def on_end(ends: Sequence[JobEnd]) -> bool:
        for end in ends:
            if end.code and not _has_record(end.job):
                lines.extend(f"{end.job.label}: {line.removeprefix('bnexp: ')}" for line in end.lines)
        return not (stops_at_failure and any(end.code in (1, 2) for end in ends))

    units = make_units(jobs, launcher.fuse, launcher.jobs_at_once(jobs))
    losses = launcher.run(units, on_end) if units else []
    return [*lines, *losses]


def _has_record(job: Job) -> bool:
    """Whether a job's folder says how it ended."""
    try:
        return bool(load_summary(job.path)["status"] != "running")
    except UserError:
        return False
