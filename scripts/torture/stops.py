"""Runs and sweeps that are killed, or stopped by a signal, and then resumed."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from reference import Reference, get_reference
from trial import RUN, RUN_EPOCHS, TIMEOUT, Trial, TrialSkipped, require

SWEEP = ("-m", "seed=0,1,2", *RUN)
# Three epochs of 400 steps: nearly all of the time is spent within an epoch.
LONG_EPOCHS = (
    *RUN[: RUN.index("dataset.train_size=300")], "dataset.train_size=800", "dataset.test_size=50",
    "batch_size=2", "tracking.tensorboard=false", "device.threads=1", "epochs=3",
)  # fmt: skip
LONG_JOBS = 8
LONG_SWEEP = ("-m", f"seed=range({LONG_JOBS})", "hydra.launcher.fuse=1", *LONG_EPOCHS)
SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 138}  # with their exit codes
stages: Counter[str] = Counter()  # how many runs were killed or stopped in each stage


def kill_run(trial: Trial) -> None:
    """Kills a run once or twice at random moments, then resumes it in one of the two possible ways."""
    reference = get_reference(trial)
    args = (*RUN, "hydra.run.dir=run")
    for _ in range(trial.random.choice((1, 1, 1, 2))):
        process = trial.start(*args)
        if trial.random.random() < 0.8:  # most of a short run is start-up: aim at the training
            trial.wait_until((trial.folder / "run/checkpoints").exists, process)
            time.sleep(reference.random_delay(trial))
        else:
            time.sleep(trial.random.uniform(0, reference.startup_s))
        trial.kill(process)
        stages[find_stage(trial)] += 1
        trial.require_whole_checkpoints()
    if (trial.folder / "run/.hydra/overrides.yaml").exists() and trial.random.random() < 0.5:
        trial.run_successfully("run", command="bnexp-resume")
    else:
        trial.run_successfully(*args)
    trial.require_same_record(reference.path)


def find_stage(trial: Trial) -> str:
    """What the run was doing when it was killed, as far as its folder shows."""
    run = trial.folder / "run"
    if trial.read_status() == "finished":
        return "finished"
    if not (run / "metrics.csv").exists():
        return "start-up"
    if list(run.glob("checkpoints/.*.part")):
        return "saving"
    epochs = len((run / "metrics.csv").read_text().splitlines()) - 1
    return "final evaluation" if epochs == RUN_EPOCHS else "training or evaluating"


def kill_sweep(trial: Trial) -> None:
    reference, run = get_reference(trial, SWEEP), get_reference(trial)
    process = trial.start(*SWEEP, "hydra.sweep.dir=sweep")
    trial.wait_until(lambda: list(trial.folder.glob("sweep/*/checkpoints")), process)
    time.sleep(3 * run.random_delay(trial))
    trial.kill(process)
    resume_sweep(trial, reference)


def resume_sweep(trial: Trial, reference: Reference) -> None:
    for run in trial.sweep_runs():
        trial.require_whole_checkpoints(run)
    trial.run_successfully("sweep", command="bnexp-resume")
    for summary in reference.path.glob("*/summary.json"):
        trial.require_same_record(summary.parent, f"sweep/{summary.parent.name}")


def signal_run(trial: Trial) -> None:
    """Sends one of the signals at a random moment of training."""
    reference = get_reference(trial, LONG_EPOCHS)
    name = list(SIGNALS)[trial.number % 3]
    process = trial.start(*LONG_EPOCHS, "hydra.run.dir=run")
    trial.wait_until((trial.folder / "run/checkpoints").exists, process)
    time.sleep(0.2 + reference.random_delay(trial, 0.6))  # the folder appears just before the first step
    process.send_signal(getattr(signal, name))
    result = trial.finish(process)
    require(trial.read_status() == "interrupted", f"{name}: status {trial.read_status()}")
    result.require_one_line(SIGNALS[name], name)
    trial.require_whole_checkpoints()
    result = trial.run_successfully("run", command="bnexp-resume")
    resumed = re.search(r"goes on after epoch \d(, \d+ steps into the next)?", result.out)
    require(resumed, f"the run was not resumed: {result.out[-500:]}")
    stages["signal within an epoch" if resumed[1] else "signal between epochs"] += 1
    trial.require_same_record(reference.path)


def signal_sweep(trial: Trial, *launcher: str) -> None:
    """Sends SIGINT to the process group, like a terminal, and other signals to the process, like kill."""
    reference = get_reference(trial, LONG_SWEEP)
    name = list(SIGNALS)[trial.number % 3]
    process = trial.start(*LONG_SWEEP, *launcher, "hydra.sweep.dir=sweep")
    trial.wait_until(lambda: list(trial.folder.glob("sweep/*/checkpoints")), process)
    time.sleep(trial.random.uniform(0.2, 1))
    send = os.killpg if name == "SIGINT" else os.kill
    send(process.pid, getattr(signal, name))
    result = trial.finish(process)
    require(result.code == SIGNALS[name], f"{name}: exit code {result.code}: {result.err[-800:]}")
    require("Traceback" not in result.err, f"{name}: a traceback: {result.err[-800:]}")
    deadline = time.monotonic() + TIMEOUT / 8
    while (workers := find_processes_in(trial.folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    require(not workers, f"{name}: processes that still run: {workers}")
    statuses = [trial.read_status(run) for run in trial.sweep_runs()]
    # A signal between two jobs leaves finished runs only, but fewer than the sweep has.
    require(set(statuses) <= {"interrupted", "finished"}, f"{name}: statuses {statuses}")
    require(statuses.count("finished") < LONG_JOBS, f"{name}: the sweep was not interrupted")
    resume_sweep(trial, reference)


def find_processes_in(folder: Path) -> list[str]:
    """The command lines of the processes with this current folder: workers that did not end."""
    command_lines = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process may end meanwhile
            if (process / "cwd").resolve() == folder.resolve():
                command_lines.append((process / "cmdline").read_text().replace("\0", " ")[:200])
    return [line for line in command_lines if "resource_tracker" not in line]


LAUNCHERS = {
    "one job": ("hydra.launcher.jobs=1",),
    "local": ("hydra.launcher.jobs=2",),
    "slurm": ("hydra/launcher=slurm", "hydra.launcher.cluster=local"),
    "ray": ("hydra/launcher=ray",),
}
LIBRARIES = {"slurm": "submitit", "ray": "ray"}


def signal_launcher(trial: Trial, name: str) -> None:
    if (library := LIBRARIES.get(name)) and importlib.util.find_spec(library) is None:
        raise TrialSkipped(f"needs the extra: pip install bnexp[{name}]")
    signal_sweep(trial, *LAUNCHERS[name])


def second_ctrl_c(trial: Trial) -> None:
    """One step of this run takes seconds: the first Ctrl-C waits for its end, the second does not."""
    args = ("model=resnet", "batch_size=1294", "dataset.test_size=10", "device.threads=1", "epochs=1")
    process = trial.start(*args, "hydra.run.dir=run")
    trial.wait_until((trial.folder / "run/metrics.csv").exists, process)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(2)
    require(process.poll() is None, "the run did not wait for the end of the step")
    process.send_signal(signal.SIGINT)
    trial.finish(process, TIMEOUT / 8).require_one_line(130, "SIGINT")
    require(trial.read_status() == "interrupted", f"status {trial.read_status()}")


def kill_main_process(trial: Trial) -> None:
    """Kills the process that waits for the workers: they notice it, save and end."""
    reference = get_reference(trial, SWEEP)
    process = trial.start(*SWEEP, *LAUNCHERS["local"], "hydra.sweep.dir=sweep")
    trial.wait_until(lambda: trial.has_epoch("sweep/*"), process)
    process.kill()
    trial.finish(process)  # also waits for the workers: they hold the process's pipes
    statuses = {trial.read_status(run) for run in trial.sweep_runs()}
    require(statuses <= {"interrupted", "finished"}, f"statuses {statuses}")
    resume_sweep(trial, reference)
