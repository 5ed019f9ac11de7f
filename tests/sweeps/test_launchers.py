"""One sweep on each of Hydra's launchers: the same bits, the same verdict, whatever happens on the way."""

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
from conftest import CommandResult
from helpers.records import record
from hydra import compose, initialize_config_module
from test_device import wanted

from bnexp.compute import device
from bnexp.sweeps import launchers

# A network of one's own that has an accident: the first of a sweep's jobs to come to its third training
# step, the first of the second epoch, sends its own process the signal whose number is in the file.
NET = """
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
                mine = Path("accident").rename(f"accident-{os.getpid()}")
            except FileNotFoundError:
                return super().forward(images)
            os.kill(os.getpid(), int(mine.read_text()))
        return super().forward(images)
"""
WORDS = (
    "-m", "model=custom", "model._target_=mynets.Net", "+model.width=8,16,0", "seed=0,1", "epochs=2",
    "batch_size=50", "dataset.train_size=100", "dataset.test_size=100", "device.threads=1",
    "tracking.tensorboard=false",
)  # fmt: skip


def needs(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f'needs the extra: pip install "bnexp[{extra}]"')


def environment(folder: Path) -> dict[str, str]:
    """Ray's word of admission in a file of its own, and no word to its makers."""
    token = folder / "token"
    if not token.exists():
        token.write_text(secrets.token_hex(32))
    ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    return os.environ | ray | {"BNEXP_DATA_DIR": str(folder / "data"), "OMP_NUM_THREADS": "1"}


def bnexp(folder: Path, *words: str, **more: str) -> CommandResult:
    command = [sys.executable, "-m", "bnexp.train", *words]
    for _ in range(3):
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=900, env=environment(folder) | more
        )
        if (
            "timed out during startup" not in done.stderr
        ):  # Ray's own 30 s, short on a machine with much to do
            break
    return CommandResult(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[Path, CommandResult]:
    """The sweep one job after the other, and the folder it was started in."""
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "mynets.py").write_text(NET)
    done = bnexp(folder, *WORDS, "hydra.sweep.dir=basic")
    assert done.code == 1, done.err
    return folder, done


def verdict(done: CommandResult) -> str:
    """What is said of the runs, without what a clock has measured and without the folder's name."""
    said = re.search(r"^compare .*?^\S+/report\.html$", done.out, re.DOTALL | re.MULTILINE)
    assert said, done.out + done.err
    lines = [line for line in said[0].splitlines()[:-1] if not line.startswith("\x1b")]
    clocks = r"[\d.]+\s+s\b|about [\d.]+ \w+ as trained|hydra\.sweep\.dir=\S+"
    return re.sub(clocks, "", " ".join(" ".join(lines).split()))  # where a line breaks, too, hangs on them


@contextmanager
def node(folder: Path, *words: str):
    """A node of Ray in a process, a folder and a session folder of its own."""
    folder.mkdir()
    command = [
        Path(sys.executable).with_name("ray"),
        "start",
        "--block",
        "--object-store-memory=80000000",
        *words,
    ]
    process = subprocess.Popen(command, cwd=folder, env=environment(folder.parent), stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def cluster(folder: Path):
    """A head that takes no job and a node that takes two at a time; the address of the head."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    session = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # its sockets' names must not be long
    try:
        head = (
            "--head",
            f"--port={port}",
            "--num-cpus=0",
            "--include-dashboard=false",
            f"--temp-dir={session}",
        )
        with node(folder / "head", "--node-ip-address=127.0.0.1", *head):
            until = time.monotonic() + 60
            while not listening(port):
                assert time.monotonic() < until
                time.sleep(0.2)
            with node(folder / "node", f"--address=127.0.0.1:{port}", "--num-cpus=2"):
                yield f"127.0.0.1:{port}"
    finally:
        shutil.rmtree(session, ignore_errors=True)


@contextmanager
def joblib(folder: Path):
    needs("hydra_plugins.hydra_joblib_launcher", "parallel")
    yield "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"


@contextmanager
def submitit_local(folder: Path):
    needs("hydra_plugins.hydra_submitit_launcher", "slurm")
    (folder / "accident").write_text("12")  # SIGUSR2: a pre-emption
    yield "hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=3"


@contextmanager
def ray(folder: Path):
    needs("hydra_plugins.hydra_ray_launcher", "ray")
    (folder / "accident").write_text("9")  # SIGKILL
    yield "hydra/launcher=ray", "+hydra.launcher.ray.init={num_cpus:2,include_dashboard:false}"


@contextmanager
def ray_cluster(folder: Path):
    needs("hydra_plugins.hydra_ray_launcher", "ray")
    (folder / "accident").write_text("9")
    with cluster(folder) as address:
        yield "hydra/launcher=ray_cluster", f"hydra.launcher.ray.init.address='{address}'"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [joblib, submitit_local, ray, ray_cluster], ids=lambda f: f.__name__)
def test_every_launcher_gives_the_same_bits_and_the_same_verdict(plain, launcher):
    folder, before = plain
    ours, theirs = folder / "basic", folder / launcher.__name__
    runs = sorted(path.parent for path in ours.glob("*/summary.json"))
    kept = [run for run in runs if "seed=0" in run.name and "width=0" not in run.name]
    for run in kept:  # these two have been finished in this sweep's folder
        shutil.copytree(run, theirs / run.name)
    with launcher(folder) as words:
        done = bnexp(folder, *WORDS, *words, f"hydra.sweep.dir={launcher.__name__}")
    assert done.code == 1, done.err
    assert done.err.count("refuses (no width)") >= 2
    assert verdict(done) == verdict(before)
    assert {run.name for run in runs} == {path.parent.name for path in theirs.glob("*/summary.json")}
    again = 0
    for run in runs:
        twin = theirs / run.name
        if "width=0" in run.name:
            assert json.loads((twin / "summary.json").read_text())["status"] == "failed"
            continue
        assert record(twin) == record(run)
        assert ((twin / "summary.json").read_bytes() == (run / "summary.json").read_bytes()) == (run in kept)
        told = json.loads((twin / "environment.json").read_text())
        again += len(told["earlier"])
        if run not in kept:
            assert told["folder"] == str(folder)
            assert told["command"].endswith(f"hydra.sweep.dir={launcher.__name__}")
    assert again == (launcher is not joblib)  # the job that had the accident went on once
    assert not (folder / "accident").exists()


LOST = {
    "joblib": (("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), "a job's process died", {"running"}),
    "submitit_local": (("hydra/launcher=submitit_local",), "a job was lost", {"running", "finished"}),
    "ray": (
        ("hydra/launcher=ray", "+hydra.launcher.ray.init={num_cpus:2,include_dashboard:false}",
         "+hydra.launcher.ray.remote={max_retries:0}"),
        "a job was lost", {"running", "finished"},
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LOST)
def test_a_job_that_is_killed_is_told_and_can_be_carried_on(plain, launcher):
    folder, _ = plain
    words, said, statuses = LOST[launcher]
    plugin = "submitit" if launcher == "submitit_local" else launcher
    needs(f"hydra_plugins.hydra_{plugin}_launcher", launchers.EXTRAS[launcher])
    (folder / "accident").write_text("9")
    swept = [*(word for word in WORDS if "width" not in word), "+model.width=8", "hydra.sweep.dir=lost"]
    shutil.rmtree(folder / "lost", ignore_errors=True)
    done = bnexp(folder, *swept, *words)
    assert done.code == 1, done.err
    assert said in done.err
    assert "still being written, or killed; not compared" in done.err
    found = {json.loads(path.read_text())["status"] for path in folder.glob("lost/*/summary.json")}
    assert found >= statuses
    assert bnexp(folder, *swept).code == 0
    for run in folder.glob("lost/*/summary.json"):
        (twin,) = folder.glob(f"basic/*{run.parent.name.rpartition('-')[2]}")
        assert record(run.parent) == record(twin)


@pytest.mark.parametrize(
    ("choice", "extra"),
    [("joblib", "parallel"), ("submitit_local", "slurm"), ("slurm", "slurm"), ("ray", "ray")],
)
def test_a_launcher_that_is_not_installed_is_one_line(tmp_path, choice, extra):
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "__init__.py").touch()  # stands before the plugins that are installed
    done = bnexp(tmp_path, "-m", f"hydra/launcher={choice}", "seed=0,1", PYTHONPATH=str(tmp_path))
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith("bnexp: hydra/launcher=")
    assert line.endswith(f'not installed; pip install "bnexp[{extra}]" brings it')
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("words", "plugin", "jobs", "shared", "deals"),
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
def test_how_many_jobs_share_the_machine_and_who_deals_its_gpus(words, plugin, jobs, shared, deals):
    if plugin:
        needs(
            f"hydra_plugins.hydra_{plugin}_launcher",
            {"joblib": "parallel", "submitit": "slurm"}.get(plugin, plugin),
        )
    with initialize_config_module("bnexp.conf", version_base="1.3"):
        composed = compose("config", overrides=words.split(), return_hydra_config=True)
    assert launchers.at_once(composed.hydra, jobs) == shared
    assert launchers.deals_gpus(composed.hydra, shared) == deals


def test_gpus_are_dealt_round_robin_where_jobs_share_the_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    current = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    for name in ("auto", "cuda"):
        dealt = [device.prepare(wanted(name=name), number).device for number in range(5)]
        assert dealt == [torch.device("cuda", index) for index in (0, 1, 2, 0, 1)]
        assert current[-5:] == dealt
    assert device.prepare(wanted()).device == torch.device("cuda")
    assert device.prepare(wanted(name="cpu"), 1).device == torch.device("cpu")


@pytest.mark.parametrize(("deals", "numbers"), [(True, [0, 1, 2]), (False, [None] * 3)])
def test_a_job_takes_its_turn_only_where_gpus_are_dealt(commands, monkeypatch, deals, numbers):
    prepare, seen = device.prepare, []

    def noted(keys, number=None):
        seen.append(number)
        return prepare(keys, number)

    monkeypatch.setattr(device, "prepare", noted)
    monkeypatch.setattr(launchers, "deals_gpus", lambda hydra, shared: deals)
    words = ("epochs=1", "dataset.train_size=100", "dataset.test_size=100", "tracking.tensorboard=false")
    assert commands.bnexp("-m", "seed=0,1,2", *words).code == 0
    assert seen == numbers
