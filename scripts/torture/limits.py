"""Losses that diverge, memory that runs out, a clock that runs backwards, many runs in one process."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import time
from functools import partial
from pathlib import Path

from trial import Trial, TrialFailed, require

from bnexp.training.checkpoint import load

SMALL = ("dataset.train_size=100", "dataset.test_size=50", "epochs=1", "device.threads=1")


def diverges(trial: Trial) -> None:
    """The loss becomes nan or infinite, in the first epoch or after good ones, in a run or in a sweep."""
    args = (
        (*SMALL, "model=conv", "optimizer.lr=1e30"),
        (*SMALL, "loss=mse", "optimizer.lr=1e25"),
        (*SMALL, "epochs=5", "scheduler=exponential", "scheduler.gamma=1e9"),
        (*SMALL, "-m", "seed=0,1", "optimizer.lr=0.1,1e30"),
    )[trial.number % 4]
    if "-m" in args:
        result = trial.run(*args, "hydra.sweep.dir=sweep")
        statuses = sorted(trial.read_status(run) or "" for run in trial.sweep_runs())
        plain = result.code == 1 and "Traceback" not in result.err
        require(plain, f"exit code {result.code}: {result.err[-500:]}")
        require(statuses == ["diverged"] * 2 + ["finished"] * 2, f"statuses {statuses}")
        return
    result = trial.run(*args, "hydra.run.dir=run")
    result.require_one_line(1, "diverged: the loss became")
    require(re.search(r"in epoch \d+, step \d+", result.err), result.err)
    require(trial.read_status() == "diverged", f"status {trial.read_status()}")
    if "epochs=5" in args:
        best = load(trial.folder / "run/checkpoints/best.pt")
        finite = all(value.isfinite().all() for value in best["model"].values())
        require(finite, "the best checkpoint has weights that are not finite")


def out_of_memory(trial: Trial) -> None:
    """The process may use 8 GB; a batch of training, the network, or a batch of evaluation needs more."""
    args = (
        ("model=conv", "model.widths=[4000,16]", "batch_size=1200"),
        ("model=mlp", "model.hidden=[10000000]"),
        (
            "model=conv", "model.widths=[4000,16]", "batch_size=2", "dataset.train_size=2",
            "eval_batch_size=300",
        ),
    )[trial.number % 3]  # fmt: skip
    limit_memory = partial(resource.setrlimit, resource.RLIMIT_AS, (8 << 30, 8 << 30))
    result = trial.run(*args, "device.threads=1", "epochs=1", "hydra.run.dir=run", preexec_fn=limit_memory)
    result.require_one_line(1, "out of memory: ")
    key = "model" if trial.number % 3 == 1 else "batch_size"
    require(key in result.err and "smaller" in result.err, f"the message names no remedy: {result.err}")
    require(trial.read_status() == "failed", f"status {trial.read_status()}")


# A sitecustomize module: each call of time.time() returns an hour less than the call before.
BACKWARDS_CLOCK = """
import time
now, calls = time.time, [0]
def back():
    calls[0] += 1
    return now() - 3600 * calls[0]
time.time = back
"""


def clock_runs_back(trial: Trial) -> None:
    """Each look at the clock gives an earlier time. Durations must still be right."""
    (trial.folder / "sitecustomize.py").write_text(BACKWARDS_CLOCK)
    start = time.monotonic()
    args = (*SMALL, "-m", "seed=0,1,2", "hydra.sweep.dir=sweep")
    result = trial.run_successfully(*args, env={"PYTHONPATH": str(trial.folder)})
    elapsed = time.monotonic() - start
    heads = [line for line in result.out.splitlines() if line.startswith("[")]
    require(len(heads) == 3, f"the lines of the jobs: {heads}")
    for duration in re.findall(r"(\S+) (?:so far|left)", "\n".join(heads)):
        require(re.fullmatch(r"\d+:\d\d", duration), f"{duration} in {heads}")
        minutes, seconds = duration.split(":")
        require(int(minutes) * 60 + int(seconds) <= 3 * elapsed, f"{duration} in {heads}")
    for path in trial.folder.glob("sweep/*/summary.json"):
        times = json.loads(path.read_text())["time"]
        valid = 0 <= times["train_s"] <= times["total_s"] <= elapsed
        require(valid, f"times {times} of {elapsed:.1f} s")
    epoch_seconds = " ".join(re.findall(r"\| (\S+) s\n", result.out))
    require("-" not in re.sub(r"[^-\d.s]", "", epoch_seconds), result.out)


def stays_flat(trial: Trial) -> None:
    """Two hundred runs in one process use no more memory and no more open files than the first twenty."""
    marks = (20, 100, 200)
    args = ("-m", f"seed=range({marks[-1]})", *SMALL, "model.hidden=[8]", "hydra.sweep.dir=sweep")
    process = trial.start(*args, stdout=subprocess.DEVNULL)  # nobody reads a pipe: full, it would block
    usages: dict[int, tuple[int, int]] = {}
    for mark in marks:
        if not trial.wait_until(partial(_has_runs, trial.folder, mark), process):
            break
        usages[mark] = _resource_usage(process.pid)
    result = trial.finish(process)
    require(result.code == 0, result.err[-500:])
    summary = "; ".join(f"run {mark}: {mb} MB, {files} files" for mark, (mb, files) in usages.items())
    print(f"runs in one process: {summary}", flush=True)
    (first_mb, first_files), (last_mb, last_files) = usages[marks[0]], usages[marks[-1]]
    if last_files > first_files + 2 or last_mb > first_mb * 1.1:
        raise TrialFailed(f"memory or open files grow: {summary}")


def _has_runs(folder: Path, count: int) -> bool:
    return sum(1 for _ in folder.glob("sweep/*/summary.json")) >= count


def _resource_usage(pid: int) -> tuple[int, int]:
    """Resident megabytes and open files of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024, len(list(Path(f"/proc/{pid}/fd").iterdir()))
