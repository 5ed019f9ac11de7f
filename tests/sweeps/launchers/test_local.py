"""The launcher ``local``: workers that are killed, stopped, or lose their main process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bnexp.errors import UserError
from bnexp.runs.job import Job
from bnexp.sweeps.launchers import local
from bnexp.sweeps.launchers.local import LocalProcesses
from helpers.accident_network import NETWORK
from helpers.no_pictures import NO_PICTURES
from helpers.records import record

SWEEP = (
    "-m", "model=custom", "model._target_=slow_net.Net", "+model.width=8,16", "seed=0,1", "epochs=3",
    "batch_size=50", "dataset.train_size=100", "dataset.test_size=100", "device.threads=1",
    "tracking.tensorboard=false", "hydra.launcher.fuse=1",
)  # fmt: skip
WARNING = r"4 of 4 jobs: model\._target_=slow_net\.Net: steps changes in training, .*\n"


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    (folder / "slow_net.py").write_text(NETWORK)
    command = [sys.executable, "-m", "bnexp.train", *SWEEP, *arguments, "hydra.sweep.dir=sweep"]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=os.environ | NO_PICTURES,
    )  # fmt: skip


def statuses(folder: Path) -> list[str]:
    return sorted(json.loads(path.read_text())["status"] for path in folder.glob("sweep/*/summary.json"))


def wait_until(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_at_work(folder: Path) -> bool:
    """Whether two jobs have completed an epoch and none has ended."""
    rows = [path.read_text().count("\n") for path in folder.glob("sweep/*/metrics.csv")]
    return len([count for count in rows if count >= 2]) >= 2


def processes_of(group: int) -> list[str]:
    """The command lines of the processes of a session that run."""
    listing = subprocess.run(["ps", "-eo", "sid=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line.split(maxsplit=1) for line in listing.splitlines()]
    # In brackets: a process without a command line any more, because it is about to end or has ended.
    return [command for session, command in lines if session == str(group) and not command.startswith("[")]


def require_same_runs(folder: Path, reference: Path) -> None:
    for run in reference.glob("sweep/*/summary.json"):
        assert record(folder / "sweep" / run.parent.name) == record(run.parent)


@pytest.fixture(scope="module")
def in_this_process(tmp_path_factory) -> Path:
    """The sweep with one job after the other."""
    folder = tmp_path_factory.mktemp("one_job")
    process = start(folder, "hydra.launcher.jobs=1")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return folder


@pytest.mark.slow
def test_two_workers_give_the_bits_of_one_process(tmp_path, in_this_process):
    process = start(tmp_path, "hydra.launcher.jobs=2")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert re.fullmatch(WARNING, errors)
    assert statuses(tmp_path) == ["finished"] * 4
    require_same_runs(tmp_path, in_this_process)
    assert processes_of(process.pid) == []
    assert not (tmp_path / "sweep" / "workers.log").exists()


@pytest.mark.slow
def test_a_killed_worker_costs_its_own_job_alone(tmp_path, in_this_process):
    (tmp_path / "accident").write_text(str(int(signal.SIGKILL)))
    process = start(tmp_path, "hydra.launcher.jobs=2")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "a worker was lost (SIGKILL): seed=" in errors
    assert statuses(tmp_path) == ["finished", "finished", "finished", "running"]
    repeated = start(tmp_path, "hydra.launcher.jobs=1")
    repeated.communicate(timeout=120)
    assert repeated.returncode == 0
    require_same_runs(tmp_path, in_this_process)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_all_running_jobs(tmp_path, signum):
    process = start(tmp_path, "+model.pause=0.2", "epochs=30", "hydra.launcher.jobs=2")
    wait_until(lambda: is_at_work(tmp_path), process)
    if signum == signal.SIGINT:
        os.killpg(process.pid, signum)  # as a terminal does: every process gets it
    else:
        process.send_signal(signum)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert errors.count("bnexp: interrupted") == 1
    assert "leaked" not in errors
    assert output.splitlines()[-1] == "carry on: bnexp-resume sweep"
    assert statuses(tmp_path) == ["interrupted", "interrupted"]
    assert processes_of(process.pid) == []


@pytest.mark.slow
def test_a_second_signal_ends_the_sweep_at_once(tmp_path):
    process = start(tmp_path, "+model.pause=4", "hydra.launcher.jobs=2")
    wait_until(lambda: len(statuses(tmp_path)) == 2, process)
    time.sleep(1)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert processes_of(process.pid) == []
    assert time.monotonic() - begin < 30  # three epochs take longer than that


@pytest.mark.slow
def test_workers_of_a_killed_main_process_save_and_go(tmp_path):
    process = start(tmp_path, "+model.pause=0.2", "epochs=30", "hydra.launcher.jobs=2")
    wait_until(lambda: is_at_work(tmp_path), process)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while processes_of(process.pid):
        assert time.monotonic() < deadline, processes_of(process.pid)
        time.sleep(0.1)
    assert statuses(tmp_path) == ["interrupted", "interrupted"]


@pytest.mark.parametrize("value", [0, -1, 1.5, "two", True])
@pytest.mark.parametrize("key", ["jobs", "fuse"])
def test_jobs_and_fuse_are_whole_numbers(key, value):
    with pytest.raises(UserError, match=rf"hydra\.launcher\.{key}=.*: must be a whole number of at least 1"):
        LocalProcesses(**{"jobs": None, "fuse": None} | {key: value})


def jobs(count: int, device: str, threads: int | None = None) -> list[Job]:
    values = {"device": {"name": device, "threads": threads}}
    return [Job(f"/{number}", values, "", [], {}, {}, {}, "") for number in range(count)]


@pytest.mark.parametrize(
    ("key", "device", "threads", "gpus", "expected"),
    [
        (None, "cpu", None, 0, 8),
        (None, "cpu", 2, 0, 4),
        (None, "cpu", 16, 0, 1),
        (None, "auto", None, 0, 8),
        (None, "auto", None, 3, 3),
        (None, "cuda", 4, 1, 1),
        (None, "cpu", None, 3, 8),
        (5, "cuda", 4, 1, 5),
    ],
)
def test_as_many_jobs_as_cores_or_gpus_allow(monkeypatch, key, device, threads, gpus, expected):
    monkeypatch.setattr(local, "cores", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert LocalProcesses(key, None).jobs_at_once(jobs(20, device, threads)) == expected


@pytest.mark.slow
def test_a_system_without_a_fork_server_starts_new_processes(tmp_path):
    """As on Windows. The workers import torch each."""
    program = (
        "import multiprocessing, sys\n"
        "multiprocessing.get_all_start_methods = lambda: ['spawn']\n"
        "from bnexp.train import main\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    )
    (tmp_path / "slow_net.py").write_text(NETWORK)
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, "program.py", *SWEEP, "hydra.launcher.jobs=2", "hydra.sweep.dir=sweep"]
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=240, env=os.environ | NO_PICTURES
    )
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(WARNING, result.stderr)
    assert statuses(tmp_path) == ["finished"] * 4
