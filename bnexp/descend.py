"""``bnexp-descend``: the path of an optimiser on a function, with its picture; -m ranks several paths.

Hydra composes the configurations. All descents are checked before the first one starts, and no folder is made
before the last one has ended: they take seconds.
"""

from __future__ import annotations

import os
import re
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra import compose, initialize_config_module
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from bnexp.cli.composed_config import make_job, output_folder
from bnexp.cli.exit_codes import exit_code
from bnexp.cli.hydra_commands import DESCEND
from bnexp.cli.launch import launch
from bnexp.config.overrides import override_values, quote_value
from bnexp.errors import UserError
from bnexp.runs.job import Job
from bnexp.runs.latest import point_latest
from bnexp.signals import StopSignal
from bnexp.sweeps.axes import jobs_of, label_of, varying_keys

if TYPE_CHECKING:
    from bnexp.descent.path import Descent

MAX_FOLDER_NAME = 180  # characters; file systems allow 255


@hydra.main(version_base="1.3", config_path="pkg://bnexp.conf.descent", config_name="config")
def show(_: DictConfig) -> None:
    """What Hydra prints by itself: --cfg, --info, --hydra-help and the shell's completion."""


def entry() -> None:
    """Runs the command line that is in sys.argv. Hydra's errors leave it, all others end the process."""
    args = get_args_parser().parse_args(sys.argv[1:])
    if args.cfg or args.info or args.hydra_help or args.shell_completion:
        show()
        return
    with initialize_config_module(DESCEND.config_module, version_base="1.3", job_name="descend"):
        jobs, folder = compose_jobs(args)
    stop = StopSignal()
    with stop:
        code = exit_code(lambda: descend_all(jobs, folder, stop))
    sys.exit(code)


def compose_jobs(args: Namespace) -> tuple[list[Job], Path | None]:
    """The jobs of a command line, and the folder of all of them, which is None without -m.

    Raises UserError for a folder that is not empty, and Hydra's errors.
    """
    for flag in ("config_path", "config_name", "experimental_rerun"):
        if getattr(args, flag):
            raise UserError(f"--{flag.replace('_', '-')}: bnexp-descend does not take this flag of Hydra's")
    parser = OverridesParser.create()
    overrides = parser.parse_overrides(args.overrides)
    hydra_overrides = [str(o.input_line) for o in overrides if o.is_hydra_override()]
    hydra_overrides += _search_path(args.config_dir)
    task_overrides = [str(o.input_line) for o in overrides if not o.is_hydra_override()]
    if not args.multirun:
        config = _compose([*hydra_overrides, *task_overrides])
        return [_make_job(config, _new_folder(config, "hydra.run.dir"))], None
    config = _compose(hydra_overrides)
    jobs = jobs_of(config, task_overrides, GlobalHydra.instance().config_loader())
    configs = [_compose([*hydra_overrides, *job]) for job in jobs]
    _set(config, "overrides.task", task_overrides)
    _set(config, "runtime.choices", configs[0].hydra.runtime.choices)
    folder = _new_folder(config, "hydra.sweep.dir")
    keys = varying_keys(jobs)
    keys.pop("seed" if len({override_values(job).get("seed") for job in jobs}) == 1 else "", None)
    return [
        _make_job(job_config, folder, number, label_of(job, keys or varying_keys(jobs)))
        for number, (job, job_config) in enumerate(zip(jobs, configs, strict=True))
    ], folder


def _search_path(config_dir: str | None) -> list[str]:
    """The override that adds the folder of --config-dir to those that are searched for choices."""
    if config_dir is None:
        return []
    if not Path(config_dir).is_dir():
        raise UserError(f"--config-dir {config_dir}: there is no such folder")
    return [f"hydra.searchpath=[pkg://bnexp.conf,{quote_value(f'file://{os.path.abspath(config_dir)}')}]"]


def _compose(overrides: list[str]) -> DictConfig:
    config = compose("config", overrides=overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(config)  # names of folders use its choices
    return config


def _set(config: DictConfig, key: str, value: object) -> None:
    """Sets a key of Hydra's part of a configuration, which is read-only."""
    with read_write(config.hydra), open_dict(config.hydra):
        OmegaConf.update(config.hydra, key, value)


def _make_job(
    config: DictConfig, folder: Path, number: int | None = None, label: tuple[str, ...] | list[str] = ()
) -> Job:
    """The job of a configuration: in ``folder``, or with a ``number`` in a folder of its own below it."""
    HydraConfig.instance().set_config(config)
    task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    if number is not None:
        _set(config, "job.num", number)
        _set(config, "job.override_dirname", re.sub(r"[^\w.,=+-]+", "_", ",".join(label))[:MAX_FOLDER_NAME])
        folder = folder / str(config.hydra.sweep.subdir)
    _set(config, "runtime.output_dir", str(folder.absolute()))
    HydraConfig.instance().set_config(config)
    hparams: dict[str, float | str] = dict(override_values(label))
    return make_job(task, folder, number=number, label=" ".join(label), hparams=hparams)


def _new_folder(config: DictConfig, key: str) -> Path:
    """The folder that a key names. Raises UserError where it holds files, or is one."""
    folder = output_folder(config, key)
    for parent in (folder, *folder.parents):
        if parent.exists() and not parent.is_dir():
            raise UserError(f"{key}={folder}: must name a folder, but {parent} is a file")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{key}={folder}: holds files; choose another folder")
    return folder


def descend_all(jobs: list[Job], folder: Path | None, stop: StopSignal) -> None:
    """Runs the descents, prints how they ended, and writes their folders.

    Raises UserError for the first mistake in a configuration, and Interrupted after the files are written.
    """
    from bnexp.compute.process_tuning import set_threads, tune_process_once
    from bnexp.descent.batch import descend_and_rank, descend_one, prepare

    set_threads(1, 0)  # the steps are too small for several
    tune_process_once()
    descents: list[Descent] = prepare(jobs)
    if folder is None:
        descend_one(jobs[0], descents[0], stop)
    else:
        descend_and_rank(jobs, descents, folder, stop)
    point_latest(folder or jobs[0].path)
    if stop.received is not None:
        raise stop.interrupted()


def main(arguments: list[str] | None = None) -> None:
    """Descends with these arguments, by default those of the command line, and ends the process."""
    sys.exit(launch(entry, arguments, DESCEND))


if __name__ == "__main__":
    main()
