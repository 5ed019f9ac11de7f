"""Several processes, one network: real processes, over gloo."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from bnexp.compute.processes import Processes
from bnexp.errors import UserError
from bnexp.models import norms

WORLD = 2


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def _process(rank: int, port: str, work, folder: str, arguments: tuple) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    processes = Processes.started()
    with processes.joined(torch.device("cpu")):
        torch.save(work(processes, *arguments), f"{folder}/{rank}.pt")


def together(work, folder, *arguments) -> list:
    """What ``work(processes, *arguments)`` gives in each of two processes."""
    mp.start_processes(
        _process, (free_port(), work, str(folder), arguments), nprocs=WORLD, start_method="spawn"
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def network(maps: bool) -> nn.Module:
    torch.manual_seed(0)
    norm = norms.make("batch_manual", 1, spatial=maps)
    first = nn.Conv2d(2, 3, 3) if maps else nn.Linear(5, 3)
    layers = [first, norm(3), nn.Tanh(), norm(3), nn.Flatten(), nn.LazyLinear(4)]
    net = nn.Sequential(*layers).double()
    net(torch.randn(4, *((2, 6, 6) if maps else (5,)), dtype=torch.float64))
    return net


def batch(maps: bool, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(1)
    shape = (size, 2, 6, 6) if maps else (size, 5)
    images = 3 + 2 * torch.randn(shape, generator=stream, dtype=torch.float64)
    return images, torch.randint(4, (size,), generator=stream)


def gradients(processes: Processes, maps: bool, size: int, synchronised: bool) -> dict:
    """Loss, gradients and running statistics of one step on this process's share."""
    net = network(maps)
    if synchronised:
        net = norms.synchronize_batch_norms(net)
    whole, labels = batch(maps, size)
    images, mine = processes.share(whole, labels)
    images = images.clone().requires_grad_()
    loss = nn.functional.cross_entropy(net(images), mine) * len(mine) / len(labels)
    loss.backward()
    found = {name: processes.sum_(p.grad) for name, p in net.named_parameters()}
    buffers = {name: b.double() for name, b in net.named_buffers()}
    return found | buffers | {"loss": processes.sum_(loss.detach()), "images": images.grad}


@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize("size", [64, 13])
def test_synchronised_batch_norm_is_that_of_the_whole_batch(tmp_path, maps, size):
    whole = gradients(Processes(), maps, size, False)
    shares = together(gradients, tmp_path, maps, size, True)
    for found in shares:
        for name, value in whole.items():
            if name != "images":
                torch.testing.assert_close(found[name], value, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        torch.cat([share["images"] for share in shares]), whole["images"], rtol=0, atol=1e-10
    )


def test_without_it_each_process_normalises_its_own_share(tmp_path):
    whole = gradients(Processes(), True, 64, False)
    for found in together(gradients, tmp_path, True, 64, False):
        assert (found["0.weight"] - whole["0.weight"]).abs().max() > 1e-4


def test_a_share_is_the_processes_rows():
    rows = torch.arange(7)
    shares = [Processes(rank, 3).share(rows, rows + 1) for rank in range(3)]
    assert torch.equal(torch.cat([first for first, _ in shares]), rows)
    assert [len(first) for first, _ in shares] == [3, 2, 2]
    assert torch.equal(torch.cat([second for _, second in shares]), rows + 1)


TORCHRUN = (
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--nproc-per-node",
    str(WORLD),
    "-m",
    "bnexp.train",
)
QUICK = ("epochs=2", "dataset.train_size=400", "dataset.test_size=200", "batch_size=64", "tracking.every=3")


@pytest.fixture
def torchrun(tmp_path):
    """Starts ``torchrun --nproc-per-node 2 -m bnexp.train`` in an empty folder."""
    started = []

    def start(*words: str) -> subprocess.Popen:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*TORCHRUN[:-2], "--master-port", free_port(), *TORCHRUN[-2:], *words],
            cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def weights(run) -> dict:
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_another_number_goes_on(torchrun, shell, tmp_path):
    words = ("model=mlp", "model.hidden=[20]", *QUICK)
    out, err = torchrun(*words, "epochs=1", "hydra.run.dir=two").communicate(timeout=240)
    assert "seed 0 on cpu" in out, err
    assert out.count("epoch 1/1") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["two"]
    assert shell(*words, "hydra.run.dir=two").code == 0  # one process, one more epoch
    assert shell(*words, "hydra.run.dir=one").code == 0
    for name, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], value, rtol=1e-4, atol=1e-6)
    one, two = (json.loads((tmp_path / run / "summary.json").read_text())["final"] for run in ("one", "two"))
    for name in ("train/loss", "val/loss", "test/loss"):
        assert two[name] == pytest.approx(one[name], rel=1e-5)
    losses = [(tmp_path / run / "steps.csv").read_text().splitlines()[1:] for run in ("one", "two")]
    for whole, shared in zip(*losses, strict=True):
        assert float(shared.split(",")[1]) == pytest.approx(float(whole.split(",")[1]), rel=1e-4)


@pytest.mark.slow
def test_a_process_that_dies_takes_the_others_with_it(torchrun, tmp_path):
    process = torchrun("model=mlp", *QUICK, "epochs=100000", "hydra.run.dir=run")
    metrics = tmp_path / "run" / "metrics.csv"
    wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 2)
    second = [pid for pid in children(process.pid) if environ(pid).get("RANK") == "1"]
    os.kill(second[0], signal.SIGKILL)
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert process.returncode != 0
    assert "bnexp: another process of this run has ended or cannot be reached; the same command" in err, err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert (
        torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["progress"]["epoch"] >= 1
    )
    assert not list((tmp_path / "run").rglob("*.part"))


@pytest.mark.slow
def test_a_signal_is_agreed_on_and_the_run_goes_on(torchrun, tmp_path):
    words = ("model=mlp_bn", "model.hidden=[20]", *QUICK, "epochs=100000", "hydra.run.dir=run")
    process = torchrun(*words)
    metrics = tmp_path / "run" / "metrics.csv"
    wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 2)
    process.send_signal(signal.SIGTERM)  # torchrun hands it to its processes
    process.communicate(timeout=60)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "interrupted"


REFUSED = {
    ("batch_size=33",): "batch_size=33: must be a multiple of the 2 processes that share each batch",
    ("batch_size=50", "dataset.val_size=0", "dataset.train_size=51"): "would be 1 for 2 processes",
    ("device.sync_bn=true", "model.norm=batch"): "model.norm=batch_manual is anywhere",
    ("device.sync_bn=true", "model.norm=none"): "device.sync_bn=true: this network has no batch norm",
    ("-m", "seed=0,1"): "-m: torchrun's processes train one network",
    ("experiment=bn_study",): "-m: torchrun's processes train one network",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_several_processes_cannot_do_is_one_line(commands, monkeypatch, words):
    alone = Processes(0, WORLD)
    monkeypatch.setenv("WORLD_SIZE", str(WORLD))
    monkeypatch.setattr(Processes, "started", lambda: alone)
    monkeypatch.setattr(Processes, "joined", lambda self, device: nullcontext())
    monkeypatch.setattr(Processes, "gathered", lambda self, value: [value] * WORLD)
    done = commands.bnexp(*words)
    assert done.code == 2
    assert REFUSED[words] in done.err
    assert len(done.err.splitlines()) == 1
    assert commands.runs() == []


def data_seen(processes: Processes, broken: bool) -> str:
    def work() -> int:
        if broken and processes.rank == 1:
            raise UserError("dataset.root=there: no such folder")
        return processes.rank if not broken else 0

    try:
        return str(processes.agreed(work, same=lambda found: found))
    except UserError as error:
        return str(error)


def test_what_one_process_cannot_see_stops_all(tmp_path):
    broken = "process 1 of 2: dataset.root=there: no such folder"
    assert together(data_seen, tmp_path, True) == [broken, broken]
    differ = "process 1 of 2: sees other data than process 0 (1)"
    assert together(data_seen, tmp_path, False) == [differ, differ]


def wait_for(condition, seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    return [int(child) for child in found]


def environ(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.partition("=")[::2] for pair in pairs)
