"""Tries each fault on real processes and counts the survivals: make torture, or scripts/torture [FAULT ...].

Each trial has its own folder and random numbers, and each command is a new process. Two trials run at a time.
If a trial fails, the exit code is 1 and the folders of the failed trials stay.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent.parent / "tests")]  # tests/helpers is shared with the tests

import command_lines  # noqa: E402
import concurrent_runs  # noqa: E402
import data_files  # noqa: E402
import disks  # noqa: E402
import hostile_inputs  # noqa: E402
import limits  # noqa: E402
import stops  # noqa: E402
from trial import Trial, TrialFailed, TrialSkipped  # noqa: E402


@dataclass(frozen=True)
class Fault:
    description: str
    trials: int
    attempt: Callable[[Trial], None]
    cases: int = 1  # in each trial


@dataclass(frozen=True)
class Outcome:
    """Of one trial."""

    message: str = ""
    failed_cases: int = 0
    skipped: bool = False


def signal_launcher(name: str) -> Callable[[Trial], None]:
    return partial(stops.signal_launcher, name=name)


FAULTS = {
    "kill": Fault("kill -9 of a run at a random moment, then resumed", 50, stops.kill_run),
    "kill-sweep": Fault("kill -9 of a sweep at a random moment", 4, stops.kill_sweep),
    "signal": Fault("Ctrl-C, SIGTERM, SIGUSR1 in a run", 6, stops.signal_run),
    "signal-sweep": Fault(
        "Ctrl-C, SIGTERM, SIGUSR1 in a sweep of one job at a time", 3, signal_launcher("one job")
    ),
    "signal-local": Fault("the same, with two workers", 3, signal_launcher("local")),
    "signal-slurm": Fault("the same, with submitit's jobs on this machine", 2, signal_launcher("slurm")),
    "signal-ray": Fault("the same, with Ray", 2, signal_launcher("ray")),
    "kill-main": Fault("kill -9 of the process that waits for workers", 1, stops.kill_main_process),
    "second": Fault("a second Ctrl-C within one step", 1, stops.second_ctrl_c),
    "limit": Fault("a limit on the size of files", 8, disks.full_by_limit),
    "disk": Fault("a full disk, made larger afterwards", 4, disks.full_disk),
    "vanished": Fault("the output folder vanishes", 2, disks.vanished),
    "data": Fault("a data file is cut, flipped or another one", 6, data_files.data_file),
    "cache": Fault("the cache is cut or flipped", 4, data_files.data_cache),
    "download": Fault("a download is cut, wrong or missing", 6, data_files.download),
    "diverge": Fault("the loss is nan or infinite", 4, limits.diverges),
    "memory": Fault("more memory is needed than there is", 3, limits.out_of_memory),
    "clock": Fault("a clock that runs backwards", 1, limits.clock_runs_back),
    "same-second": Fault("two runs at the same time", 2, concurrent_runs.same_second),
    "same-folder": Fault("two runs in one folder", 4, concurrent_runs.same_folder),
    "foreign": Fault("a folder with somebody else's files", 6, hostile_inputs.foreign_folder),
    "streams": Fault("closed and full outputs, an ascii locale", 6, hostile_inputs.closed_streams),
    "changed": Fault("images change after training", 5, hostile_inputs.changed_data),
    "walk": Fault("links, hidden folders and pipes among images", 4, hostile_inputs.strange_folders),
    "generators": Fault("a network that draws from random and np.random", 2, hostile_inputs.other_generators),
    "flat": Fault("200 runs in one process: memory and open files", 1, limits.stays_flat),
    "lines": Fault(
        "random command lines",
        command_lines.PROCESSES,
        command_lines.random_lines,
        command_lines.CASES_PER_PROCESS,
    ),
}


def main() -> int:
    names = sys.argv[1:] or list(FAULTS)
    if unknown := [name for name in names if name not in FAULTS]:
        print(f"torture: {unknown[0]}: must be one of {', '.join(FAULTS)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGINT, signal.default_int_handler)  # commands started with "&" ignore Ctrl-C
    start, failures = time.monotonic(), 0
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    print(f"{'fault':<55}{'tried':>7}{'survived':>10}{'seconds':>9}", flush=True)
    for name in names:
        failures += try_fault(name, folder)
    if stops.stages:
        counts = ", ".join(f"{stage} {count}" for stage, count in stops.stages.most_common())
        print(f"runs were killed or stopped in: {counts}")
    print(f"{failures} lost, {time.monotonic() - start:.0f} s" + (f"; see {folder}" if failures else ""))
    if not failures:
        shutil.rmtree(folder)
    return 1 if failures else 0


def try_fault(name: str, folder: Path) -> int:
    """All trials of a fault, two at a time. Prints a line; returns the number of failed cases."""
    fault, start = FAULTS[name], time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(partial(try_once, name, folder=folder), range(fault.trials)))
    skipped = any(outcome.skipped for outcome in outcomes)
    cases = 0 if skipped else fault.trials * fault.cases
    failures = sum(outcome.failed_cases for outcome in outcomes)
    seconds = time.monotonic() - start
    print(f"{fault.description:<55}{cases:>7}{cases - failures:>10}{seconds:>9.0f}", flush=True)
    for message in {outcome.message for outcome in outcomes if outcome.message}:
        print(f"  {message}", flush=True)
    return failures


def try_once(name: str, number: int, folder: Path) -> Outcome:
    path = folder / f"{name}-{number}"
    try:
        FAULTS[name].attempt(Trial(path, name, number))
    except TrialSkipped as reason:
        return Outcome(f"not tried: {reason}", skipped=True)
    except TrialFailed as failure:
        return Outcome(f"{path}: {failure}", failure.cases)
    except Exception:
        return Outcome(f"{path}: {traceback.format_exc()}", FAULTS[name].cases)
    shutil.rmtree(path)
    return Outcome()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
