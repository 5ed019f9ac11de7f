"""The launcher ``ray``: a Ray of this machine, a cluster of two nodes, a worker that is killed."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import CommandResult
from helpers.accident_network import NETWORK
from helpers.no_pictures import NO_PICTURES
from helpers.records import record

pytest.importorskip("ray", reason="needs the extra: pip install -e '.[ray]'")

SWEEP = (
    "-m", "model=custom", "model._target_=ray_net.Net", "+model.width=8,16,0", "seed=0,1", "epochs=2",
    "batch_size=50", "dataset.train_size=100", "dataset.test_size=100", "device.threads=1",
    "tracking.tensorboard=false",
)  # fmt: skip
LOCAL_RAY = ("hydra/launcher=ray", "+hydra.launcher.init.num_cpus=2")


def environment(folder: Path) -> dict[str, str]:
    """Environment variables: a file with Ray's authentication token, no report of usage, no pictures."""
    token = folder / "token"
    if not token.exists():
        token.write_text(secrets.token_hex(32))
    ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    return os.environ | ray | {"OMP_NUM_THREADS": "1"} | NO_PICTURES


def run_bnexp(folder: Path, *arguments: str) -> CommandResult:
    command = [sys.executable, "-m", "bnexp.train", *arguments]
    for _ in range(3):
        process = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=600, env=environment(folder)
        )
        # Ray waits 30 s for its own start, which is too short on a busy machine.
        if "timed out during startup" not in process.stderr:
            break
    return CommandResult(process.returncode, process.stdout, process.stderr)


@pytest.fixture(scope="module")
def one_job(tmp_path_factory) -> tuple[Path, CommandResult]:
    """The sweep with one job after the other, and the folder in which it was started."""
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "ray_net.py").write_text(NETWORK)
    result = run_bnexp(folder, *SWEEP, "hydra.launcher.jobs=1", "hydra.sweep.dir=one_job")
    assert result.code == 1, result.err
    return folder, result


def verdict(result: CommandResult) -> str:
    """The printed verdict without measured times and without the folder's name."""
    match = re.search(r"^(?:Does|Which|How) .*?^\S+/report\.html$", result.out, re.DOTALL | re.MULTILINE)
    assert match, result.out + result.err
    clocks = r"[\d.]+\s+s\b|about [\d.]+ \w+ as trained|bnexp-resume \S+|\S+/report\.html"
    # The line breaks depend on the length of the times, too.
    return " ".join(re.sub(clocks, "", " ".join(match[0].split())).split())


@contextmanager
def node(folder: Path, *arguments: str) -> Iterator[None]:
    """A node of Ray with its own process, folder and session folder."""
    folder.mkdir()
    program = Path(sys.executable).with_name("ray")
    command = [program, "start", "--block", "--object-store-memory=80000000", *arguments]
    process = subprocess.Popen(command, cwd=folder, env=environment(folder.parent), stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def is_listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """A head that takes no job and a node that takes two at the same time; yields the head's address."""
    with socket.socket() as free_socket:
        free_socket.bind(("127.0.0.1", 0))
        port = free_socket.getsockname()[1]
    session = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # a short path: the names of sockets must be short
    head = (
        "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={session}",
        "--node-ip-address=127.0.0.1",
    )  # fmt: skip
    try:
        with node(folder / "head", *head):
            deadline = time.monotonic() + 60
            while not is_listening(port):
                assert time.monotonic() < deadline
                time.sleep(0.2)
            with node(folder / "node", f"--address=127.0.0.1:{port}", "--num-cpus=2"):
                yield f"127.0.0.1:{port}"
    finally:
        shutil.rmtree(session, ignore_errors=True)


@contextmanager
def ray_on_this_machine(folder: Path) -> Iterator[tuple[str, ...]]:
    yield LOCAL_RAY


@contextmanager
def ray_cluster(folder: Path) -> Iterator[tuple[str, ...]]:
    with cluster(folder) as address:
        yield "hydra/launcher=ray", f"hydra.launcher.address='{address}'"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [ray_on_this_machine, ray_cluster], ids=["this machine", "cluster"])
def test_a_killed_worker_goes_on_to_the_bits_and_the_verdict_of_one_process(one_job, launcher):
    folder, expected_result = one_job
    name = launcher.__name__
    runs = sorted(path.parent for path in (folder / "one_job").glob("*/summary.json"))
    (folder / "accident").write_text(str(int(signal.SIGKILL)))
    with launcher(folder) as arguments:
        result = run_bnexp(folder, *SWEEP, *arguments, f"hydra.sweep.dir={name}")
    assert result.code == 1, result.err
    assert "refuses (no width)" in result.err
    assert verdict(result) == verdict(expected_result)
    restarts = 0
    for run in runs:
        same_run = folder / name / run.name
        if "width=0" in run.name:
            assert json.loads((same_run / "summary.json").read_text())["status"] == "failed"
            continue
        assert record(same_run) == record(run)
        run_environment = json.loads((same_run / "environment.json").read_text())
        restarts += len(run_environment["earlier"])
        assert run_environment["folder"] == str(folder)
        assert run_environment["command"].endswith(f"hydra.sweep.dir={name}")
    assert restarts == 1
    assert not (folder / "accident").exists()


@pytest.mark.slow
def test_a_job_whose_worker_dies_too_often_is_named_and_can_be_resumed(one_job):
    folder, _ = one_job
    (folder / "accident").write_text(str(int(signal.SIGKILL)))
    arguments = [*(a for a in SWEEP if "width" not in a), "+model.width=8", "hydra.sweep.dir=killed"]
    result = run_bnexp(folder, *arguments, *LOCAL_RAY, "hydra.launcher.max_retries=0")
    assert result.code == 1, result.err
    assert "a job was lost: seed=" in result.err
    assert "still being written, or killed; not compared" in result.err
    assert run_bnexp(folder, *arguments).code == 0
    for summary in folder.glob("killed/*/summary.json"):
        (same_run,) = folder.glob(f"one_job/*{summary.parent.name.rpartition('-')[2]}")
        assert record(summary.parent) == record(same_run)


def test_an_address_where_nobody_listens_is_one_line(one_job):
    result = run_bnexp(one_job[0], "-m", "hydra/launcher=ray", "hydra.launcher.address='127.0.0.1:1'")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("bnexp: hydra.launcher.address=127.0.0.1:1: no cluster there")
    assert len(result.err.splitlines()) == 1
