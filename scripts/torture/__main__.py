"""Tries each fault for real, and counts what was survived: make torture, or python scripts/torture [FAULT].

Each trial has a folder and a random stream of its own, each command a fresh process; two trials run at once.
Ends with 1 if anything was lost, and then keeps the folder.
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

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "tests")]  # the comparison of two runs, the random words

import disks  # noqa: E402
import limits  # noqa: E402
import lines  # noqa: E402
import stops  # noqa: E402
from trial import Lost, Skip, Trial  # noqa: E402


@dataclass(frozen=True)
class Fault:
    words: str
    times: int
    tried: Callable[[Trial], None]


def launched(name: str) -> Callable[[Trial], None]:
    return partial(stops.signal_launcher, name=name)


FAULTS = {
    "kill": Fault("kill -9 of a run at a random moment, then carried on", 50, stops.kill_run),
    "kill-sweep": Fault("kill -9 of a sweep at a random moment", 4, stops.kill_sweep),
    "signal": Fault("Ctrl-C, SIGTERM, SIGUSR1 in a run", 6, stops.signal_run),
    "signal-sweep": Fault("Ctrl-C, SIGTERM, SIGUSR1 in a sweep", 3, stops.signal_sweep),
    "signal-joblib": Fault("the same, jobs side by side by joblib", 3, launched("joblib")),
    "signal-submitit": Fault("the same, jobs by submitit", 2, launched("submitit")),
    "signal-ray": Fault("the same, jobs on Ray", 2, launched("ray")),
    "kill-joblib": Fault("kill -9 of the process that waits for its workers", 1, stops.kill_joblib),
    "second": Fault("a second Ctrl-C within one step", 1, stops.second_ctrl_c),
    "limit": Fault("files that may grow no further", 8, disks.full_by_limit),
    "disk": Fault("a disk without room, made larger afterwards", 4, disks.full_disk),
    "vanished": Fault("the output folder vanishes", 2, disks.vanished),
    "data": Fault("a data file cut, flipped, another", 6, disks.data_file),
    "cache": Fault("the cache cut, flipped", 4, disks.data_cache),
    "download": Fault("a download cut, wrong, not there", 6, disks.download),
    "diverge": Fault("the loss nan or infinite", 4, limits.diverges),
    "memory": Fault("more memory wanted than there is", 3, limits.out_of_memory),
    "clock": Fault("a clock that runs backwards", 1, limits.clock_runs_back),
    "same-second": Fault("two runs at once", 2, limits.same_second),
    "same-folder": Fault("two runs in one folder", 4, limits.same_folder),
    "flat": Fault("200 runs in one process: memory and open files", 1, limits.stays_flat),
    "lines": Fault("command lines at random", lines.CASES, lines.random_lines),
}


def main() -> int:
    names = sys.argv[1:] or list(FAULTS)
    if unknown := [name for name in names if name not in FAULTS]:
        print(f"torture: {unknown[0]}: must be one of {', '.join(FAULTS)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" has it ignored, in trials too
    started, lost = time.monotonic(), 0
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    print(f"{'fault':<55}{'tried':>7}{'survived':>10}{'seconds':>9}", flush=True)
    for name in names:
        fault, began = FAULTS[name], time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            trials = range(lines.PROCESSES if name == "lines" else fault.times)
            reasons = list(pool.map(partial(attempt, name, folder=folder), trials))
        skipped = [reason for reason in reasons if isinstance(reason, Skip)]
        failed = [reason for reason in reasons if isinstance(reason, str)]
        tried = 0 if skipped else fault.times
        survived = tried - (sum(lines.failed.values()) if name == "lines" else len(failed))
        seconds = time.monotonic() - began
        print(f"{fault.words:<55}{tried:>7}{survived:>10}{seconds:>9.0f}", flush=True)
        for reason in {*failed, *(f"  not tried: {skip}" for skip in skipped)}:
            print(reason, flush=True)
        lost += tried - survived
    if stops.landed:
        print("they were at: " + ", ".join(f"{stage} {n}" for stage, n in stops.landed.most_common()))
    print(f"{lost} lost, {time.monotonic() - started:.0f} s" + (f"; see {folder}" if lost else ""))
    if not lost:
        shutil.rmtree(folder)
    return 1 if lost else 0


def attempt(name: str, number: int, folder: Path) -> str | Skip | None:
    """One trial: None where it was survived, otherwise what was lost, or why it could not be tried."""
    place = folder / f"{name}-{number}"
    try:
        FAULTS[name].tried(Trial(place, name, number))
    except Skip as skip:
        return skip
    except Lost as loss:
        return f"  {place}: {loss}"
    except Exception:
        return f"  {place}: {traceback.format_exc()}"
    shutil.rmtree(place)
    return None


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
