"""What happens around a sweep's jobs: progress, skipping what is finished, the verdict at the end."""

from __future__ import annotations

import logging
import os
import pickle
import shlex
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

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
from bnexp.config.overrides import override_values, quote_value, split_override
from bnexp.config.schema import parse
from bnexp.errors import UserError
from bnexp.runs.folder import LOG, SUMMARY, discard, load_summary
from bnexp.runs.sweep_job import SweepJob
from bnexp.sweeps import launchers
from bnexp.sweeps.job_folders import completed_jobs, is_free, job_folder
from bnexp.sweeps.workers import SignalForwarder

if TYPE_CHECKING:
    from bnexp.report.analysis.verdict import Verdict

log = logging.getLogger(__name__)

MAX_MISSING = 10  # jobs without a run that are listed one by one
PAIRING_KEYS = ("seed", "dataset.fold")  # runs that agree in them are twins
# Environment variables that a job on another machine takes over from the command that started the sweep.
VARIABLES = ("BNEXP_DATA_DIR", "GOMP_SPINCOUNT")


@dataclass(frozen=True)
class Sweep:
    """The current sweep. Launchers send it to every job."""

    folder: str
    jobs: int
    completed: int  # how many of the jobs were completed when the sweep started
    start: float  # seconds since 1970
    numeric: dict[str, bool]  # the keys that distinguish jobs -> whether all their values are numbers
    jobs_at_once: int | None  # how many jobs share a machine; None if the launcher divides it among them
    deals_gpus: bool
    stop_file: Path | None  # its existence tells workers to stop that no signal reaches
    command: str
    cwd: str
    environment: dict[str, str]

    @classmethod
    def current(cls) -> Sweep | None:
        """The sweep that this process runs or belongs to; None in a single run."""
        return _CurrentSweep().sweep

    def progress(self, number: int, label: str) -> str:
        """The line above the output of job ``number`` (from 0), with an estimate of the remaining time."""
        elapsed = max(0.0, time.time() - self.start)  # somebody may set the clock back during a sweep
        line = f"[{number + 1}/{self.jobs}] {label} | {format_duration(elapsed)} so far"
        # Of the jobs up to this one, as many as run at the same time have not ended.
        ended = number + 1 - self.jobs_at_once if self.jobs_at_once else 0
        trained = ended - self.completed  # assumes that the skipped jobs come first; no estimate until then
        if trained > 0:
            line += f", about {format_duration(elapsed / trained * (self.jobs - ended))} left"
        return line

    def should_run(self, hydra: HydraConf, path: Path, config: DictConfig) -> bool:
        """Whether a job has to run; logs its line. Removes the new folder of a job that is skipped."""
        label = " ".join(self.distinguishing_overrides(hydra.overrides.task))
        completed = completed_jobs(Path(self.folder), composed_config.config_identity(config))
        if completed:
            status = load_summary(completed[0])["status"]
            log.info("%s", self.progress(hydra.job.num, f"{label} | {status} before: skipped"))
        elif config.on_failure == "stop" and self.failed_since_start():
            log.info("%s", self.progress(hydra.job.num, f"{label} | not run: a job failed (on_failure=stop)"))
        else:
            log.info("%s", self.progress(hydra.job.num, label))
            return True
        if [entry.name for entry in path.iterdir()] == [LOG]:  # Hydra has just created the folder
            discard(path, [path])
        return False

    def distinguishing_overrides(self, overrides: Iterable[str]) -> list[str]:
        """The overrides of a job that distinguish it from the sweep's other jobs."""
        return [override for override in overrides if split_override(override)[0] in self.numeric]

    def job(self, hydra: HydraConf) -> SweepJob:
        values = override_values(hydra.overrides.task)
        hparams = {
            key: _number(values[key]) if numeric else values[key]
            for key, numeric in self.numeric.items()
            if key in values
        }
        quiet = launchers.jobs_share_console(hydra) and self.jobs_at_once != 1  # type: ignore[arg-type]
        number = hydra.job.num if self.deals_gpus else None
        return SweepJob(self.jobs_at_once or 1, number, quiet, hparams, self.command)  # type: ignore[arg-type]

    def failed_since_start(self) -> bool:
        paths = Path(self.folder).glob(f"*/{SUMMARY}")
        recent = (path.parent for path in paths if path.stat().st_mtime >= self.start)
        return any(load_summary(folder)["status"] in ("failed", "diverged") for folder in recent)


class _CurrentSweep(metaclass=Singleton):
    """Holds the sweep. Hydra's launchers copy Hydra's singletons to every job, also on other machines."""

    sweep: Sweep | None = None
    # Of each planned job, in the process that planned them: its overrides, and its hash where it is known.
    planned: ClassVar[list[tuple[list[str], str | None]]] = []


class SweepStart(Callback):
    """Hydra's callback: before the first job it checks the sweep and stores it for the jobs."""

    def __init__(self) -> None:
        self.forwarder: SignalForwarder | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        def start() -> None:
            hydra_errors.translate_hydra_errors(lambda: self._start(config), sys.argv[1:])

        if code := exit_codes.exit_code(start):
            sys.exit(code)  # Hydra turns an exception of a callback into a warning, but not SystemExit

    def _start(self, config: DictConfig) -> None:
        if torchrun.is_distributed():
            raise UserError(
                "-m: torchrun's processes train one network;"
                " hydra/launcher=joblib runs a sweep's jobs side by side"
            )
        folder = os.path.abspath(_check_folder(config))
        # An absolute path: a worker may have another current folder, and Hydra makes the job's folder first.
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quote_value(folder)}")
        if _is_basic_sweeper(config):
            task_overrides = [str(override) for override in config.hydra.overrides.task]
            config.hydra.sweeper.params = _axes_with_seeds_first(config, task_overrides)
        jobs = _plan(config)
        stop_file = None
        if launchers.kind(config.hydra) == "RayLauncher":  # its workers may be on other machines
            stop_file = Path(folder) / ".stop"
            stop_file.unlink(missing_ok=True)
        jobs_at_once = launchers.jobs_at_once(config.hydra, len(jobs))
        _CurrentSweep().sweep = Sweep(
            folder, len(jobs), len(completed_jobs(Path(folder))), time.time(), varying_keys(jobs),
            jobs_at_once=jobs_at_once, deals_gpus=launchers.deals_gpus(config.hydra, jobs_at_once),
            stop_file=stop_file,
            command=shlex.join(sys.argv), cwd=os.getcwd(),
            environment={name: os.environ[name] for name in VARIABLES if name in os.environ},
        )  # fmt: skip
        launchers.prepare(config.hydra)
        if launchers.kind(config.hydra) == "JoblibLauncher":
            self.forwarder = SignalForwarder()
            self.forwarder.start()

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        if (sweep := Sweep.current()) is not None:
            os.environ.update(sweep.environment)
            os.chdir(sweep.cwd)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        if self.forwarder is not None:
            self.forwarder.end()


class _ComposedConfigs:
    """Caches composed configs: each job would be composed three times, by the check and twice by Hydra."""

    MOST = 1000  # 20 kB each
    compose = ConfigLoaderImpl.load_sweep_config
    cache: ClassVar[dict[tuple[str, ...], list[bytes]]] = {}  # one copy for each later request

    @classmethod
    def install(cls) -> None:
        cls.cache.clear()

        def load(loader: ConfigLoaderImpl, master_config: DictConfig, sweep_overrides: list[str]) -> Any:
            if copies := cls.cache.get(job := tuple(sweep_overrides)):
                config = pickle.loads(copies.pop())
                if not copies:
                    del cls.cache[job]
                return config
            return cls.compose_and_cache(loader, master_config, sweep_overrides, copies=1)

        setattr(ConfigLoaderImpl, "load_sweep_config", load)  # noqa: B010

    @classmethod
    def compose_and_cache(
        cls, loader: Any, master_config: DictConfig, sweep_overrides: list[str], copies: int
    ) -> Any:
        """Composes a job's configuration and caches ``copies`` of it."""
        config = cls.compose(loader, master_config, sweep_overrides)
        if len(cls.cache) < cls.MOST:
            cls.cache[tuple(sweep_overrides)] = [pickle.dumps(config)] * copies
        return config


def _check_folder(config: DictConfig) -> Path:
    """The sweep's folder. Raises UserError where it holds files that belong to no sweep of bnexp."""
    folder = composed_config.output_folder(config, "hydra.sweep.dir")
    try:
        free = is_free(folder)
    except OSError as error:
        raise UserError(f"hydra.sweep.dir={folder}: cannot be read ({error.strerror})") from None
    if not free:
        raise UserError(f"hydra.sweep.dir={folder}: holds files but no sweep of bnexp; choose another folder")
    return folder


def _plan(config: DictConfig) -> list[list[str]]:
    """The overrides of each job. Raises UserError for the first job with an invalid configuration.

    Every value of every axis is checked once, not every combination of values: there may be thousands.
    """
    jobs = jobs_of(config, list(config.hydra.overrides.task))
    _ComposedConfigs.install()
    _CurrentSweep.planned.clear()
    if not _is_basic_sweeper(config):
        return jobs  # another sweeper chooses its jobs while it runs
    loader = GlobalHydra.instance().config_loader()
    checked: set[str] = set()
    hashes: dict[tuple[str, ...], str] = {}
    for job in jobs:
        if tuple(job) in hashes:  # the same value was typed twice
            _CurrentSweep.planned.append((job, hashes[tuple(job)]))
            continue
        is_new = not checked.issuperset(job)
        if not is_new and len(jobs) > _ComposedConfigs.MOST:
            _CurrentSweep.planned.append((job, None))  # it would be composed once more for its hash
            continue
        checked.update(job)
        composed = _ComposedConfigs.compose_and_cache(loader, config, job, copies=2)
        hashes[tuple(job)] = composed_config.config_identity(composed)
        _CurrentSweep.planned.append((job, hashes[tuple(job)]))
        if not is_new:
            continue
        HydraConfig.instance().set_config(composed)  # Hydra does so before a job; names use its choices
        keys = [str(key) for key in composed if key != "hydra"]
        instantiate.check_components(
            parse(composed_config.resolve_config(OmegaConf.masked_copy(composed, keys)))
        )
    return jobs


def _is_basic_sweeper(config: DictConfig) -> bool:
    return bool(config.hydra.sweeper._target_ == f"{BasicSweeper.__module__}.{BasicSweeper.__name__}")


def jobs_of(config: DictConfig, arguments: list[str]) -> list[list[str]]:
    """The overrides of each job that follow from the arguments and from the axes of a preset.

    Raises UserError for an axis without a value.
    """
    axes = [f"{key}={value}" for key, value in _axes_with_seeds_first(config, arguments).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())  # for glob(...)
    overrides = parser.parse_overrides([*axes, *arguments])  # of equal keys the last counts
    for override in overrides:
        if override.is_discrete_sweep() and not list(override.sweep_string_iterator()):
            raise UserError(f"{override.input_line}: names no value, so there is no job")
    return [list(job) for job in BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]]


def _axes_with_seeds_first(config: DictConfig, arguments: list[str]) -> dict[str, str]:
    """The axes of a preset, with those of the seed and the fold in front, also if they are in ``arguments``.

    The first axis changes last. So twins are trained side by side, and a sweep that is cut short can compare
    what it has.
    """
    axes = {str(key): str(value) for key, value in (config.hydra.sweeper.get("params") or {}).items()}
    values = axes | override_values(arguments)
    return {key: values[key] for key in PAIRING_KEYS if key in values} | axes


def varying_keys(jobs: list[list[str]]) -> dict[str, bool]:
    """The keys that distinguish jobs, seed and fold always, and whether all values of a key are numbers."""
    values: dict[str, list[str]] = {}
    for job in jobs:
        for key, value in override_values(job).items():
            values.setdefault(key, []).append(value)
    varying = {
        key: texts for key, texts in values.items() if len(set(texts)) > 1 or key in ("seed", "dataset.fold")
    }
    return {key: None not in map(_number, texts) for key, texts in (varying or values).items()}


def _folder_of_job(*, _root_: DictConfig) -> str:
    """The name of a job's folder in the sweep's folder."""
    sweep, overrides = Sweep.current(), list(_root_.hydra.overrides.task)
    label = ",".join(sorted(sweep.distinguishing_overrides(overrides) if sweep else overrides))
    return job_folder(Path(_root_.hydra.sweep.dir), label, composed_config.config_identity(_root_))


OmegaConf.register_new_resolver("bnexp.job_folder", _folder_of_job, replace=True)


def finish_sweep(code: int) -> int:
    """Prints and writes the verdict over the sweep that just ended, then lists the failed jobs.

    Returns the exit code: ``code``, or 1 if ``code`` is 0 and a job failed.
    """
    sweep = Sweep.current()
    _CurrentSweep().sweep = None
    lost_jobs = launchers.finish(sweep.stop_file if sweep else None)
    if sweep is None:
        return code
    from bnexp.report.analysis.verdict import compare
    from bnexp.report.read.looks import earlier_looks
    from bnexp.report.read.runs import read_runs

    folder = Path(os.path.relpath(sweep.folder))
    runs, problems = read_runs([folder])
    failed = [f"diverged: {run.folder}: {run.error}" for run in runs if run.diverged]
    if runs or problems:
        try:
            verdict = compare(runs, problems, looks=earlier_looks([folder]))
        except UserError as error:
            failed.append(str(error))
        else:
            failed += _report(verdict, folder)
    missing = [] if code >= 128 else _missing_jobs(folder)
    for line in [*failed, *map(str, problems), *lost_jobs, *missing]:
        print(line, file=sys.stderr)
    if code >= 128:
        print(f"carry on: bnexp-resume {shlex.quote(str(folder))}")
    is_incomplete = failed or lost_jobs or missing or any(not problem.used for problem in problems)
    return code or (1 if is_incomplete else 0)


def _missing_jobs(folder: Path) -> list[str]:
    """One line for each planned job without a run in the sweep's folder, and their number."""
    overrides: set[frozenset[str]] = set()
    hashes: set[str] = set()
    for path in folder.rglob(SUMMARY):
        with suppress(UserError):
            summary = load_summary(path.parent)
            overrides.add(frozenset(map(str, summary.get("overrides") or ())))
            hashes.add(str(summary.get("config_hash")))
    planned = _CurrentSweep.planned
    missing = [
        job for job, config_hash in planned if config_hash not in hashes and frozenset(job) not in overrides
    ]
    if not missing:
        return []
    lines = [f"not run: {' '.join(job)}" for job in missing[:MAX_MISSING]]
    return [*lines, f"not run: {len(missing)} of {len(planned)} jobs"]


def _report(verdict: Verdict, folder: Path) -> list[str]:
    """Writes the verdict's files, then prints it. Returns what went wrong, in one line or none."""
    from bnexp.report.render.terminal import print_verdict
    from bnexp.report.write import write_report

    problems, last_line = [], ""
    try:
        last_line = f"\n{write_report(verdict, folder)}"  # first: printing may fail
    except UserError as error:
        problems.append(str(error))
    print()
    print_verdict(verdict)
    if last_line:
        print(last_line)
    return problems


def format_duration(seconds: float) -> str:
    """h:mm:ss, or m:ss below an hour."""
    minutes, full_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{full_seconds:02}" if hours else f"{minutes}:{full_seconds:02}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
