"""Many jobs, many processes, many results: side by side, on each launcher, under torchrun, compared."""

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

from bench.commands import MAIN, peak_of, python, summaries
from bench.recipes import RECIPES, scaled
from bench.table import Row, Table, interleaved, median, ratio, spread


def parallel(models: list[str], repeats: int, scale: float) -> list[Table]:
    """Two jobs of one thread side by side, against one after the other on two threads, and on one."""
    rows: list[Row] = []
    two = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "device.threads=1"]
    for name, images, epochs in (("mlp", 50_000, 4), ("conv", 20_000, 1)):
        words = [*RECIPES[name].words, f"epochs={epochs}", f"dataset.train_size={scaled(images, scale)}"]
        ways: dict[str, Callable[[], float]] = {
            "two": partial(_throughput, [*words, *two], 2),
            "one": partial(_throughput, [*words, "device.threads=2"], 1),
            "single": partial(_throughput, [*words, "device.threads=1"], 1),
        }
        found = interleaved(ways, repeats)
        rows.append(
            {
                "model": name,
                "2 jobs, 1 thread each": median(found["two"]),
                "1 job, 2 threads": median(found["one"]),
                "1 job, 1 thread": median(found["single"]),
                "2 jobs / 1 job of 2": ratio(found["two"], found["one"]),
                "from, to": spread(found["two"], found["one"]),
                "2 jobs / 2 x 1 job of 1": ratio(found["two"], found["single"]) / 2,
            }
        )
    note = (
        "Images/s in training, of all jobs that run at a time: two with `hydra/launcher=joblib"
        " hydra.launcher.n_jobs=2`, against one after the other."
    )
    return [Table("Sweeps side by side", note, rows)]


COMPARED = (100, 1_000, 10_000)


def compare(models: list[str], repeats: int, scale: float) -> list[Table]:
    """bnexp-compare over so many folders: the table alone, and all its files."""
    rows: list[Row] = []
    ways = {"table": (), "table, page, pictures": ("--output", "report")}
    for count in COMPARED:
        with tempfile.TemporaryDirectory() as folder:
            made = scaled(count, scale)
            _made_runs(Path(folder), made)
            for way, words in ways.items():
                started = time.perf_counter()
                peak = peak_of("from bnexp.compare import main\nmain()", ("sweep", *words), folder)
                seconds = time.perf_counter() - started
                rows.append({"folders": str(made), "way": way, "seconds": seconds, "peak, MiB": peak})
    note = "One reading each, of a whole command, over copies of one run: 4 norms, 5 learning rates, seeds."
    return [Table("Comparing many runs", note, rows)]


def _made_runs(folder: Path, count: int) -> None:
    """A sweep's folder: copies of one real run under other norms, rates, seeds, with numbers at random."""
    words = ("epochs=5", "dataset.train_size=100", "dataset.test_size=50", "tracking.tensorboard=false")
    python(MAIN, *words, "hydra.run.dir=one", folder=str(folder))
    one = folder / "one"
    config, summary = (one / ".hydra/config.yaml").read_text(), json.loads((one / "summary.json").read_text())
    chance = random.Random(0)
    for number in range(count):
        norm, rate = ("none", "batch", "layer", "group")[number % 4], 10.0 ** -(number // 4 % 5)
        seed, gain = number // 20, chance.gauss(0, 0.01)
        run = folder / "sweep" / f"model.norm={norm},optimizer.lr={rate},seed={seed}"
        (run / ".hydra").mkdir(parents=True)
        here = config
        for key, old, new in (("norm", "none", norm), ("lr", "0.1", rate), ("seed", "0", seed)):
            assert f"{key}: {old}\n" in here, f"no {key}={old} in the configuration"
            here = here.replace(f"{key}: {old}\n", f"{key}: {new}\n", 1)
        (run / ".hydra/config.yaml").write_text(here)
        final = {key: value + gain for key, value in summary["final"].items()}
        told = {"seed": seed, "final": final, "config_hash": f"{number:012x}"}
        (run / "summary.json").write_text(json.dumps(summary | told))
        shutil.copyfile(one / "metrics.csv", run / "metrics.csv")


def _throughput(words: list[str], at_once: int) -> float:
    """Images/s while training, summed over the jobs that run at the same time."""
    with tempfile.TemporaryDirectory() as folder:
        sweep = ["-m", "seed=0,1" if at_once == 2 else "seed=0", f"hydra.sweep.dir={folder}/sweep"]
        python(MAIN, *sweep, *words, folder=folder)
        runs = summaries(Path(folder))
    return sum(run["time"]["images_per_s"] for run in runs)


LAUNCHERS = {
    "basic": (),
    "joblib, 2 at a time": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit_local, 2 at a time": ("hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2"),
    "ray, 2 at a time": (
        "hydra/launcher=ray",
        "+hydra.launcher.ray.init={num_cpus:2,include_dashboard:false}",
    ),
}


def launchers(models: list[str], repeats: int, scale: float) -> list[Table]:
    """What a sweep of 2 and of 8 short jobs takes on each launcher."""

    def whole(words: tuple[str, ...], jobs: int) -> float:
        sweep = ("-m", f"seed=range({jobs})", "epochs=1", "device.threads=1", "hydra.sweep.dir=sweep")
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            python(MAIN, *sweep, *words, folder=folder)
            return time.monotonic() - started

    ways = {
        f"{name}/{jobs}": partial(whole, words, jobs) for name, words in LAUNCHERS.items() for jobs in (2, 8)
    }
    found = interleaved(ways, repeats)
    rows: list[Row] = []
    for name in LAUNCHERS:
        few, many = found[f"{name}/2"], found[f"{name}/8"]
        each = median([(b - a) / 6 for a, b in zip(few, many, strict=True)])
        rows.append(
            {"launcher": name, "2 jobs, s": median(few), "8 jobs, s": median(many), "s a job more": each}
        )
    note = "`bnexp -m hydra/launcher=... seed=range(N) epochs=1` on the digits: training is 0.02 s of a job."
    return [Table("Launchers", note, rows)]


TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2")


def processes(models: list[str], repeats: int, scale: float) -> list[Table]:
    """Two processes on one network, each on half of every batch, against one process on all of it."""
    rows: list[Row] = []
    for name, size, images in (
        ("mlp", 64, 60_000),
        ("mlp", 1024, 60_000),
        ("conv", 64, 20_000),
        ("conv", 256, 20_000),
    ):
        words = [*RECIPES[name].words, f"batch_size={size}", f"dataset.train_size={scaled(images, scale)}",
                 "epochs=2", "device.threads=1", "hydra.run.dir=run"]  # fmt: skip
        ways = {"one": partial(_rate, words), "two": partial(_rate, words, together=True)}
        found = interleaved(ways, repeats)
        more = [size / two - size / one / 2 for one, two in zip(found["one"], found["two"], strict=True)]
        rows.append(
            {
                "model": name,
                "batch": str(size),
                "1 process": median(found["one"]),
                "2 processes": median(found["two"]),
                "2 / 1": ratio(found["two"], found["one"]),
                "ms a step beside the work": 1000 * median(more),
            }
        )
    note = (
        "Images/s, one thread a process, gloo on one machine. The last column is what a step takes more than"
        " half of one process's: messages, waiting for the other, smaller products."
    )
    return [Table("Several processes for one network", note, rows)]


def _rate(words: list[str], together: bool = False) -> float:
    with tempfile.TemporaryDirectory() as folder:
        if together:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = str(free.getsockname()[1])
            command = [sys.executable, *TORCHRUN, "--master-port", port, "-m", "bnexp.train", *words]
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
        else:
            python(MAIN, *words, folder=folder)
        return float(json.loads(Path(folder, "run", "summary.json").read_text())["time"]["images_per_s"])
