"""Runs and sweeps that are killed, or told to stop."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from trial import PATIENCE, RUN, Skip, Trial, require

SWEEP = ("-m", "seed=0,1,2", *RUN)
# Three epochs of 400 steps: nearly all of its time it is within one.
STEPS = (*RUN[: RUN.index("dataset.train_size=300")], "dataset.train_size=800", "dataset.test_size=50",
         "batch_size=2", "tracking.tensorboard=false", "device.threads=1", "epochs=3")  # fmt: skip
LONG = ("-m", "seed=0,1,2", *STEPS)
landed: Counter[str] = Counter()  # what the runs were at when they were killed or told to stop


class Reference:
    """An untouched run or sweep that all others are held against; when it trains, when it is over."""

    def __init__(self, folder: Path, words: tuple[str, ...]) -> None:
        trial = Trial(folder, "reference", 0)
        sweeps = words[0] == "-m"
        self.path = folder / ("sweep" if sweeps else "run")
        started = time.monotonic()
        process = trial.start(*words, "hydra.sweep.dir=sweep" if sweeps else "hydra.run.dir=run")
        trial.wait(process, lambda: [*self.path.glob("checkpoints"), *self.path.glob("*/checkpoints")])
        self.start_s = time.monotonic() - started
        if not sweeps:
            trial.wait(process, lambda: trial.status() == "finished")
        self.whole_s = time.monotonic() - started
        require(trial.end(process).code == 0, "the untouched one failed")

    def moment(self, trial: Trial, share: float = 1.0) -> float:
        """Seconds from its first checkpoint folder, at random, within the first ``share`` of its work."""
        return trial.random.uniform(0, share * (self.whole_s - self.start_s))


_made: dict[tuple[Path, tuple[str, ...]], Reference] = {}
_one_at_a_time = threading.Lock()


def reference(trial: Trial, words: tuple[str, ...] = RUN) -> Reference:
    """Made when it is first asked for."""
    root = trial.folder.parent
    with _one_at_a_time:
        if (root, words) not in _made:
            _made[root, words] = Reference(root / f"reference-{len(_made)}", words)
        return _made[root, words]


def kill_run(trial: Trial) -> None:
    """Killed once, or again as it goes on, then carried on by bnexp-resume or the same command."""
    kept = reference(trial)
    words = (*RUN, "hydra.run.dir=run")
    for _ in range(trial.random.choice((1, 1, 1, 2))):
        process = trial.start(*words)
        if trial.random.random() < 0.8:  # most of a short run is its start: look for the rest
            trial.wait(process, lambda: (trial.folder / "run/checkpoints").exists())
            time.sleep(kept.moment(trial))
        else:
            time.sleep(trial.random.uniform(0, kept.start_s))
        trial.kill(process)
        landed[stage(trial.folder / "run", trial)] += 1
        trial.readable()
    if (trial.folder / "run/.hydra/overrides.yaml").exists() and trial.random.random() < 0.5:
        trial.well("run", command="bnexp-resume")
    else:
        trial.well(*words)
    trial.same(kept.path)


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
    kept, one = reference(trial, SWEEP), reference(trial)
    process = trial.start(*SWEEP, "hydra.sweep.dir=sweep")
    trial.wait(process, lambda: list(trial.folder.glob("sweep/*/checkpoints")))
    time.sleep(3 * one.moment(trial))
    trial.kill(process)
    carry_sweep_on(trial, kept)


def carry_sweep_on(trial: Trial, kept: Reference) -> None:
    for summary in trial.folder.glob("sweep/*/summary.json"):
        trial.readable(str(summary.parent.relative_to(trial.folder)))
    trial.well("sweep", command="bnexp-resume")
    for run in kept.path.glob("*/summary.json"):
        trial.same(run.parent, f"sweep/{run.parent.name}")


SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 138}


def signal_run(trial: Trial) -> None:
    """Each signal in turn, at a random moment of training."""
    kept = reference(trial, STEPS)
    name = list(SIGNALS)[trial.number % 3]
    process = trial.start(*STEPS, "hydra.run.dir=run")
    trial.wait(process, (trial.folder / "run/checkpoints").exists)
    time.sleep(0.2 + kept.moment(trial, 0.6))  # the folder comes just before the first step
    process.send_signal(getattr(signal, name))
    done = trial.end(process)
    require(trial.status() == "interrupted", f"{name}: status {trial.status()}")
    done.one_line(SIGNALS[name], naming=name)
    trial.readable()
    done = trial.well("run", command="bnexp-resume")
    within = re.search(r"goes on after epoch \d(, \d+ steps into the next)?", done.out)
    require(within, f"it did not go on: {done.out[-500:]}")
    landed["signal within an epoch" if within[1] else "signal between epochs"] += 1
    trial.same(kept.path)


def signal_sweep(trial: Trial, *launcher: str) -> None:
    """To the process alone, as ``kill`` does, or to its whole group, as a terminal does."""
    kept = reference(trial, LONG)
    name = list(SIGNALS)[trial.number % 3]
    process = trial.start(*LONG, *launcher, "hydra.sweep.dir=sweep")
    trial.wait(process, lambda: list(trial.folder.glob("sweep/*/checkpoints")))
    time.sleep(trial.random.uniform(0.2, 1))
    send = os.killpg if name == "SIGINT" else os.kill
    send(process.pid, getattr(signal, name))
    done = trial.end(process)
    require(done.code == SIGNALS[name], f"{name}: exit {done.code}: {done.err[-800:]}")
    require("Traceback" not in done.err, f"{name}: a traceback: {done.err[-800:]}")
    until = time.monotonic() + PATIENCE / 8
    while (left := at_work_in(trial.folder)) and time.monotonic() < until:
        time.sleep(0.2)
    require(not left, f"{name}: left behind: {left}")
    found = [
        trial.status(str(p.parent.relative_to(trial.folder)))
        for p in trial.folder.glob("sweep/*/summary.json")
    ]
    stopped = set(found) <= {"interrupted", "finished"} and found.count("finished") < 3  # or between two jobs
    require(stopped, f"{name}: statuses {found}")
    carry_sweep_on(trial, kept)


def at_work_in(folder: Path) -> list[str]:
    """The command lines of the processes whose current folder is this one: workers that nobody ended."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").resolve() == folder.resolve():
                found.append((process / "cmdline").read_text().replace("\0", " ")[:200])
    return [line for line in found if "resource_tracker" not in line]


LAUNCHERS = {
    "joblib": ("parallel", ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")),
    "submitit": ("slurm", ("hydra/launcher=submitit_local",)),
    "ray": ("ray", ("hydra/launcher=ray",)),
}


def signal_launcher(trial: Trial, name: str) -> None:
    extra, words = LAUNCHERS[name]
    if importlib.util.find_spec(f"hydra_plugins.hydra_{name}_launcher") is None:
        raise Skip(f"needs the extra: pip install bnexp[{extra}]")
    signal_sweep(trial, *words)


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
    kept = reference(trial, SWEEP)
    process = trial.start(*SWEEP, *LAUNCHERS["joblib"][1], "hydra.sweep.dir=sweep")
    trial.wait(process, trial.rows("sweep/*"))
    process.kill()
    trial.end(process)  # the workers hold its pipes: this waits for them
    runs = [path.parent.relative_to(trial.folder) for path in trial.folder.glob("sweep/*/summary.json")]
    found = {trial.status(str(run)) for run in runs}
    require(found <= {"interrupted", "finished"}, f"statuses {found}")
    carry_sweep_on(trial, kept)
