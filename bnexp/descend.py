"""``bnexp-descend``: the path of an optimiser on a function, with its picture; -m ranks several paths.

Hydra composes the configurations. All descents are checked before the first one starts, and no folder is made
before the last one has ended: they take seconds.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra import compose, initialize_config_module
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
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

if TYPE_CHECKING:
    from bnexp.descent.path import Descent

HYDRA_KEYS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
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
    if args.experimental_rerun:
        raise UserError("--experimental-rerun: bnexp-descend does not take this flag of Hydra's")
    overrides = OverridesParser.create().parse_overrides(args.overrides)
    search_path = _search_path(args.config_dir)
    for override in overrides:
        if override.is_hydra_override() and override.key_or_group not in HYDRA_KEYS:
            raise UserError(f"{override.key_or_group}: bnexp-descend takes only {', '.join(HYDRA_KEYS)}")
    if not args.multirun:
        config = _compose([*search_path, *args.overrides])
        return [_make_job(config, _new_folder(config, "hydra.run.dir"))], None
    jobs = _combine(overrides)
    configs = [_compose([*search_path, *job]) for job in jobs]
    _set(configs[0], "overrides.task", args.overrides)  # the sweep's name has its axes
    folder = _new_folder(configs[0], "hydra.sweep.dir")
    values = [override_values(job) for job in jobs]
    keys = [key for key in values[0] if len({job[key] for job in values}) > 1]
    return [
        _make_job(config, folder, number, {key: job[key] for key in keys})
        for number, (job, config) in enumerate(zip(values, configs, strict=True))
    ], folder


def _combine(overrides: list[Override]) -> list[list[str]]:
    """The overrides of each job: every combination of the values. Of equal keys the last counts."""
    texts: dict[str, list[str]] = {}
    for override in overrides:
        key, values = override.get_key_element(), _values(override)
        texts[key] = [f"{key}={value}" for value in dict.fromkeys(values)]
    return [list(job) for job in itertools.product(*texts.values())]


def _values(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if not override.is_discrete_sweep():
        raise UserError(f"{override.input_line}: an axis is a list of values, as in a,b or range(5)")
    pattern = override.value()
    if isinstance(pattern, Glob):  # Hydra itself would look into the first folder only
        values = pattern.filter(DESCEND.choices(override.key_or_group))
    else:
        values = [str(value) for value in override.sweep_string_iterator()]
    if not values:
        raise UserError(f"{override.input_line}: names no value, so there is no job")
    return values


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
    config: DictConfig, folder: Path, number: int | None = None, settings: Mapping[str, str] | None = None
) -> Job:
    """The job of a configuration: in ``folder``, or with a ``number`` in a folder of its own below it.

    ``settings`` are the overrides that distinguish it from the others.
    """
    HydraConfig.instance().set_config(config)
    label = [f"{key}={value}" for key, value in (settings or {}).items()]
    if number is not None:
        name = re.sub(r"[^\w.,=+-]+", "_", ",".join(label) or str(config.name))
        _set(config, "job.num", number)
        _set(config, "job.override_dirname", name[:MAX_FOLDER_NAME])
        folder = folder / str(config.hydra.sweep.subdir)
    _set(config, "runtime.output_dir", str(folder.absolute()))
    HydraConfig.instance().set_config(config)
    task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return make_job(task, folder, number=number, label=" ".join(label), hparams=dict(settings or {}))


def _new_folder(config: DictConfig, key: str) -> Path:
    """The folder that a key names. Raises UserError where it holds files, or is one."""
    folder = output_folder(config, key)
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
    failures: list[str] = []
    if folder is None:
        descend_one(jobs[0], descents[0], stop)
    else:
        failures = descend_and_rank(jobs, descents, folder, stop)
    point_latest(folder or jobs[0].path)
    if stop.received is not None:
        raise stop.interrupted()
    if failures:
        sys.exit(1)


def main(arguments: list[str] | None = None) -> None:
    """Descends with these arguments, by default those of the command line, and ends the process."""
    sys.exit(launch(entry, arguments, DESCEND))


if __name__ == "__main__":
    main()
