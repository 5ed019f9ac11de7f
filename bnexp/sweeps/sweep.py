"""A sweep from its arguments to its verdict."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
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
from bnexp.config.schema import Sweep, check_looks
from bnexp.config.validation import check_mapping
from bnexp.errors import UserError
from bnexp.files import write_text
from bnexp.report.read.runs import TUNING_FOLDER
from bnexp.runs.job import Job
from bnexp.runs.latest import point_latest
from bnexp.sweeps import verdict
from bnexp.sweeps.axes import read_axes
from bnexp.sweeps.batch_trainer import BatchTrainer
from bnexp.sweeps.job_folders import is_free
from bnexp.sweeps.launchers.launcher import SweepContext
from bnexp.sweeps.planning import JobComposer
from bnexp.sweeps.progress.view import SweepView
from bnexp.sweeps.seeds import Batch, DesignRecord, make_seed_plan, plan_design

# Environment variables that a worker on another machine takes over from the command that started the sweep.
VARIABLES = ("BNEXP_DATA_DIR", "GOMP_SPINCOUNT", "PYTHONHASHSEED")


def run_sweep(
    config: DictConfig, hydra_context: HydraContext, task_function: TaskFunction, arguments: list[str]
) -> int:
    """Trains the jobs that ``arguments`` mean, prints and writes the verdict, and returns the exit code.

    Raises UserError for a mistake, before the first job is trained. One that shows when jobs start, in all of
    them, is told once.
    """
    if torchrun.is_distributed():
        raise UserError("-m: torchrun's processes train one network; a sweep needs no torchrun")
    _check_preset(config, hydra_context.config_loader)
    folder = _check_folder(config)
    plugin = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)
    values: Any = OmegaConf.to_container(config.sweep, resolve=True)
    settings = check_mapping(values, Sweep, "sweep")
    check_looks(settings.looks)
    axes = read_axes(config, arguments, hydra_context.config_loader, settings)
    record = DesignRecord(folder, plan_design(axes, settings))
    seeds = make_seed_plan(axes, record)
    batches = seeds.batches()
    first = next(batches)
    composers = {
        subfolder: JobComposer(config, hydra_context, folder / subfolder, first.jobs)
        for subfolder in ("", TUNING_FOLDER)
    }
    launcher = plugin.unit_launcher() if hasattr(plugin, "unit_launcher") else None
    if launcher is None:
        if record.has_plan:
            raise UserError("seed=auto and intervals need hydra/launcher=local, slurm or ray")
        planned = _compose(composers[""], first.jobs)
        _save_command(folder, config)
        return verdict.finish_sweep(folder, planned, failure_of(partial(_launch, plugin, first.jobs)))
    with closing(launcher):
        launcher.start(_context(folder))
        first_jobs = _compose(composers[first.subfolder], first.jobs)  # before the folder is made
        record.describe(first_jobs)
        record.check()
        _save_command(folder, config)
        record.save()
        point_latest(folder)
        trainer = BatchTrainer(folder, launcher, list(composers[""].keys))
        trainer.write_plan(first_jobs)

        def train() -> None:
            jobs = first_jobs
            while jobs:
                seeds.note_jobs(jobs)
                trainer.add(jobs, seeds.standings)
                view.update()  # a quick batch may end before the next look at the folder
                if not trainer.train(jobs):
                    return
                batch = next(batches, Batch([]))
                jobs = _compose(composers[batch.subfolder], batch.jobs, trainer.planned)
            trainer.write_plan(trainer.planned, seeds.standings)

        with SweepView(folder) as view:
            failure = failure_of(train)
    for line in trainer.warnings.lines():
        print(line, file=sys.stderr)
    if mistakes := trainer.mistakes():
        trainer.discard_records()
        print(*mistakes, sep="\n", file=sys.stderr)
        return 2
    return verdict.finish_sweep(folder, trainer.planned, failure, trainer.messages)


def _compose(composer: JobComposer, jobs: list[list[str]], earlier: Sequence[Job] = ()) -> list[Job]:
    """The jobs, each configuration once; ``earlier`` are those of the batches before.

    Raises UserError where two of them would share a folder, and for a folder outside of the sweep's.
    """
    composed: dict[str, Job] = {}
    repeated: list[str] = []
    for place, overrides in enumerate(jobs, len(earlier)):
        job = composer.compose(overrides, place)
        if (first := composed.setdefault(job.config_hash, job)) is not job:
            repeated.append(f"{job.label}: the same experiment as {first.label}, trained once")
    if repeated and composer.folder.name != TUNING_FOLDER:  # a search may propose a value twice
        remainder = f"; {len(repeated) - 1} more like it" if len(repeated) > 1 else ""
        print(f"{repeated[0]}{remainder}", file=sys.stderr)
    folders: dict[str, Job] = {}
    for job in (*earlier, *composed.values()):
        if composer.folder not in Path(os.path.normpath(job.folder)).parents:
            raise UserError(f"hydra.sweep.subdir: {job.folder} must lie inside the sweep's folder")
        if (other := folders.setdefault(job.folder, job)) is not job:
            raise UserError(
                f"hydra.sweep.subdir: {other.label} and {job.label} would have one folder, {job.path.name}"
            )
    return list(composed.values())


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
