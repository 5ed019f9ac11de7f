"""Whole commands in processes of their own: start-up time, memory, sweeps."""

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

from bench.recipes import scale_images
from bench.table import Row, Table, measure_in_turn, median, median_ratio, ratio_range

MAIN = "from bnexp.train import main; main()"
SWEEP_SIZES = (1, 4, 16, 64)
IMAGES_MIB = 70_000 * 28 * 28 / 2**20  # MNIST: train and test, one byte a pixel
# Runs a command and ends it after its first training step. Trainer.step is patched when bnexp imports its
# module: an import of the module here, before the command starts, would shorten the measured start-up.
RUN_FIRST_STEP = """
import importlib.abc, importlib.util, os, sys, time
end_process = os._exit  # in a step, os._exit raises an error
class PatchTrainer(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "bnexp.training.trainer":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def execute_and_patch(module):
            execute(module)
            step = module.Trainer.step
            def step_and_exit(trainer, batch):
                float(step(trainer, batch).loss)
                print("FIRST", time.monotonic(), flush=True)
                end_process(0)
            module.Trainer.step = step_and_exit
        spec.loader.exec_module = execute_and_patch
        return spec
sys.meta_path.insert(0, PatchTrainer())
from bnexp.train import main
main()
"""


def startup(models: list[str], repeats: int, scale: float) -> list[Table]:
    """The time from the start of a command to the end of its first step, against ``import torch``."""
    measurements: dict[str, Callable[[], float]] = {
        "import torch": partial(_seconds_to_first, "import torch, time; print('FIRST', time.monotonic())"),
        "digits": partial(_seconds_to_first, RUN_FIRST_STEP),
        "mnist_mlp": partial(_seconds_to_first, RUN_FIRST_STEP, "experiment=mnist_mlp"),
        "mnist_conv": partial(_seconds_to_first, RUN_FIRST_STEP, "experiment=mnist_conv"),
    }
    for measure in measurements.values():
        measure()  # warm-up: files in the page cache; the first run may also build the cache of images
    seconds = measure_in_turn(measurements, repeats)
    torch_s = seconds["import torch"]
    rows: list[Row] = [
        {
            "command": name,
            "seconds": median(values),
            "more than import torch": median([a - b for a, b in zip(values, torch_s, strict=True)]),
        }
        for name, values in seconds.items()
    ]
    note = "Seconds from the start of the process to the end of the first step, with all files in memory."
    return [Table("Start-up", note, rows)]


def _seconds_to_first(code: str, *args: str) -> float:
    """Seconds from the start of the process to the line FIRST of its output, which holds a time."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()  # on Linux, all processes share this clock
        out = run_python(code, *args, folder=folder)
    line = next(line for line in out.splitlines() if line.startswith("FIRST"))
    return float(line.split()[1]) - start


def memory(models: list[str], repeats: int, scale: float) -> list[Table]:
    """Peak resident memory of new processes, as the kernel records it."""
    train_size = f"dataset.train_size={scale_images(16_000, scale)}"
    commands = {
        "import torch": ("import torch", ()),
        "mnist_mlp": (MAIN, ("experiment=mnist_mlp", "epochs=1")),
        "mnist_conv": (MAIN, ("experiment=mnist_conv", "epochs=1", train_size)),
    }
    peaks = {
        name: median([peak_memory(*command) for _ in range(repeats)]) for name, command in commands.items()
    }
    rows: list[Row] = [
        {"process": name, "peak, MiB": peak, "times the images": (peak - peaks["import torch"]) / IMAGES_MIB}
        for name, peak in peaks.items()
    ]
    note = (
        "VmHWM of new processes. Last column: the peak beyond that of import torch, divided by the"
        f" {IMAGES_MIB:.0f} MiB of the images."
    )
    return [Table("Memory", note, rows)]


def peak_memory(code: str, args: tuple[str, ...], folder: str | None = None) -> float:
    """MiB. ru_maxrss would not do: a child starts with the memory of the process that started it."""
    peak = "next(line for line in open('/proc/self/status') if 'VmHWM' in line).split()[1]"
    print_peak = f"import atexit\natexit.register(lambda: print('PEAK', {peak}, flush=True))\n"
    with tempfile.TemporaryDirectory() as empty_folder:
        out = run_python(print_peak + code, *args, folder=folder or empty_folder)
    return int(next(line for line in out.splitlines() if line.startswith("PEAK")).split()[1]) / 1024


ONE_BY_ONE = ("hydra.launcher.jobs=1", "hydra.launcher.fuse=1")
SWEEP_MODES = {
    "one by one": ONE_BY_ONE,
    "processes": ("hydra.launcher.fuse=1",),
    "seeds together": ("hydra.launcher.jobs=1",),
    "as it comes": (),
}
TEN_SEEDS = ("model.norm=none,batch", "seed=range(10)", "epochs=3")
# Each sweep with the number of training images; None: those of the recipe.
WHOLE_SWEEPS: dict[str, tuple[tuple[str, ...], int | None]] = {
    "MLP on MNIST, 20 jobs, 3 epochs": (("experiment=mnist_mlp", *TEN_SEEDS), 60_000),
    "conv on MNIST, 20 jobs, 3 epochs": (("experiment=mnist_conv", *TEN_SEEDS), 60_000),
    "LeNet on Fashion-MNIST, 20 jobs, 3 epochs": (("experiment=fashion_lenet", *TEN_SEEDS), 60_000),
    "MLP on the digits, 64 jobs, 1 epoch": (
        ("model.norm=none,batch", "seed=range(32)", "epochs=1"), None
    ),
}  # fmt: skip


def sweep(models: list[str], repeats: int, scale: float) -> list[Table]:
    """Sweeps of one-epoch jobs on the embedded digits: what a job costs besides its run."""
    rows: list[Row] = []
    overhead_of_one_job = 0.0
    for jobs in SWEEP_SIZES:
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic()
            args = ["-m", "epochs=1", f"seed=range({jobs})", *ONE_BY_ONE, f"hydra.sweep.dir={folder}/sweep"]
            run_python(MAIN, *args, folder=folder)
            command_s = time.monotonic() - start
            runs = read_summaries(Path(folder))
        run_s = [run["time"]["total_s"] for run in runs]
        intervals = [later["ended"] - earlier["ended"] for earlier, later in pairwise(runs)]
        overhead = command_s - sum(run_s)
        overhead_of_one_job = overhead if jobs == 1 else overhead_of_one_job
        per_job = (overhead - overhead_of_one_job) / (jobs - 1) if intervals else None
        rows.append(
            {
                "jobs": str(jobs),
                "whole command, s": command_s,
                "from job to job, s": median(intervals) if intervals else None,
                "in the run, s": median(run_s),
                "training, s": median([run["time"]["train_s"] for run in runs]),
                "Hydra and verdict, s per extra job": per_job,
            }
        )
    note = (
        "`bnexp -m epochs=1 seed=range(N) hydra.launcher.jobs=1 hydra.launcher.fuse=1`; medians over the"
        " jobs. Last column: the time outside of the runs that grows with their number (composing, folders,"
        " verdict)."
    )
    return [Table("Sweeps", note, rows), _whole_machine(repeats, scale)]


def _whole_machine(repeats: int, scale: float) -> Table:
    """Whole sweeps: one job after the other in one process, against all cores and seeds together."""
    rows: list[Row] = []
    for name, (overrides, train_size) in WHOLE_SWEEPS.items():
        size = [f"dataset.train_size={scale_images(train_size, scale)}"] if train_size else []
        measurements = {
            mode: partial(_sweep_seconds, [*overrides, *size, *keys]) for mode, keys in SWEEP_MODES.items()
        }
        seconds = measure_in_turn(measurements, repeats)
        slowest = seconds["one by one"]
        rows.append(
            {"sweep": name}
            | {f"{mode}, s": median(times) for mode, times in seconds.items()}
            | {
                f"{mode}, x": median_ratio(slowest, times)
                for mode, times in seconds.items() if mode != "one by one"
            }
            | {"as it comes, from, to": ratio_range(slowest, seconds["as it comes"])}
        )  # fmt: skip
    note = (
        "Whole commands, with start-up and verdict, in turn. One by one: `hydra.launcher.jobs=1"
        " hydra.launcher.fuse=1`, as sweeps ran before. x: how many times as fast as that."
    )
    return Table("Sweeps take the whole machine", note, rows)


def _sweep_seconds(overrides: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        run_python(MAIN, "-m", *overrides, f"hydra.sweep.dir={folder}/sweep", folder=folder)
        seconds = time.monotonic() - start
        read_summaries(Path(folder))  # all have finished
    return seconds


def read_summaries(folder: Path) -> list[dict]:
    """The summaries of a sweep's jobs, in the order in which they ended; "ended" is added, in seconds."""
    paths = list(folder.glob("sweep/*/summary.json"))
    runs = [json.loads(path.read_text()) | {"ended": path.stat().st_mtime} for path in paths]
    assert runs, f"no run in {folder}"
    assert all(run["status"] == "finished" for run in runs), [run["error"] for run in runs]
    return sorted(runs, key=lambda run: run["ended"])


def run_python(code: str, *args: str, folder: str) -> str:
    """The standard output of the code, run in a new process in this folder."""
    process = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=folder, capture_output=True, text=True, env=dict(os.environ)
    )
    if process.returncode:
        sys.exit(f"benchmark: {' '.join(args)}: exit code {process.returncode}:\n{process.stderr[-2000:]}")
    return process.stdout
