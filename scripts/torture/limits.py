"""Numbers that run away, memory that runs out, clocks that run back, runs at once and runs without end."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import time
from pathlib import Path

from stops import reference
from trial import RUN, Lost, Trial, require

from bnexp.training.checkpoint import load

SMALL = ("dataset.train_size=100", "dataset.test_size=50", "epochs=1", "device.threads=1")


def diverges(trial: Trial) -> None:
    """The loss becomes nan or infinite, in the first epoch or after good ones; a sweep goes on."""
    words = (
        (*SMALL, "model=conv", "optimizer.lr=1e30"),
        (*SMALL, "loss=mse", "optimizer.lr=1e25"),
        (*SMALL, "epochs=5", "scheduler=exponential", "scheduler.gamma=1e9"),
        (*SMALL, "-m", "seed=0,1", "optimizer.lr=0.1,1e30"),
    )[trial.number % 4]
    if "-m" in words:
        done = trial.run(*words, "hydra.sweep.dir=sweep")
        found = sorted(trial.status(str(p.parent)) or "" for p in trial.folder.glob("sweep/*/summary.json"))
        require(done.code == 1 and "Traceback" not in done.err, f"exit {done.code}: {done.err[-500:]}")
        require(found == ["diverged"] * 2 + ["finished"] * 2, f"statuses {found}")
        return
    done = trial.run(*words, "hydra.run.dir=run")
    done.one_line(1, naming="diverged: the loss became")
    require(re.search(r"in epoch \d+, step \d+", done.err), done.err)
    require(trial.status() == "diverged", f"status {trial.status()}")
    if "epochs=5" in words:
        best = load(trial.folder / "run/checkpoints/best.pt")
        require(all(value.isfinite().all() for value in best["model"].values()), "the best is not kept")


def out_of_memory(trial: Trial) -> None:
    """The process may take 8 GB: a batch, or the network itself, wants more."""
    words = (
        ("model=conv", "model.widths=[4000,16]", "batch_size=1200"),
        ("model=mlp", "model.hidden=[10000000]"),
        (
            "model=conv",
            "model.widths=[4000,16]",
            "batch_size=2",
            "dataset.train_size=2",
            "eval_batch_size=300",
        ),
    )[trial.number % 3]
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # noqa: E731
    done = trial.run(*words, "device.threads=1", "epochs=1", "hydra.run.dir=run", preexec_fn=limit)
    done.one_line(1, naming="out of memory: ")
    wanted = "model" if trial.number % 3 == 1 else "batch_size"
    require(wanted in done.err and "smaller" in done.err, f"no way out is named: {done.err}")
    require(trial.status() == "failed", f"status {trial.status()}")


BACKWARDS = """
import time
now, calls = time.time, [0]
def back():
    calls[0] += 1
    return now() - 3600 * calls[0]
time.time = back
"""


def clock_runs_back(trial: Trial) -> None:
    """Every look at the clock finds it an hour earlier than the last."""
    (trial.folder / "sitecustomize.py").write_text(BACKWARDS)
    started = time.monotonic()
    words = (*SMALL, "-m", "seed=0,1,2", "hydra.sweep.dir=sweep")
    done = trial.well(*words, env={"PYTHONPATH": str(trial.folder)})
    took = time.monotonic() - started
    heads = [line for line in done.out.splitlines() if line.startswith("[")]
    require(len(heads) == 3, f"the jobs' lines: {heads}")
    for found in re.findall(r"(\S+) (?:so far|left)", "\n".join(heads)):
        require(re.fullmatch(r"\d+:\d\d", found), f"{found} in {heads}")
        minutes, seconds = found.split(":")
        require(int(minutes) * 60 + int(seconds) <= 3 * took, f"{found} in {heads}")
    for path in trial.folder.glob("sweep/*/summary.json"):
        times = json.loads(path.read_text())["time"]
        require(0 <= times["train_s"] <= times["total_s"] <= took, f"times {times} of {took:.1f} s")
    require("-" not in re.sub(r"[^-\d.s]", "", " ".join(re.findall(r"\| (\S+) s\n", done.out))), done.out)


def same_second(trial: Trial) -> None:
    """Two runs that start at once have two folders."""
    both = [trial.start(*SMALL) for _ in range(2)]
    for process in both:
        done = trial.end(process)
        require(done.code == 0, done.err)
    found = [path.parent for path in trial.folder.glob("outputs/*/*/summary.json")]
    require(len(found) == 2, f"folders: {found}")
    for run in found:
        require(json.loads((run / "summary.json").read_text())["status"] == "finished", str(run))


def same_folder(trial: Trial) -> None:
    """A second run into the folder is refused, or comes so late that there is nothing to do."""
    kept = reference(trial)
    words = (*RUN, "hydra.run.dir=run")
    first = trial.start(*words)
    if trial.number % 2:
        trial.wait(first, trial.rows())
    other = trial.run(*words, *(["seed=1"] if trial.number % 4 > 1 else []))
    done = trial.end(first)
    if done.code == 0:
        if not (other.code == 0 and "nothing to do" in other.out):
            other.one_line(2, naming="run")
        trial.same(kept.path)
    else:  # the second was first
        require(other.code == 0, f"neither ran: {done.err} {other.err}")
        done.one_line(2, naming="run")


def stays_flat(trial: Trial) -> None:
    """Many runs in one process take no more memory and no more files than a few."""
    runs, marks = 200, (20, 100, 200)
    words = ("-m", f"seed=range({runs})", *SMALL, "model.hidden=[8]", "hydra.sweep.dir=sweep")
    process = trial.start(*words, stdout=subprocess.DEVNULL)  # a full pipe would stop it
    figures: dict[int, tuple[int, int]] = {}
    for mark in marks:
        sign = lambda mark=mark: count(trial.folder) >= mark  # noqa: E731
        if not trial.wait(process, sign):
            break
        figures[mark] = usage(process.pid)
    done = trial.end(process)
    require(done.code == 0, done.err[-500:])
    shown = "; ".join(f"run {mark}: {mb} MB, {files} files" for mark, (mb, files) in figures.items())
    print(f"runs in one process: {shown}", flush=True)
    (mb, files), (last_mb, last_files) = figures[20], figures[marks[-1]]
    if last_files > files + 2 or last_mb > mb * 1.1:
        raise Lost(f"it grows: {shown}")


def count(folder: Path) -> int:
    return sum(1 for _ in folder.glob("sweep/*/summary.json"))


def usage(pid: int) -> tuple[int, int]:
    """Resident megabytes and open files of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024, len(list(Path(f"/proc/{pid}/fd").iterdir()))
