"""The launcher ``slurm`` without a cluster: submitit's local jobs. scripts/slurm_trial has a real one."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bnexp.errors import UserError
from bnexp.sweeps.launchers.slurm import KEYS, SHARED_KEYS, SLURM_KEYS, SlurmJobs, srun_arguments
from conftest import CommandResult
from helpers.accident_network import NETWORK
from helpers.no_pictures import NO_PICTURES
from helpers.records import record

needs_submitit = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="needs the extra: pip install -e '.[slurm]'"
)
SWEEP = (
    "-m", "model=custom", "model._target_=mynets.Net", "+model.width=8,16", "epochs=6",
    "batch_size=50", "dataset.train_size=100", "dataset.test_size=100", "device.threads=1",
    "tracking.tensorboard=false", "hydra.sweep.dir=sweep", "hydra.launcher.fuse=1",
)  # fmt: skip
# submitit counts each signal as the time limit where the limit is less than ten minutes.
FOUR_JOBS, TWO_JOBS = "seed=0,1", "seed=0"  # each job of submitit imports torch
LOCAL = ("hydra/launcher=slurm", "hydra.launcher.cluster=local", "hydra.launcher.timeout_min=9")


def start(folder: Path, *arguments: str, module: str = "train", **variables: str) -> subprocess.Popen[str]:
    (folder / "mynets.py").write_text(NETWORK)
    return subprocess.Popen(
        [sys.executable, "-m", f"bnexp.{module}", *arguments], cwd=folder, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | NO_PICTURES | variables,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> CommandResult:
    out, err = process.communicate(timeout=300)
    return CommandResult(process.returncode, out, err)


def run(folder: Path, *arguments: str, **options: str) -> CommandResult:
    return finish(start(folder, *arguments, **options))


def statuses(folder: Path) -> list[str]:
    return sorted(json.loads(path.read_text())["status"] for path in folder.glob("sweep/*/summary.json"))


def restarts(folder: Path) -> int:
    """How often jobs of the sweep were started again in their folders."""
    files = [json.loads(path.read_text()) for path in folder.glob("sweep/*/environment.json")]
    return sum(len(file["earlier"]) for file in files)


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


def verdict(result: CommandResult) -> str:
    """The printed verdict without measured times; the line breaks depend on their length."""
    match = re.search(r"^(?:Does|Which|How) .*^\S+/report\.html$", result.out, re.DOTALL | re.MULTILINE)
    assert match, result.out + result.err
    return re.sub(r"[\d.]+\s+s\b|about [\d.]+ \w+ as trained", "", " ".join(match[0].split()))


def assert_same_runs(folder: Path, reference: Path, jobs: int) -> None:
    runs = sorted(path.parent for path in folder.glob("sweep/*/summary.json"))
    assert len(runs) == jobs
    for run in runs:
        assert record(run) == record(reference / "sweep" / run.name)


@pytest.fixture(scope="module")
def sequential(tmp_path_factory) -> tuple[Path, CommandResult]:
    """The sweep with one job after the other, and the folder in which it was started."""
    folder = tmp_path_factory.mktemp("sequential")
    result = run(folder, *SWEEP, FOUR_JOBS, "hydra.launcher.jobs=1")
    assert result.code == 0, result.err
    return folder, result


@pytest.mark.slow
@needs_submitit
def test_a_job_that_is_out_of_time_is_queued_again_and_the_sweep_has_the_same_bits(sequential, tmp_path):
    reference, sequential_result = sequential
    (tmp_path / "accident").write_text(str(int(signal.SIGUSR2)))
    result = run(tmp_path, *SWEEP, FOUR_JOBS, *LOCAL)
    assert result.code == 0, result.err
    assert re.fullmatch(r"4 of 4 jobs: \S+: steps changes in training, .*\n", result.err)
    assert not (tmp_path / "accident").exists()
    assert_same_runs(tmp_path, reference, 4)
    assert verdict(result) == verdict(sequential_result)
    assert restarts(tmp_path) == 1


@pytest.mark.slow
@needs_submitit
@pytest.mark.parametrize(
    ("signum", "overrides", "reason", "status"),
    [
        (signal.SIGKILL, (), "killed", "running"),
        (signal.SIGUSR2, ("hydra.launcher.max_num_timeout=0",), "timed-out too many times", "interrupted"),
    ],
)
def test_a_lost_job_is_reported_and_trained_by_the_next_command(
    sequential, tmp_path, signum, overrides, reason, status
):
    (tmp_path / "accident").write_text(str(int(signum)))
    result = run(tmp_path, *SWEEP, TWO_JOBS, *LOCAL, *overrides)
    assert result.code == 1
    (line,) = (line for line in result.err.splitlines() if line.startswith("a job was lost: "))
    assert reason in line
    assert "width=" in line
    assert statuses(tmp_path) == sorted(["finished", status])
    assert verdict(result)
    assert run(tmp_path, *SWEEP, TWO_JOBS, "hydra.launcher.jobs=1").code == 0
    assert_same_runs(tmp_path, sequential[0], 2)


@pytest.mark.slow
@needs_submitit
def test_a_job_is_saved_at_sigterm_and_goes_on_when_it_is_queued_again(sequential, tmp_path):
    (tmp_path / "accident").write_text(str(int(signal.SIGTERM)))  # SLURM pre-empts the job
    process = start(tmp_path, *SWEEP, TWO_JOBS, *LOCAL)
    wait_until(lambda: "interrupted" in statuses(tmp_path), process)
    (file,) = tmp_path.glob("accident-*")
    os.kill(int(file.name.partition("-")[2]), signal.SIGUSR2)
    result = finish(process)
    assert result.code == 0, result.err
    assert re.fullmatch(r"2 of 2 jobs: \S+: steps changes in training, .*\n", result.err)
    assert_same_runs(tmp_path, sequential[0], 2)
    assert restarts(tmp_path) == 1


@pytest.mark.slow
@needs_submitit
def test_ctrl_c_saves_the_running_jobs(sequential, tmp_path):
    (tmp_path / "slow").touch()
    process = start(tmp_path, *SWEEP, TWO_JOBS, *LOCAL)
    wait_until(lambda: list(tmp_path.glob("sweep/*/checkpoints/last.pt")), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: submitit's processes get it, too
    result = finish(process)
    assert result.code == 130, result.err
    assert set(statuses(tmp_path)) == {"interrupted"}
    assert "a job was lost" not in result.err
    assert not (tmp_path / "sweep" / ".stop").exists()
    (tmp_path / "slow").unlink()
    assert run(tmp_path, "sweep", "--trust", "mynets.Net", module="resume").code == 0
    assert_same_runs(tmp_path, sequential[0], 2)


KEY = "hydra.launcher"
BAD_ARGUMENTS = {
    f"+{KEY}.patition=gpu": f"{KEY}.patition: unknown key; did you mean {KEY}.partition? ",
    f"+{KEY}.nodes=2": f"{KEY}.nodes: unknown key; ",
    f"{KEY}.foo=1": f"{KEY}.foo: ",
    f"{KEY}.cluster=slrm": f"{KEY}.cluster=slrm: must be one of slurm, local; did you mean slurm?",
    f"{KEY}.timeout_min=long": f"{KEY}.timeout_min=long: must be a whole number of at least 1",
    f"{KEY}.timeout_min=0": f"{KEY}.timeout_min=0: must be a whole number of at least 1",
    f"{KEY}.mem_gb=4GB": f"{KEY}.mem_gb=4GB: must be a number above 0, or null",
    f"{KEY}.array_parallelism=0": f"{KEY}.array_parallelism=0: must be a whole number",
    f'{KEY}.partition="a\nb"': f"{KEY}.partition: must be one line",
}


@needs_submitit
@pytest.mark.parametrize("argument", BAD_ARGUMENTS)
def test_a_wrong_key_is_one_line(commands, argument):
    result = commands.bnexp("-m", *LOCAL, "seed=0,1", argument)
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert line.startswith(f"bnexp: {BAD_ARGUMENTS[argument]}")
    assert not (commands.folder / "outputs").exists()


@needs_submitit
def test_a_machine_without_slurm_is_one_line(commands, monkeypatch):
    monkeypatch.setenv("PATH", str(commands.folder))
    result = commands.bnexp("-m", "hydra/launcher=slurm", "seed=0,1")
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert line.startswith("bnexp: hydra/launcher=slurm: no srun on this machine; ")
    assert not (commands.folder / "outputs").exists()


def test_without_submitit_one_line_says_how_to_install_it(tmp_path):
    (tmp_path / "submitit.py").write_text("raise ImportError")  # in front of the package that is installed
    result = run(tmp_path, "-m", "hydra/launcher=slurm", "seed=0,1")
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert line.startswith("bnexp: hydra/launcher=slurm: not installed; pip install -e '.[slurm]'")
    assert not (tmp_path / "outputs").exists()


@needs_submitit
def test_submitit_knows_every_key(tmp_path):
    import submitit

    executor = submitit.AutoExecutor(tmp_path, cluster="local", slurm_max_num_timeout=1)
    names = [f"slurm_{key}" for key in SLURM_KEYS if key != "max_num_timeout"]
    executor.update_parameters(**dict.fromkeys(names, 1))
    assert set(KEYS) == {"cluster", "fuse", *SHARED_KEYS, *SLURM_KEYS}
    with pytest.raises(NameError):
        executor.update_parameters(slurm_no_such_key=1)


@needs_submitit
def test_settings_of_slurm_reach_only_slurm(tmp_path):
    launcher = SlurmJobs("local", 3, {"partition": "gpu", "array_parallelism": 1, "timeout_min": 5})
    assert launcher.fuse == 3
    assert launcher.jobs_at_once([]) == 1
    with pytest.raises(UserError, match=r"hydra\.launcher\.fuse=0: must be a whole number of at least 1"):
        SlurmJobs("local", 0, {})


def test_srun_gives_a_job_all_its_cores():
    assert srun_arguments({}) == []
    assert srun_arguments({"cpus_per_task": 4, "srun_args": ["-vv"]}) == ["--cpus-per-task=4", "-vv"]
