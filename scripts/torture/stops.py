"""Runs and sweeps that are killed, or told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from functools import cache, cached_property
from pathlib import Path

from trial import PATIENCE, RUN, Skip, Trial, require

SWEEP = ("-m", "seed=0,1,2", *RUN)
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
landed: Counter[str] = Counter()  # what the runs were at when they were killed


class References:
    """The untouched run and sweep that all others are held against; when the run trains, when it is over."""

    def __init__(self, folder: Path) -> None:
        trial = Trial(folder, "reference", 0)
        started = time.monotonic()
        process = trial.start(*RUN, "hydra.run.dir=run")
        trial.wait(process, (folder / "run/checkpoints").exists)
        self.start_s = time.monotonic() - started
        trial.wait(process, lambda: trial.status() == "finished")
        self.whole_s = time.monotonic() - started
        require(trial.end(process).code == 0, "the untouched run failed")
        self.run, self._sweep = folder / "run", Trial(folder / "of-sweep", "sweep", 0)

    @cached_property
    def sweep(self) -> Path:
        self._sweep.well(*SWEEP, "hydra.sweep.dir=sweep")
        return self._sweep.folder / "sweep"


@cache
def _references(folder: Path) -> References:
    return References(folder / "reference")


_one_at_a_time = threading.Lock()


def references(folder: Path, *, sweep: bool = False) -> References:
    """Made when they are first asked for."""
    with _one_at_a_time:
        kept = _references(folder)
        if sweep:
            kept.sweep  # noqa: B018 - runs it
        return kept


def kill_run(trial: Trial) -> None:
    """Killed once, or again as it goes on, then carried on by bnexp-resume or the same command."""
    kept = references(trial.folder.parent)
    words = (*RUN, "hydra.run.dir=run")
    for _ in range(trial.random.choice((1, 1, 1, 2))):
        process = trial.start(*words)
        if trial.random.random() < 0.8:  # most of a short run is its start: look for the rest
            trial.wait(process, lambda: (trial.folder / "run/checkpoints").exists())
            time.sleep(trial.random.uniform(0, kept.whole_s - kept.start_s))
        else:
            time.sleep(trial.random.uniform(0, kept.start_s))
        trial.kill(process)
        landed[stage(trial.folder / "run", trial)] += 1
        trial.readable()
    if (trial.folder / "run/.hydra/overrides.yaml").exists() and trial.random.random() < 0.5:
        trial.well("run", command="bnexp-resume")
    else:
        trial.well(*words)
    trial.same(kept.run)


def stage(run: Path, trial: Trial) -> str:
    """What a run that was killed was doing, as far as its folder tells."""
    if trial.status() == "finished":
        return "after its end"
    if not (run / "metrics.csv").exists():
        return "start-up"
    if list(run.glob("checkpoints/.*.part")):
        return "saving"
    epochs = len((run / "metrics.csv").read_text().splitlines()) - 1
    return "concluding" if epochs == 12 else "training, evaluating"


def kill_sweep(trial: Trial) -> None:
    kept = references(trial.folder.parent, sweep=True)
    process = trial.start(*SWEEP, "hydra.sweep.dir=sweep")
    trial.wait(process, lambda: list(trial.folder.glob("sweep/*/checkpoints")))
    time.sleep(trial.random.uniform(0, 2 * kept.whole_s))
    trial.kill(process)
    carry_sweep_on(trial, kept)


def carry_sweep_on(trial: Trial, kept: References) -> None:
    for summary in trial.folder.glob("sweep/*/summary.json"):
        trial.readable(str(summary.parent.relative_to(trial.folder)))
    trial.well("sweep", command="bnexp-resume")
    for run in kept.sweep.glob("*/summary.json"):
        trial.same(run.parent, f"sweep/{run.parent.name}")


SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 138}


def signal_run(trial: Trial) -> None:
    """Each signal in turn, at a random moment of training."""
    kept = references(trial.folder.parent)
    name = list(SIGNALS)[trial.number % 3]
    process = trial.start(*RUN, "hydra.run.dir=run")
    trial.wait(process, trial.rows())
    time.sleep(trial.random.uniform(0, (kept.whole_s - kept.start_s) / 6))
    process.send_signal(getattr(signal, name))
    done = trial.end(process)
    if trial.status() != "finished":  # else it came after the last step, or even after the end
        require(trial.status() == "interrupted", f"{name}: status {trial.status()}")
        done.one_line(SIGNALS[name], naming=name)
    trial.readable()
    trial.well("run", command="bnexp-resume")
    trial.same(kept.run)


def signal_sweep(trial: Trial, *launcher: str) -> None:
    """To the process alone, as ``kill`` does, or to its whole group, as a terminal does."""
    kept = references(trial.folder.parent, sweep=True)
    name = list(SIGNALS)[trial.number % 3]
    process = trial.start(*SWEEP, *launcher, "hydra.sweep.dir=sweep")
    trial.wait(process, trial.rows("sweep/*"))
    time.sleep(trial.random.uniform(0, 0.3))
    send = os.killpg if name == "SIGINT" else os.kill
    send(process.pid, getattr(signal, name))
    done = trial.end(process)
    require(done.code == SIGNALS[name], f"{name}: exit {done.code}: {done.err[-800:]}")
    require("Traceback" not in done.err, f"{name}: a traceback: {done.err[-800:]}")
    left = subprocess.run(["ps", "-o", "args=", "-g", str(process.pid)], capture_output=True, text=True)
    workers = [line for line in left.stdout.splitlines() if "LokyProcess" in line]
    require(not workers, f"{name}: left behind: {workers}")
    found = [
        trial.status(str(p.parent.relative_to(trial.folder)))
        for p in trial.folder.glob("sweep/*/summary.json")
    ]
    require({"interrupted"} <= set(found) <= {"interrupted", "finished"}, f"{name}: statuses {found}")
    carry_sweep_on(trial, kept)


def signal_joblib(trial: Trial) -> None:
    try:
        import hydra_plugins.hydra_joblib_launcher  # noqa: F401
    except ImportError:
        raise Skip("needs the extra: pip install bnexp[parallel]") from None
    signal_sweep(trial, *JOBLIB)


def second_ctrl_c(trial: Trial) -> None:
    """One step of this run takes long: the first Ctrl-C waits for its end, the second does not."""
    words = ("model=resnet", "batch_size=1294", "dataset.test_size=10", "device.threads=1", "epochs=1")
    process = trial.start(*words, "hydra.run.dir=run")
    trial.wait(process, (trial.folder / "run/metrics.csv").exists)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(2)
    require(process.poll() is None, "it did not wait for the step's end")
    process.send_signal(signal.SIGINT)
    trial.end(process, PATIENCE / 8).one_line(130, naming="SIGINT")
    require(trial.status() == "interrupted", f"status {trial.status()}")


def kill_joblib(trial: Trial) -> None:
    """The workers see that nobody waits for them, save and go; then the sweep is carried on."""
    kept = references(trial.folder.parent, sweep=True)
    process = trial.start(*SWEEP, *JOBLIB, "hydra.sweep.dir=sweep")
    trial.wait(process, trial.rows("sweep/*"))
    process.kill()
    trial.end(process)  # the workers hold its pipes: this waits for them
    runs = [path.parent.relative_to(trial.folder) for path in trial.folder.glob("sweep/*/summary.json")]
    found = {trial.status(str(run)) for run in runs}
    require(found <= {"interrupted", "finished"}, f"statuses {found}")
    carry_sweep_on(trial, kept)
