"""Whole commands in processes of their own: start-up, memory, sweeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

from bench.recipes import scaled
from bench.table import Row, Table, interleaved, median

MAIN = "from bnexp.train import main; main()"
SWEEPS = (1, 4, 16, 64)
# A run as its command line gives it, and nothing imported before: the patch waits for the engine's import.
COMMAND = """
import importlib.abc, importlib.util, os, sys, time
class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "bnexp.training.trainer":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def run(module):
            execute(module)
            step = module.Trainer.step
            def first(trainer, *batch):
                float(step(trainer, *batch)[0])
                print("FIRST", time.monotonic(), flush=True)
                os._exit(0)
            module.Trainer.step = first
        spec.loader.exec_module = run
        return spec
sys.meta_path.insert(0, Watch())
from bnexp.train import main
main()
"""


def startup(models: list[str], repeats: int, scale: float) -> list[Table]:
    """From the command to the end of its first step, against ``import torch``."""
    ways: dict[str, Callable[[], float]] = {
        "import torch": partial(_seconds_to, "import torch, time; print('FIRST', time.monotonic())"),
        "digits": partial(_seconds_to, COMMAND),
        "mnist_mlp": partial(_seconds_to, COMMAND, "experiment=mnist_mlp"),
        "mnist_conv": partial(_seconds_to, COMMAND, "experiment=mnist_conv"),
    }
    for way in ways.values():
        way()  # warms the disk; the first may build the cache of images
    found = interleaved(ways, repeats)
    torch_s = found["import torch"]
    rows: list[Row] = [
        {
            "command": name,
            "seconds": median(values),
            "more than import torch": median([a - b for a, b in zip(values, torch_s, strict=True)]),
        }
        for name, values in found.items()
    ]
    note = "Seconds from the start of the process to the end of the first step, on a warm disk."
    return [Table("Start-up", note, rows)]


def _seconds_to(code: str, *words: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()  # one clock for all processes on Linux
        out = python(code, *words, folder=folder)
    line = next(line for line in out.splitlines() if line.startswith("FIRST"))
    return float(line.split()[1]) - started


def memory(models: list[str], repeats: int, scale: float) -> list[Table]:
    """Peak resident memory of fresh processes, by the kernel's own mark."""
    run = "from bnexp.train import main\nmain()"
    few = f"dataset.train_size={scaled(16_000, scale)}"
    cases = {
        "import torch": ("import torch", ()),
        "mnist_mlp": (run, ("experiment=mnist_mlp", "epochs=1")),
        "mnist_conv": (run, ("experiment=mnist_conv", "epochs=1", few)),
    }
    data = 70_000 * 28 * 28 / 2**20  # MiB
    peaks = {name: median([peak_of(*case) for _ in range(repeats)]) for name, case in cases.items()}
    rows: list[Row] = [
        {"process": name, "peak, MiB": peak, "times the images": (peak - peaks["import torch"]) / data}
        for name, peak in peaks.items()
    ]
    note = f"VmHWM of fresh processes; beyond import torch, in multiples of the {data:.0f} MiB of images."
    return [Table("Memory", note, rows)]


def peak_of(code: str, words: tuple[str, ...], folder: str | None = None) -> float:
    """MiB. (ru_maxrss of a child would count the memory of the process that started it.)"""
    mark = "next(line for line in open('/proc/self/status') if 'VmHWM' in line).split()[1]"
    watch = f"import atexit\natexit.register(lambda: print('PEAK', {mark}, flush=True))\n"
    with tempfile.TemporaryDirectory() as empty:
        out = python(watch + code, *words, folder=folder or empty)
    return int(next(line for line in out.splitlines() if line.startswith("PEAK")).split()[1]) / 1024


def sweep(models: list[str], repeats: int, scale: float) -> list[Table]:
    """Sweeps of one-epoch jobs on the embedded digits: what a job costs beside its own run."""
    rows: list[Row] = []
    alone = 0.0
    for jobs in SWEEPS:
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            words = ["-m", "epochs=1", f"seed=range({jobs})", f"hydra.sweep.dir={folder}/sweep"]
            python(MAIN, *words, folder=folder)
            whole = time.monotonic() - started
            runs = summaries(Path(folder))
        inside = [run["time"]["total_s"] for run in runs]
        between = [later["ended"] - earlier["ended"] for earlier, later in pairwise(runs)]
        rest = whole - sum(inside)
        alone = rest if jobs == 1 else alone
        rows.append(
            {
                "jobs": str(jobs),
                "whole command, s": whole,
                "s from job to job": median(between) if between else None,
                "in its run": median(inside),
                "training": median([run["time"]["train_s"] for run in runs]),
                "Hydra and verdict, s a job more": (rest - alone) / (jobs - 1) if between else None,
            }
        )
    note = (
        "`bnexp -m epochs=1 seed=range(N)`; medians over the jobs. The last column is all that is outside the"
        " runs and grows with them: composing, folders, callbacks, verdict."
    )
    return [Table("Sweeps", note, rows)]


def summaries(folder: Path) -> list[dict]:
    """The summaries of a sweep's jobs, with the time each was written last, in that order."""
    paths = list(folder.glob("sweep/*/summary.json"))
    runs = [json.loads(path.read_text()) | {"ended": path.stat().st_mtime} for path in paths]
    assert runs, f"no run in {folder}"
    assert all(run["status"] == "finished" for run in runs), [run["error"] for run in runs]
    return sorted(runs, key=lambda run: run["ended"])


def python(code: str, *words: str, folder: str) -> str:
    """What the code prints, in a process of its own, with ``words`` as its arguments."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True, env=dict(os.environ)
    )
    if done.returncode:
        sys.exit(f"benchmark: {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout
