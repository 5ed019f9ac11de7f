"""What happens around a sweep's jobs: progress, skipping what is finished, the verdict at the end."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from bnexp import cli
from bnexp.errors import UserError
from bnexp.runs import SUMMARY, discard, finished_before, load_summary
from bnexp.workers import Listener

log = logging.getLogger(__name__)

VARIABLE = "BNEXP_SWEEP"  # the environment reaches the jobs of every launcher on this machine


@dataclass(frozen=True)
class Job:
    """What a run knows of the sweep it belongs to."""

    at_once: int  # jobs that share this machine
    hparams: dict[str, float | str]  # its overrides: the same keys in every job, and of one type


@dataclass(frozen=True)
class Sweep:
    """A sweep under way, as its jobs know it."""

    folder: str
    jobs: int
    started: float  # seconds since the epoch
    numeric: dict[str, bool]  # the keys of its overrides: whether all their values are numbers

    @classmethod
    def current(cls) -> Sweep | None:
        """The sweep that this process runs or belongs to; None in a single run."""
        text = os.environ.get(VARIABLE)
        return cls(**json.loads(text)) if text else None

    def progress(self, number: int, words: str) -> str:
        """The line over job ``number`` (from 0): which it is, and how long the rest may take."""
        elapsed = max(0.0, time.time() - self.started)  # a clock may be set back under a sweep
        line = f"[{number + 1}/{self.jobs}] {words} | {clock(elapsed)} so far"
        if number:
            line += f", about {clock(elapsed / number * (self.jobs - number))} left"
        return line

    def wants(self, hydra: HydraConf, path: Path, config: DictConfig) -> bool:
        """Says which job is next and whether it has to run; one that has not leaves no new folder."""
        words = " ".join(hydra.overrides.task)
        done = finished_before(Path(self.folder), cli.identity(config))
        if done is not None:
            log.info("%s", self.progress(hydra.job.num, f"{words} | finished before: skipped"))
        elif config.on_failure == "stop" and self.failed_since_start():
            log.info("%s", self.progress(hydra.job.num, f"{words} | not run: a job failed (on_failure=stop)"))
        else:
            log.info("%s", self.progress(hydra.job.num, words))
            return True
        if done != path and not (path / SUMMARY).exists():
            discard(path)
        return False

    def job(self, hydra: HydraConf) -> Job:
        values = settings(hydra.overrides.task)
        hparams = {
            key: _number(values[key]) if numeric else values[key]
            for key, numeric in self.numeric.items()
            if key in values
        }
        return Job(_jobs_at_once(hydra), hparams)  # type: ignore[arg-type]

    def failed_since_start(self) -> bool:
        paths = Path(self.folder).glob(f"*/{SUMMARY}")
        recent = (path.parent for path in paths if path.stat().st_mtime >= self.started)
        return any(load_summary(folder)["status"] in ("failed", "diverged") for folder in recent)


class SweepStart(Callback):
    """Hydra's call before the first job: notes the sweep where its jobs find it."""

    def __init__(self) -> None:
        self.listener: Listener | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        folder = os.path.abspath(str(config.hydra.sweep.dir))
        jobs = jobs_of(config, list(config.hydra.overrides.task))
        numeric: dict[str, bool] = {}
        for job in jobs:
            for key, value in settings(job).items():
                numeric[key] = numeric.get(key, True) and _number(value) is not None
        if str(config.hydra.launcher.get("_target_")).endswith(".JoblibLauncher"):
            self.listener = Listener()
            self.listener.start()
        os.environ[VARIABLE] = json.dumps(asdict(Sweep(folder, len(jobs), time.time(), numeric)))


    def on_multirun_end(self, **_: Any) -> None:
        if self.listener is not None:
            self.listener.end()


def jobs_of(config: DictConfig, words: list[str]) -> list[list[str]]:
    """The overrides of each job that ``words`` make with the axes that a preset gives its sweeper."""
    axes = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*axes, *words])  # of one key twice, the last counts
    return [list(job) for job in BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]]


def conclude(code: int) -> int:
    """The verdict over the sweep that just ended, however it ended, printed and written; then what failed.

    Returns the exit code: ``code``, or 1 where it was 0 and a job failed.
    """
    sweep = Sweep.current()
    os.environ.pop(VARIABLE, None)
    if sweep is None:
        return code
    from bnexp.report.collect import collect
    from bnexp.report.output import looks, write
    from bnexp.report.text import show
    from bnexp.report.verdict import compare

    folder = Path(os.path.relpath(sweep.folder))
    runs, problems = collect([folder])
    failed = [f"diverged: {run.folder}: {run.error}" for run in runs if run.diverged]
    if runs or problems:
        try:
            found = compare(runs, problems, looks=looks(folder))
            print()
            show(found)
            print(f"\n{write(found, folder)}")
        except UserError as error:
            failed.append(str(error))
    for line in [*failed, *map(str, problems)]:
        print(line, file=sys.stderr)
    return code or (1 if failed or any(not problem.used for problem in problems) else 0)


def settings(overrides: list[str]) -> dict[str, str]:
    """``key=value`` words as a dictionary."""
    return dict(word.partition("=")[::2] for word in overrides)


def clock(seconds: float) -> str:
    """h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _jobs_at_once(hydra: HydraConf) -> int:
    """How many jobs of a sweep run side by side on this machine: joblib's n_jobs, else one."""
    wanted = int(hydra.launcher.get("n_jobs") or 1)
    cores = os.cpu_count() or 1
    return max(1, cores + 1 + wanted) if wanted < 0 else wanted


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
