"""More jobs, processes and results: jobs side by side, launchers, torchrun, comparisons of many runs."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.commands import MAIN, peak_memory, read_summaries, run_python
from bench.recipes import RECIPES, scale_images
from bench.table import Row, Table, measure_in_turn, median, median_ratio, ratio_range


def parallel(models: list[str], repeats: int, scale: float) -> list[Table]:
    """Two jobs of one thread side by side, against jobs one after the other, on two threads and on one."""
    rows: list[Row] = []
    side_by_side = ["hydra.launcher.jobs=2", "hydra.launcher.fuse=1", "device.threads=1"]
    for name, images, epochs in (("mlp", 50_000, 4), ("conv", 20_000, 1)):
        train_size = f"dataset.train_size={scale_images(images, scale)}"
        overrides = [*RECIPES[name].overrides, f"epochs={epochs}", train_size]
        measurements: dict[str, Callable[[], float]] = {
            "two jobs": partial(_throughput, [*overrides, *side_by_side], 2),
            "two threads": partial(_throughput, [*overrides, "device.threads=2"], 1),
            "one thread": partial(_throughput, [*overrides, "device.threads=1"], 1),
        }
        speeds = measure_in_turn(measurements, repeats)
        rows.append(
            {
                "model": name,
                "2 jobs, 1 thread each": median(speeds["two jobs"]),
                "1 job, 2 threads": median(speeds["two threads"]),
                "1 job, 1 thread": median(speeds["one thread"]),
                "2 jobs / 1 job of 2": median_ratio(speeds["two jobs"], speeds["two threads"]),
                "from, to": ratio_range(speeds["two jobs"], speeds["two threads"]),
                "2 jobs / 2 x 1 job of 1": median_ratio(speeds["two jobs"], speeds["one thread"]) / 2,
            }
        )
    note = (
        "Images/s in training, summed over the jobs that run at the same time. Two jobs:"
        " `hydra.launcher.jobs=2 hydra.launcher.fuse=1`; otherwise one job."
    )
    return [Table("Sweeps side by side", note, rows)]


def _throughput(overrides: list[str], jobs: int) -> float:
    """Images/s in training, summed over this many jobs that run at the same time."""
    with tempfile.TemporaryDirectory() as folder:
        sweep = ["-m", "seed=0,1" if jobs == 2 else "seed=0", f"hydra.sweep.dir={folder}/sweep"]
        run_python(MAIN, *sweep, *overrides, folder=folder)
        runs = read_summaries(Path(folder))
    return sum(run["time"]["images_per_s"] for run in runs)


COMPARED_RUNS = (100, 1_000, 10_000)


def compare(models: list[str], repeats: int, scale: float) -> list[Table]:
    """bnexp-compare over many run folders: with the table alone, and with all files of the report."""
    rows: list[Row] = []
    outputs = {"table": (), "table, page, pictures": ("--output", "report")}
    for runs in COMPARED_RUNS:
        with tempfile.TemporaryDirectory() as folder:
            count = scale_images(runs, scale)
            _write_runs(Path(folder), count)
            for output, args in outputs.items():
                start = time.perf_counter()
                peak = peak_memory("from bnexp.compare import main\nmain()", ("sweep", *args), folder)
                seconds = time.perf_counter() - start
                rows.append({"folders": str(count), "output": output, "seconds": seconds, "peak, MiB": peak})
    note = (
        "One measurement each, of a whole command, over copies of one run with 4 norms, 5 learning rates and"
        " many seeds."
    )
    return [Table("Comparing many runs", note, rows)]


def _write_runs(folder: Path, count: int) -> None:
    """A sweep's folder: copies of one real run with other norms, rates and seeds, and random metrics."""
    overrides = ("epochs=5", "dataset.train_size=100", "dataset.test_size=50", "tracking.tensorboard=false")
    run_python(MAIN, *overrides, "hydra.run.dir=original", folder=str(folder))
    original = folder / "original"
    config = (original / ".hydra/config.yaml").read_text()
    summary = json.loads((original / "summary.json").read_text())
    generator = random.Random(0)
    for number in range(count):
        norm, rate = ("none", "batch", "layer", "group")[number % 4], 10.0 ** -(number // 4 % 5)
        seed, gain = number // 20, generator.gauss(0, 0.01)
        run = folder / "sweep" / f"model.norm={norm},optimizer.lr={rate},seed={seed}"
        (run / ".hydra").mkdir(parents=True)
        run_config = config
        for key, old, new in (("norm", "none", norm), ("lr", "0.1", rate), ("seed", "0", seed)):
            assert f"{key}: {old}\n" in run_config, f"no {key}={old} in the configuration"
            run_config = run_config.replace(f"{key}: {old}\n", f"{key}: {new}\n", 1)
        (run / ".hydra/config.yaml").write_text(run_config)
        final = {key: value + gain for key, value in summary["final"].items()}
        changes = {"seed": seed, "final": final, "config_hash": f"{number:012x}"}
        (run / "summary.json").write_text(json.dumps(summary | changes))
        shutil.copyfile(original / "metrics.csv", run / "metrics.csv")


LAUNCHERS = {
    "basic": ("hydra/launcher=basic",),
    "local, 1 at a time": ("hydra.launcher.jobs=1", "hydra.launcher.fuse=1"),
    "local, 2 at a time": ("hydra.launcher.jobs=2", "hydra.launcher.fuse=1"),
    "slurm, on this machine": (
        "hydra/launcher=slurm",
        "hydra.launcher.cluster=local",
        "hydra.launcher.fuse=1",
    ),
    "ray, 2 at a time": ("hydra/launcher=ray", "+hydra.launcher.init.num_cpus=2", "hydra.launcher.fuse=1"),
}


def launchers(models: list[str], repeats: int, scale: float) -> list[Table]:
    """The time of a sweep of 2 and of 8 short jobs with each launcher."""
    measurements = {
        f"{name}/{jobs}": partial(_sweep_seconds, overrides, jobs)
        for name, overrides in LAUNCHERS.items()
        for jobs in (2, 8)
    }
    seconds = measure_in_turn(measurements, repeats)
    rows: list[Row] = []
    for name in LAUNCHERS:
        two, eight = seconds[f"{name}/2"], seconds[f"{name}/8"]
        per_job = median([(b - a) / 6 for a, b in zip(two, eight, strict=True)])
        rows.append(
            {
                "launcher": name,
                "2 jobs, s": median(two),
                "8 jobs, s": median(eight),
                "s per extra job": per_job,
            }
        )
    note = (
        "`bnexp -m hydra/launcher=... seed=range(N) epochs=1` on the digits, where training takes 0.02 s of"
        " each job."
    )
    return [Table("Launchers", note, rows)]


def _sweep_seconds(overrides: tuple[str, ...], jobs: int) -> float:
    sweep = ("-m", f"seed=range({jobs})", "epochs=1", "device.threads=1", "hydra.sweep.dir=sweep")
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        run_python(MAIN, *sweep, *overrides, folder=folder)
        return time.monotonic() - start


TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2")


def processes(models: list[str], repeats: int, scale: float) -> list[Table]:
    """Two processes on one network, each with half of every batch, against one process with all of it."""
    rows: list[Row] = []
    for name, size, images in (
        ("mlp", 64, 60_000),
        ("mlp", 1024, 60_000),
        ("conv", 64, 20_000),
        ("conv", 256, 20_000),
    ):
        overrides = [
            *RECIPES[name].overrides, f"batch_size={size}",
            f"dataset.train_size={scale_images(images, scale)}", "epochs=2", "device.threads=1",
            "hydra.run.dir=run",
        ]  # fmt: skip
        measurements = {
            "one": partial(_run_speed, overrides),
            "two": partial(_run_speed, overrides, distributed=True),
        }
        speeds = measure_in_turn(measurements, repeats)
        overheads = [
            size / two - size / single / 2 for single, two in zip(speeds["one"], speeds["two"], strict=True)
        ]
        rows.append(
            {
                "model": name,
                "batch": str(size),
                "1 process": median(speeds["one"]),
                "2 processes": median(speeds["two"]),
                "2 / 1": median_ratio(speeds["two"], speeds["one"]),
                "overhead of a step, ms": 1000 * median(overheads),
            }
        )
    note = (
        "Images/s with one thread for each process, gloo, on one machine. Overhead: the time of a step beyond"
        " half of one process's step, for messages, waiting for the other process, and smaller products."
    )
    return [Table("Several processes for one network", note, rows)]


def _run_speed(overrides: list[str], distributed: bool = False) -> float:
    """Images/s in training of one run, in one process or in two."""
    with tempfile.TemporaryDirectory() as folder:
        if distributed:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = str(free.getsockname()[1])
            command = [sys.executable, *TORCHRUN, "--master-port", port, "-m", "bnexp.train", *overrides]
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
        else:
            run_python(MAIN, *overrides, folder=folder)
        return float(json.loads(Path(folder, "run", "summary.json").read_text())["time"]["images_per_s"])
