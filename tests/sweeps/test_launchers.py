"""One sweep on each of Hydra's launchers: the same bits and the same verdict, even if a job is killed."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module

from bnexp.cli.hydra_errors import EXTRAS
from bnexp.compute.device import prepare_device
from bnexp.config import schema
from bnexp.sweeps import launchers
from bnexp.training import run as training_run
from conftest import CommandResult
from helpers.records import record

# A user's network. If the file "accident" exists, the first of a sweep's jobs to reach its third training
# step, the first of the second epoch, sends its own process the signal whose number is in the file.
NETWORK = """
import os
from pathlib import Path
from torch import nn

class Net(nn.Sequential):
    def __init__(self, in_channels, image_size, num_classes, width: int):
        if width < 1:
            raise ValueError("no width")
        super().__init__(nn.Flatten(), nn.Linear(in_channels * image_size**2, width), nn.BatchNorm1d(width),
                         nn.Linear(width, num_classes))
        self.steps = 0

    def forward(self, images):
        self.steps += self.training
        if self.steps == 3 and self.training and Path("accident").exists():
            try:
                claimed_file = Path("accident").rename(f"accident-{os.getpid()}")
            except FileNotFoundError:
                return super().forward(images)
            os.kill(os.getpid(), int(claimed_file.read_text()))
        return super().forward(images)
"""
ARGUMENTS = (
    "-m", "model=custom", "model._target_=mynets.Net", "+model.width=8,16,0", "seed=0,1", "epochs=2",
    "batch_size=50", "dataset.train_size=100", "dataset.test_size=100", "device.threads=1",
    "tracking.tensorboard=false",
)  # fmt: skip


def skip_without(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs the extra: pip install -e '.[{extra}]'")


def environment(folder: Path) -> dict[str, str]:
    """Environment variables: Ray's authentication token is in a file, and Ray sends no usage report."""
    token = folder / "token"
    if not token.exists():
        token.write_text(secrets.token_hex(32))
    ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    return os.environ | ray | {"BNEXP_DATA_DIR": str(folder / "data"), "OMP_NUM_THREADS": "1"}


def run_bnexp(folder: Path, *arguments: str, **variables: str) -> CommandResult:
    command = [sys.executable, "-m", "bnexp.train", *arguments]
    for _ in range(3):
        process = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=900,
            env=environment(folder) | variables,
        )
        # Ray waits 30 s for its own start, which is too short on a busy machine.
        if "timed out during startup" not in process.stderr:
            break
    return CommandResult(process.returncode, process.stdout, process.stderr)


@pytest.fixture(scope="module")
def sequential(tmp_path_factory) -> tuple[Path, CommandResult]:
    """The sweep with one job after the other, and the folder in which it was started."""
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "mynets.py").write_text(NETWORK)
    result = run_bnexp(folder, *ARGUMENTS, "hydra.sweep.dir=basic")
    assert result.code == 1, result.err
    return folder, result


def verdict(result: CommandResult) -> str:
    """The printed verdict without measured times and without the folder's name."""
    match = re.search(r"^(?:Does|Which|How) .*?^\S+/report\.html$", result.out, re.DOTALL | re.MULTILINE)
    assert match, result.out + result.err
    lines = [line for line in match[0].splitlines()[:-1] if not line.startswith("\x1b")]
    clocks = r"[\d.]+\s+s\b|about [\d.]+ \w+ as trained|bnexp-resume \S+"
    # The line breaks depend on the length of the times, too.
    return re.sub(clocks, "", " ".join(" ".join(lines).split()))


@contextmanager
def node(folder: Path, *arguments: str):
    """A node of Ray with its own process, folder and session folder."""
    folder.mkdir()
    command = [
        Path(sys.executable).with_name("ray"),
        "start",
        "--block",
        "--object-store-memory=80000000",
        *arguments,
    ]
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
def cluster(folder: Path):
    """A head that takes no job and a node that takes two at the same time; yields the head's address."""
    with socket.socket() as free_socket:
        free_socket.bind(("127.0.0.1", 0))
        port = free_socket.getsockname()[1]
    session = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # a short path: the names of sockets must be short
    try:
        head = (
            "--head",
            f"--port={port}",
            "--num-cpus=0",
            "--include-dashboard=false",
            f"--temp-dir={session}",
        )
        with node(folder / "head", "--node-ip-address=127.0.0.1", *head):
            deadline = time.monotonic() + 60
            while not is_listening(port):
                assert time.monotonic() < deadline
                time.sleep(0.2)
            with node(folder / "node", f"--address=127.0.0.1:{port}", "--num-cpus=2"):
                yield f"127.0.0.1:{port}"
    finally:
        shutil.rmtree(session, ignore_errors=True)


@contextmanager
def joblib(folder: Path):
    skip_without("hydra_plugins.hydra_joblib_launcher", "parallel")
    yield "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"


@contextmanager
def submitit_local(folder: Path):
    skip_without("hydra_plugins.hydra_submitit_launcher", "slurm")
    (folder / "accident").write_text("12")  # SIGUSR2: SLURM pre-empts the job
    yield "hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=3"


@contextmanager
def ray(folder: Path):
    skip_without("hydra_plugins.hydra_ray_launcher", "ray")
    (folder / "accident").write_text("9")  # SIGKILL
    yield "hydra/launcher=ray", "+hydra.launcher.ray.init={num_cpus:2,include_dashboard:false}"


@contextmanager
def ray_cluster(folder: Path):
    skip_without("hydra_plugins.hydra_ray_launcher", "ray")
    (folder / "accident").write_text("9")
    with cluster(folder) as address:
        yield "hydra/launcher=ray_cluster", f"hydra.launcher.ray.init.address='{address}'"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [joblib, submitit_local, ray, ray_cluster], ids=lambda f: f.__name__)
def test_every_launcher_gives_the_same_bits_and_the_same_verdict(sequential, launcher):
    folder, sequential_result = sequential
    sweep = folder / launcher.__name__
    runs = sorted(path.parent for path in (folder / "basic").glob("*/summary.json"))
    finished_runs = [run for run in runs if "seed=0" in run.name and "width=0" not in run.name]
    for run in finished_runs:  # these two jobs are already finished in this sweep's folder
        shutil.copytree(run, sweep / run.name)
    with launcher(folder) as arguments:
        result = run_bnexp(folder, *ARGUMENTS, *arguments, f"hydra.sweep.dir={launcher.__name__}")
    assert result.code == 1, result.err
    assert result.err.count("refuses (no width)") >= 2
    assert verdict(result) == verdict(sequential_result)
    assert {run.name for run in runs} == {path.parent.name for path in sweep.glob("*/summary.json")}
    restarts = 0
    for run in runs:
        same_run = sweep / run.name
        if "width=0" in run.name:
            assert json.loads((same_run / "summary.json").read_text())["status"] == "failed"
            continue
        assert record(same_run) == record(run)
        is_untouched = (same_run / "summary.json").read_bytes() == (run / "summary.json").read_bytes()
        assert is_untouched == (run in finished_runs)
        run_environment = json.loads((same_run / "environment.json").read_text())
        restarts += len(run_environment["earlier"])
        if run not in finished_runs:
            assert run_environment["folder"] == str(folder)
            assert run_environment["command"].endswith(f"hydra.sweep.dir={launcher.__name__}")
    assert restarts == (launcher is not joblib)  # the job that had the accident was resumed once
    assert not (folder / "accident").exists()


# For each launcher: arguments, message, statuses of the jobs.
KILLED_JOBS = {
    "joblib": (("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), "a job's process died", {"running"}),
    "submitit_local": (("hydra/launcher=submitit_local",), "a job was lost", {"running", "finished"}),
    "ray": (
        ("hydra/launcher=ray", "+hydra.launcher.ray.init={num_cpus:2,include_dashboard:false}",
         "+hydra.launcher.ray.remote={max_retries:0}"),
        "a job was lost", {"running", "finished"},
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("launcher", KILLED_JOBS)
def test_a_killed_job_is_reported_and_can_be_resumed(sequential, launcher):
    folder, _ = sequential
    arguments, message, expected_statuses = KILLED_JOBS[launcher]
    plugin = "submitit" if launcher == "submitit_local" else launcher
    skip_without(f"hydra_plugins.hydra_{plugin}_launcher", EXTRAS[launcher])
    (folder / "accident").write_text("9")
    sweep_arguments = [*(a for a in ARGUMENTS if "width" not in a), "+model.width=8", "hydra.sweep.dir=lost"]
    shutil.rmtree(folder / "lost", ignore_errors=True)
    result = run_bnexp(folder, *sweep_arguments, *arguments)
    assert result.code == 1, result.err
    assert message in result.err
    assert "still being written, or killed; not compared" in result.err
    statuses = {json.loads(path.read_text())["status"] for path in folder.glob("lost/*/summary.json")}
    assert statuses >= expected_statuses
    assert run_bnexp(folder, *sweep_arguments).code == 0
    for summary in folder.glob("lost/*/summary.json"):
        (same_run,) = folder.glob(f"basic/*{summary.parent.name.rpartition('-')[2]}")
        assert record(summary.parent) == record(same_run)


@pytest.mark.parametrize(
    ("choice", "extra"),
    [("joblib", "parallel"), ("submitit_local", "slurm"), ("slurm", "slurm"), ("ray", "ray")],
)
def test_a_launcher_that_is_not_installed_is_a_one_line_error(tmp_path, choice, extra):
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "__init__.py").touch()  # hides the plugins that are installed
    result = run_bnexp(tmp_path, "-m", f"hydra/launcher={choice}", "seed=0,1", PYTHONPATH=str(tmp_path))
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert line.startswith("bnexp: hydra/launcher=")
    assert line.endswith(f"not installed; pip install -e '.[{extra}]' in a clone of bnexp brings it")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("overrides", "plugin", "jobs", "jobs_at_once", "deals_gpus"),
    [
        ("", None, 6, 1, False),
        ("hydra/launcher=joblib hydra.launcher.n_jobs=4", "joblib", 6, 4, True),
        ("hydra/launcher=joblib hydra.launcher.n_jobs=4", "joblib", 2, 2, True),
        ("hydra/launcher=joblib hydra.launcher.n_jobs=1", "joblib", 2, 1, False),
        ("hydra/launcher=submitit_local", "submitit", 6, 6, True),
        ("hydra/launcher=submitit_local hydra.sweeper.max_batch_size=3", "submitit", 6, 3, True),
        ("hydra/launcher=slurm", "submitit", 6, None, False),
        ("hydra/launcher=ray", "ray", 6, None, True),
        ("hydra/launcher=ray_cluster", "ray", 6, None, True),
        ("hydra/launcher=ray_cluster hydra.launcher.ray.remote.num_gpus=1", "ray", 6, None, False),
    ],
)
def test_jobs_share_the_machine_and_bnexp_deals_its_gpus(overrides, plugin, jobs, jobs_at_once, deals_gpus):
    if plugin:
        extra = {"joblib": "parallel", "submitit": "slurm"}.get(plugin, plugin)
        skip_without(f"hydra_plugins.hydra_{plugin}_launcher", extra)
    with initialize_config_module("bnexp.conf", version_base="1.3"):
        composed = compose("config", overrides=overrides.split(), return_hydra_config=True)
    assert launchers.jobs_at_once(composed.hydra, jobs) == jobs_at_once
    assert launchers.deals_gpus(composed.hydra, jobs_at_once) == deals_gpus


def test_gpus_are_dealt_round_robin_where_jobs_share_the_machine(monkeypatch):
    def prepare(name: str, number: int | None = None) -> torch.device:
        settings = schema.Device(
            name=name, precision="fp32", compile=False, graphs=False, threads=None, deterministic=False
        )
        return prepare_device(settings, number).torch_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    current_devices = []
    monkeypatch.setattr(torch.cuda, "set_device", current_devices.append)
    for name in ("auto", "cuda"):
        devices = [prepare(name, number) for number in range(5)]
        assert devices == [torch.device("cuda", index) for index in (0, 1, 2, 0, 1)]
        assert current_devices[-5:] == devices
    assert prepare("auto") == torch.device("cuda")
    assert prepare("cpu", 1) == torch.device("cpu")


@pytest.mark.parametrize(("deals_gpus", "expected_numbers"), [(True, [0, 1, 2]), (False, [None] * 3)])
def test_a_job_gets_a_number_only_where_gpus_are_dealt(commands, monkeypatch, deals_gpus, expected_numbers):
    numbers = []

    def recording_prepare_device(settings, number=None):
        numbers.append(number)
        return prepare_device(settings, number)

    monkeypatch.setattr(training_run, "prepare_device", recording_prepare_device)
    monkeypatch.setattr(launchers, "deals_gpus", lambda hydra, jobs_at_once: deals_gpus)
    overrides = ("epochs=1", "dataset.train_size=100", "dataset.test_size=100", "tracking.tensorboard=false")
    assert commands.bnexp("-m", "seed=0,1,2", *overrides).code == 0
    assert numbers == expected_numbers
