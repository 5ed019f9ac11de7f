"""Tries hydra/launcher=slurm on a real SLURM: make slurm-trial, or scripts/slurm_trial [CHECK ...].

It needs Debian and root. It installs SLURM's packages where they are missing, and starts a cluster of two
nodes on this machine, in a temporary folder. Each check runs a sweep of four jobs on it and compares the
records, bit for bit, with the same sweep on this machine (hydra.launcher.jobs=1). At the end all daemons are
stopped. If a check fails, the exit code is 1 and the folder stays.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent / "torture"), str(FOLDER.parent.parent / "tests")]

from cluster import Cluster, install, wait_until  # noqa: E402
from trial import CommandResult, Trial, TrialFailed, require  # noqa: E402

# A step takes as many seconds as the file "delay" says, where there is one.
NETWORK = """
import time
from pathlib import Path
from torch import nn

class Net(nn.Sequential):
    def __init__(self, in_channels, image_size, num_classes, width: int):
        super().__init__(nn.Flatten(), nn.Linear(in_channels * image_size**2, width), nn.BatchNorm1d(width),
                         nn.Linear(width, num_classes))

    def forward(self, images):
        if self.training and Path("delay").exists():
            time.sleep(float(Path("delay").read_text() or 0))
        return super().forward(images)
"""
SWEEP = (
    "-m", "model=custom", "model._target_=mynets.Net", "+model.width=8,16", "seed=0,1", "epochs=6",
    "batch_size=25", "dataset.train_size=100", "dataset.test_size=100", "device.threads=1",
    "hydra.sweep.dir=sweep", "hydra.launcher.fuse=1",
)  # fmt: skip
SLURM = ("hydra/launcher=slurm",)
JOBS = 4
STEP_S = 2.0  # seconds of a slow step; a job has 24
WAIT_S = 400.0


class Check(Trial):
    """A sweep in a folder of its own, on the cluster."""

    def __init__(self, folder: Path, name: str, cluster: Cluster, reference: Path) -> None:
        super().__init__(folder, name, 0)
        (self.folder / "mynets.py").write_text(NETWORK)
        self.cluster, self.reference = cluster, reference

    def slow_down(self) -> None:
        (self.folder / "delay").write_text(str(STEP_S))

    def speed_up(self) -> None:
        (self.folder / "delay").unlink()

    def wait_for(self, condition: Callable[[], object], process: subprocess.Popen[str], message: str) -> None:
        def holds() -> object:
            require(process.poll() is None, f"the sweep ended before: {message}")
            return condition()

        wait_until(holds, f"not seen: {message}", WAIT_S)

    def jobs_with_epochs(self) -> list[str]:
        return [run for run in self.sweep_runs() if self.has_epoch(run)]

    def start_slowly(self, *overrides: str) -> subprocess.Popen[str]:
        """Starts the sweep with slow steps, and waits until both nodes have trained an epoch."""
        self.slow_down()
        process = self.start(*SWEEP, *SLURM, *overrides)
        self.wait_for(lambda: len(self.jobs_with_epochs()) >= 2, process, "an epoch on both nodes")
        return process

    def restarts(self) -> int:
        """How often jobs of the sweep were started again in their folders."""
        files = [json.loads(path.read_text()) for path in self.folder.glob("sweep/*/environment.json")]
        return sum(len(file["earlier"]) for file in files)

    def require_success(self, process: subprocess.Popen[str]) -> CommandResult:
        result = self.finish(process, WAIT_S)
        require(result.code == 0, f"exit code {result.code}: {(result.err or result.out)[-1500:]}")
        return result

    def require_same_sweep(self) -> None:
        names = {path.parent.name for path in self.reference.glob("sweep/*/summary.json")}
        require(len(names) == JOBS, "the reference is not complete")
        require({Path(run).name for run in self.sweep_runs()} == names, "other folders")
        for name in names:
            self.require_same_record(self.reference / "sweep" / name, f"sweep/{name}")

    def logs(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("sweep/.submitit/*.err")))


def verdict(output: str) -> str:
    """The printed verdict without measured times; line breaks depend on their length."""
    match = re.search(r"^(?:Does|Which|How) .*^\S+/report\.html$", output, re.DOTALL | re.MULTILINE)
    require(match, f"no verdict: {output[-800:]}")
    assert match
    return re.sub(
        r"[\d.]+\s+s\b|about [\d.]+ \w+ as trained|bnexp-resume \S+", "", " ".join(match[0].split())
    )


def plain(check: Check) -> str:
    """a whole sweep"""
    result = check.require_success(check.start(*SWEEP, *SLURM))
    check.require_same_sweep()
    reference = (check.reference / "output.txt").read_text()
    require(verdict(result.out) == verdict(reference), "another verdict")
    return "same bits, same verdict"


def refused(check: Check) -> str:
    """a partition that does not exist"""
    result = check.run(*SWEEP, *SLURM, "hydra.launcher.partition=gpus")
    require(result.code == 2, f"exit code {result.code}: {result.err[-800:]}")
    line = result.err.splitlines()[0]
    require("the jobs were refused" in line and "partition" in line, line)
    return f"exit code 2: {line}"


def time_limit(check: Check) -> str:
    """jobs reach their time limit"""
    check.slow_down()
    limits = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=40")
    process = check.start(*SWEEP, *SLURM, *limits)
    check.wait_for(lambda: check.logs().count("this job is timed-out") >= 2, process, "a time limit")
    check.speed_up()
    check.require_success(process)
    check.require_same_sweep()
    require(check.restarts() >= 2, "no job was started again")
    return f"{check.restarts()} times saved and queued again; same bits"


def preemption(check: Check) -> str:
    """a partition of higher priority takes both nodes"""
    process = check.start_slowly("hydra.launcher.partition=low")
    command = ["sbatch", "--partition=high", "--nodes=2", "--output=/dev/null", "--wrap=sleep 5"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    check.wait_for(lambda: check.cluster.states().count("PENDING") == JOBS, process, "all jobs queued")
    check.speed_up()
    check.require_success(process)
    check.require_same_sweep()
    require(check.restarts() == 2, f"{check.restarts()} restarts instead of 2")
    saved = sum("steps into the next" in path.read_text() for path in check.folder.glob("sweep/*/train.log"))
    require(saved >= 1, "no job was saved within an epoch")
    return f"2 jobs saved ({saved} within an epoch) and queued again; same bits"


def killed_job(check: Check) -> str:
    """kill -9 of a job's process"""
    process = check.start_slowly()
    victim = min(worker_processes(check.folder))
    os.kill(victim, signal.SIGKILL)
    check.speed_up()
    result = check.finish(process, WAIT_S)
    require(result.code == 1, f"exit code {result.code}: {result.err[-800:]}")
    require(result.err.count("a job was lost: ") == 1, f"no lost job: {result.err[-800:]}")
    statuses = sorted(str(check.read_status(run)) for run in check.sweep_runs())
    require(statuses == ["finished"] * 3 + ["running"], f"statuses {statuses}")
    verdict(result.out)
    print(next(line for line in result.err.splitlines() if "a job was lost" in line))
    check.require_success(check.start(*SWEEP, *SLURM))
    check.require_same_sweep()
    return "1 job reported as lost, 3 compared; the same command again: same bits"


def worker_processes(folder: Path) -> list[int]:
    """The Python processes of submitit with this current folder."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command_line = (process / "cmdline").read_bytes().split(b"\0")
            is_worker = b"submitit.core._submit" in command_line and b"python" in command_line[0]
            if is_worker and (process / "cwd").resolve() == folder.resolve():
                pids.append(int(process.name))
        except OSError:  # it has ended
            continue
    return pids


def lost_node(check: Check) -> str:
    """kill -9 of everything on a node"""
    process = check.start_slowly()
    check.cluster.kill_node("node1")
    down = ["scontrol", "update", "nodename=node1", "state=down", "reason=trial"]
    subprocess.run(down, check=True)
    check.speed_up()
    check.require_success(process)
    check.require_same_sweep()
    require(check.restarts() == 1, f"{check.restarts()} restarts instead of 1")
    return "SLURM queued its job again; same bits"


def ctrl_c(check: Check) -> str:
    """Ctrl-C, then bnexp-resume"""
    process = check.start_slowly()
    os.killpg(process.pid, signal.SIGINT)
    result = check.finish(process, WAIT_S)
    require(result.code == 130, f"exit code {result.code}: {result.err[-800:]}")
    statuses = [str(check.read_status(run)) for run in check.sweep_runs()]
    require(statuses == ["interrupted"] * 2, f"statuses {statuses}")
    require(not check.cluster.states(), f"jobs in the queue: {check.cluster.states()}")
    require("carry on: bnexp-resume sweep" in result.out, "no line to carry on")
    check.speed_up()
    check.require_success(check.start("sweep", "--trust", "mynets.Net", command="bnexp-resume"))
    check.require_same_sweep()
    return "exit code 130, 2 jobs saved, 2 taken out of the queue; resumed: same bits"


CHECKS = {
    "plain": plain,
    "refused": refused,
    "time-limit": time_limit,
    "preemption": preemption,
    "killed-job": killed_job,
    "lost-node": lost_node,
    "ctrl-c": ctrl_c,
}


def run_reference(folder: Path) -> None:
    """The sweep on this machine, one job after the other."""
    trial = Trial(folder, "reference", 0)
    (folder / "mynets.py").write_text(NETWORK)
    (folder / "output.txt").write_text(trial.run_successfully(*SWEEP, "hydra.launcher.jobs=1").out)


def attempt(name: str, folder: Path, cluster: Cluster) -> bool:
    """Runs a check and prints its line; whether it was passed."""
    start = time.monotonic()
    try:
        cluster.start_nodes()  # one of them was killed by an earlier check
        outcome = CHECKS[name](Check(folder / name, name, cluster, folder / "reference"))
    except (TrialFailed, TimeoutError) as failure:
        outcome = f"FAILED: {failure}"
    except Exception:
        outcome = f"FAILED: {traceback.format_exc()}"
    seconds = time.monotonic() - start
    print(f"{CHECKS[name].__doc__ or '':<51}{seconds:>7.0f} s  {outcome}", flush=True)
    return not outcome.startswith("FAILED")


def main() -> int:
    names = sys.argv[1:] or list(CHECKS)
    if unknown := [name for name in names if name not in CHECKS]:
        print(f"slurm_trial: {unknown[0]}: must be one of {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    if os.getuid() != 0 or not shutil.which("apt-get"):
        print("slurm_trial: needs root on a Debian machine", file=sys.stderr)
        return 2
    signal.signal(signal.SIGINT, signal.default_int_handler)  # commands started with "&" ignore Ctrl-C
    os.environ["OMP_NUM_THREADS"] = "1"
    install()
    folder = Path(tempfile.mkdtemp(prefix="slurm-trial-"))
    folder.chmod(0o711)
    cluster = Cluster(folder / "slurm")
    try:
        cluster.start()
        print(f"{cluster.version()}, 2 nodes on {platform.node()}: {os.cpu_count()} cores", flush=True)
        run_reference(folder / "reference")
        passed = [attempt(name, folder, cluster) for name in names]
    finally:
        cluster.stop()
    remaining = cluster.processes()
    print(f"{passed.count(True)} of {len(passed)} passed; {len(remaining)} processes left")
    if all(passed) and not remaining:
        shutil.rmtree(folder)
        return 0
    print(f"see {folder}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
