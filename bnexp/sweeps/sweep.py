"""What happens around a sweep's jobs: progress, skipping what is finished, the verdict at the end."""

from __future__ import annotations

import logging
import os
import pickle
import shlex
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.singleton import Singleton
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from bnexp.cli import composed_config, exit_codes, hydra_errors
from bnexp.compute import torchrun
from bnexp.config import instantiate
from bnexp.config.schema import parse
from bnexp.errors import UserError
from bnexp.runs.folder import SUMMARY, discard, load_summary
from bnexp.runs.sweep_job import SweepJob
from bnexp.sweeps import launchers
from bnexp.sweeps.job_folders import completed_jobs, job_folder
from bnexp.sweeps.workers import Listener

log = logging.getLogger(__name__)

# What a job on another machine needs of the environment in which its sweep was started.
VARIABLES = ("BNEXP_DATA_DIR", "GOMP_SPINCOUNT")


@dataclass(frozen=True)
class Sweep:
    """A sweep under way, as its jobs know it."""

    folder: str
    jobs: int
    done: int  # of them, when it started
    started: float  # seconds since the epoch
    numeric: dict[str, bool]  # the keys that tell its jobs apart: whether all their values are numbers
    at_once: int | None  # jobs that share a machine; None where the launcher parts it among them
    deals_gpus: bool
    stop_file: Path | None  # where it stands, the jobs stop: for workers that no signal reaches
    command: str
    cwd: str
    environment: dict[str, str]

    @classmethod
    def current(cls) -> Sweep | None:
        """The sweep that this process runs or belongs to; None in a single run."""
        return _UnderWay().sweep

    def progress(self, number: int, words: str) -> str:
        """The line over job ``number`` (from 0): which it is, and how long the rest may take."""
        elapsed = max(0.0, time.time() - self.started)  # a clock may be set back under a sweep
        line = f"[{number + 1}/{self.jobs}] {words} | {format_duration(elapsed)} so far"
        before = number + 1 - self.at_once if self.at_once else 0  # all before it but those beside it
        trained = before - self.done  # where those that are skipped come first; no guess until then
        if trained > 0:
            line += f", about {format_duration(elapsed / trained * (self.jobs - before))} left"
        return line

    def wants(self, hydra: HydraConf, path: Path, config: DictConfig) -> bool:
        """Says which job is next and whether it has to run; one that has not leaves no new folder."""
        words = " ".join(self.own(hydra.overrides.task))
        done = completed_jobs(Path(self.folder), composed_config.config_identity(config))
        if done:
            ended = load_summary(done[0])["status"]
            log.info("%s", self.progress(hydra.job.num, f"{words} | {ended} before: skipped"))
        elif config.on_failure == "stop" and self.failed_since_start():
            log.info("%s", self.progress(hydra.job.num, f"{words} | not run: a job failed (on_failure=stop)"))
        else:
            log.info("%s", self.progress(hydra.job.num, words))
            return True
        if not (path / SUMMARY).exists():
            discard(path)
        return False

    def own(self, overrides: Iterable[str]) -> list[str]:
        """Those of a job's overrides that tell it from the others."""
        return [word for word in overrides if word.partition("=")[0] in self.numeric]

    def job(self, hydra: HydraConf) -> SweepJob:
        values = settings(hydra.overrides.task)
        hparams = {
            key: _number(values[key]) if numeric else values[key]
            for key, numeric in self.numeric.items()
            if key in values
        }
        quiet = launchers.one_console(hydra) and self.at_once != 1  # type: ignore[arg-type]
        turn = hydra.job.num if self.deals_gpus else None
        return SweepJob(self.at_once or 1, turn, quiet, hparams, self.command)  # type: ignore[arg-type]

    def failed_since_start(self) -> bool:
        paths = Path(self.folder).glob(f"*/{SUMMARY}")
        recent = (path.parent for path in paths if path.stat().st_mtime >= self.started)
        return any(load_summary(folder)["status"] in ("failed", "diverged") for folder in recent)


class _UnderWay(metaclass=Singleton):
    """Holds the sweep. Hydra's launchers hand its singletons to every job, on whatever machine that runs."""

    sweep: Sweep | None = None


class SweepStart(Callback):
    """Hydra's calls before the first job, which notes the sweep where its jobs find it, and before each."""

    def __init__(self) -> None:
        self.listener: Listener | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        if torchrun.is_distributed():
            sys.exit(
                exit_codes.exit_code(_refuse_torchrun)
            )  # Hydra turns a callback's exceptions into warnings
        folder = os.path.abspath(str(config.hydra.sweep.dir))
        # A worker's current folder may be another, and Hydra makes the job's folder before bnexp is asked.
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(folder)}")
        jobs = jobs_of(config, list(config.hydra.overrides.task))
        _Composed.keep()
        if code := exit_codes.exit_code(
            lambda: hydra_errors.translate_hydra_errors(lambda: _check(config, jobs), sys.argv[1:])
        ):
            sys.exit(code)  # before anything is written
        stop_file = None
        if launchers.kind(config.hydra) == "RayLauncher":  # its workers may be on other machines
            stop_file = Path(folder) / ".stop"
            stop_file.unlink(missing_ok=True)
        shared = launchers.at_once(config.hydra, len(jobs))
        _UnderWay().sweep = Sweep(
            folder, len(jobs), len(completed_jobs(Path(folder))), time.time(), varying_keys(jobs),
            at_once=shared, deals_gpus=launchers.deals_gpus(config.hydra, shared),
            stop_file=stop_file,
            command=shlex.join(sys.argv), cwd=os.getcwd(),
            environment={name: os.environ[name] for name in VARIABLES if name in os.environ},
        )  # fmt: skip
        launchers.prepare(config.hydra)
        if launchers.kind(config.hydra) == "JoblibLauncher":
            self.listener = Listener()
            self.listener.start()

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        if (sweep := Sweep.current()) is not None:
            os.environ.update(sweep.environment)
            os.chdir(sweep.cwd)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        if self.listener is not None:
            self.listener.end()


class _Composed:
    """Jobs are composed to be checked, by Hydra to see that they can be, to be run: once for all of it."""

    MOST = 1000  # 20 kB each
    compose = ConfigLoaderImpl.load_sweep_config
    kept: ClassVar[dict[tuple[str, ...], list[bytes]]] = {}  # as often as it will be asked for

    @classmethod
    def keep(cls) -> None:
        cls.kept.clear()

        def once(loader: ConfigLoaderImpl, master_config: DictConfig, sweep_overrides: list[str]) -> Any:
            if kept := cls.kept.get(job := tuple(sweep_overrides)):
                found = pickle.loads(kept.pop())
                if not kept:
                    del cls.kept[job]
                return found
            return cls.first(loader, master_config, sweep_overrides, more=1)

        setattr(ConfigLoaderImpl, "load_sweep_config", once)  # noqa: B010

    @classmethod
    def first(cls, loader: Any, master_config: DictConfig, sweep_overrides: list[str], more: int) -> Any:
        """The job's configuration, kept for ``more`` times."""
        found = cls.compose(loader, master_config, sweep_overrides)
        if len(cls.kept) < cls.MOST:
            cls.kept[tuple(sweep_overrides)] = [pickle.dumps(found)] * more
        return found


def _check(config: DictConfig, jobs: list[list[str]]) -> None:
    """Raises UserError for the first job whose configuration is none.

    Every value of every axis is looked at once, not each of their combinations: there may be thousands.
    """
    if config.hydra.sweeper._target_ != f"{BasicSweeper.__module__}.{BasicSweeper.__name__}":
        return  # one that chooses its jobs as it goes
    loader = GlobalHydra.instance().config_loader()
    seen: set[str] = set()
    for job in jobs:
        if seen.issuperset(job):
            continue
        seen.update(job)
        composed = _Composed.first(loader, config, job, more=2)
        HydraConfig.instance().set_config(composed)  # as Hydra does before a job: names hold its choices
        keys = [str(key) for key in composed if key != "hydra"]
        instantiate.check_components(
            parse(composed_config.resolve_config(OmegaConf.masked_copy(composed, keys)))
        )


def _refuse_torchrun() -> None:
    raise UserError(
        "-m: torchrun's processes train one network; hydra/launcher=joblib runs a sweep's jobs side by side"
    )


def jobs_of(config: DictConfig, words: list[str]) -> list[list[str]]:
    """The overrides of each job that ``words`` make with the axes that a preset gives its sweeper."""
    axes = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*axes, *words])  # of one key twice, the last counts
    return [list(job) for job in BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]]


def varying_keys(jobs: list[list[str]]) -> dict[str, bool]:
    """The keys that tell jobs apart, seed and fold among them, and whether all their values are numbers."""
    values: dict[str, list[str]] = {}
    for job in jobs:
        for key, value in settings(job).items():
            values.setdefault(key, []).append(value)
    apart = {
        key: found for key, found in values.items() if len(set(found)) > 1 or key in ("seed", "dataset.fold")
    }
    return {key: None not in map(_number, found) for key, found in (apart or values).items()}


def _folder_of_job(*, _root_: DictConfig) -> str:
    """The name of a job's folder within its sweep's."""
    sweep, overrides = Sweep.current(), list(_root_.hydra.overrides.task)
    words = ",".join(sorted(sweep.own(overrides) if sweep else overrides))
    return job_folder(Path(_root_.hydra.sweep.dir), words, composed_config.config_identity(_root_))


OmegaConf.register_new_resolver("bnexp.job_folder", _folder_of_job, replace=True)


def finish_sweep(code: int) -> int:
    """The verdict over the sweep that just ended, however it ended, printed and written; then what failed.

    Returns the exit code: ``code``, or 1 where it was 0 and a job failed.
    """
    sweep = Sweep.current()
    _UnderWay().sweep = None
    lost = launchers.finish(sweep.stop_file if sweep else None)
    if sweep is None:
        return code
    from bnexp.report.analysis.verdict import compare
    from bnexp.report.read.looks import earlier_looks
    from bnexp.report.read.runs import read_runs
    from bnexp.report.render.terminal import print_comparison
    from bnexp.report.write import write_report

    folder = Path(os.path.relpath(sweep.folder))
    runs, problems = read_runs([folder])
    failed = [f"diverged: {run.folder}: {run.error}" for run in runs if run.diverged]
    if runs or problems:
        try:
            found = compare(runs, problems, looks=earlier_looks([folder]))
            print()
            print_comparison(found)
            print(f"\n{write_report(found, folder)}")
        except UserError as error:
            failed.append(str(error))
    for line in [*failed, *map(str, problems), *lost]:
        print(line, file=sys.stderr)
    if code >= 128:
        print(f"carry on: bnexp-resume {shlex.quote(str(folder))}")
    return code or (1 if failed or lost or any(not problem.used for problem in problems) else 0)


def settings(overrides: list[str]) -> dict[str, str]:
    """``key=value`` words as a dictionary."""
    return dict(word.partition("=")[::2] for word in overrides)


def format_duration(seconds: float) -> str:
    """h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def quoted(text: str) -> str:
    """A value as Hydra's command line takes it: one text, whatever is in it."""
    return "'" + text.replace("'", "\\'") + "'"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
