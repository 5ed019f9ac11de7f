"""A sweep from its arguments to its verdict."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from bnexp.runs.job import Job
from bnexp.sweeps import verdict
from bnexp.sweeps.axes import jobs_of
from bnexp.sweeps.job_folders import ended_jobs, is_free
from bnexp.sweeps.launcher import JobEnd, SweepContext, UnitLauncher
from bnexp.sweeps.planning import JobComposer
from bnexp.sweeps.units import make_units
from hydra_plugins.bnexp import BnexpLauncher

if TYPE_CHECKING:
    pass

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
    launcher = plugin.unit_launcher() if isinstance(plugin, BnexpLauncher) else None
    if launcher is None:
        planned = [composer.compose(overrides, place) for place, overrides in enumerate(jobs)]
        _save_command(folder, config)
        return verdict.finish_sweep(folder, planned, failure_of(partial(_launch, plugin, jobs)))
    with closing(launcher):
        launcher.start(_context(folder))
        planned = [composer.compose(overrides, place) for place, overrides in enumerate(jobs)]
        _save_command(folder, config)
        lost: list[str] = []
        failure = failure_of(lambda: lost.extend(_train(planned, folder, launcher)))
    return verdict.finish_sweep(folder, planned, failure, lost)


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


def _train(planned: list[Job], folder: Path, launcher: UnitLauncher) -> list[str]:
    """Trains the jobs that have not ended before; returns the lines of those that were lost."""
    ended = ended_jobs(folder)
    waiting = [job for job in planned if job.config_hash not in ended]
    for job in planned:
        if job.config_hash in ended:
            print(f"{job.label} | {ended[job.config_hash]} before: skipped")
    stops_at_failure = any(job.values["on_failure"] == "stop" for job in planned)

    def on_end(ends: Sequence[JobEnd]) -> bool:
        for end in ends:
            print(end.job.label, end.code, *end.lines)
        return not (stops_at_failure and any(end.code in (1, 2) for end in ends))

    units = make_units(waiting, launcher.fuse)
    return launcher.run(units, on_end) if units else []
