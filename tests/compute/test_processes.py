"""Several processes, one network: real processes, over gloo."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from bnexp.compute.processes import Processes
from bnexp.errors import UserError
from bnexp.models import norms
from bnexp.runs.confusion import read_confusion

WORLD = 2
GRADIENT_CASES = [(False, 64), (False, 13), (True, 64), (True, 13)]  # maps, size


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def _process(rank: int, port: str, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    processes = Processes.from_environment()
    with processes.connect(torch.device("cpu")):
        results = {name: work(processes) for name, work in work_of_two_processes().items()}
        torch.save(results, f"{folder}/{rank}.pt")


def work_of_two_processes() -> dict:
    """Functions of ``processes``; the fixture ``results`` calls them all, because a start takes seconds."""
    return {
        **{
            case: partial(gradients, maps=case[0], size=case[1], synchronised=True) for case in GRADIENT_CASES
        },
        "not synchronised": partial(gradients, maps=True, size=64, synchronised=False),
        "an error in one process": partial(agree_on_data, broken=True),
        "other data in one process": partial(agree_on_data, broken=False),
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict]:
    """What each of two processes got for each work, by name."""
    folder = tmp_path_factory.mktemp("two_processes")
    mp.start_processes(_process, (free_port(), str(folder)), nprocs=WORLD, start_method="spawn")
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
    """Loss, gradients and running statistics of one step on this process's shard."""
    net = network(maps)
    if synchronised:
        net = norms.synchronize_batch_norms(net)
    batch_images, batch_labels = batch(maps, size)
    images, labels = processes.shard(batch_images, batch_labels)
    images = images.clone().requires_grad_()
    loss = nn.functional.cross_entropy(net(images), labels) * len(labels) / len(batch_labels)
    loss.backward()
    parameter_gradients = {name: processes.sum_(p.grad) for name, p in net.named_parameters()}
    buffers = {name: b.double() for name, b in net.named_buffers()}
    return parameter_gradients | buffers | {"loss": processes.sum_(loss.detach()), "images": images.grad}


@pytest.mark.parametrize(("maps", "size"), GRADIENT_CASES)
def test_synchronised_batch_norm_is_that_of_the_whole_batch(results, maps, size):
    expected = gradients(Processes(), maps, size, False)
    of_each_process = [result[maps, size] for result in results]
    for result in of_each_process:
        for name, value in expected.items():
            if name != "images":
                torch.testing.assert_close(result[name], value, rtol=0, atol=1e-10)
    image_gradients = torch.cat([result["images"] for result in of_each_process])
    torch.testing.assert_close(image_gradients, expected["images"], rtol=0, atol=1e-10)


def test_without_synchronisation_each_process_normalises_its_own_shard(results):
    single = gradients(Processes(), True, 64, False)
    for result in results:
        assert (result["not synchronised"]["0.weight"] - single["0.weight"]).abs().max() > 1e-4


def test_the_shards_of_all_processes_are_the_batch():
    rows = torch.arange(7)
    shards = [Processes(rank, 3).shard(rows, rows + 1) for rank in range(3)]
    assert torch.equal(torch.cat([first for first, _ in shards]), rows)
    assert [len(first) for first, _ in shards] == [3, 2, 2]
    assert torch.equal(torch.cat([second for _, second in shards]), rows + 1)


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
    processes = []

    def start(*overrides: str) -> subprocess.Popen:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*TORCHRUN[:-2], "--master-port", free_port(), *TORCHRUN[-2:], *overrides],
            cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def weights(run) -> dict:
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_one_process_can_continue(torchrun, commands, tmp_path):
    overrides = ("model=mlp", "model.hidden=[20]", *QUICK)
    out, err = torchrun(*overrides, "epochs=1", "hydra.run.dir=two").communicate(timeout=240)
    assert "seed 0 on cpu" in out, err
    assert out.count("epoch 1/1") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["two"]
    summary = json.loads((tmp_path / "two" / "summary.json").read_text())
    confusion = read_confusion(tmp_path / "two")["final"]  # of the images of both processes
    assert sum(confusion.values()) == summary["images"]["test"]
    correct = sum(count for (label, prediction), count in confusion.items() if label == prediction)
    assert correct / summary["images"]["test"] == pytest.approx(summary["final"]["test/accuracy"])
    assert commands.bnexp(*overrides, "hydra.run.dir=two").code == 0  # one process, one more epoch
    assert commands.bnexp(*overrides, "hydra.run.dir=one").code == 0
    for name, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], value, rtol=1e-4, atol=1e-6)
    final_of_one, final_of_two = (
        json.loads((tmp_path / run / "summary.json").read_text())["final"] for run in ("one", "two")
    )
    for name in ("train/loss", "val/loss", "test/loss"):
        assert final_of_two[name] == pytest.approx(final_of_one[name], rel=1e-5)
    losses = [(tmp_path / run / "steps.csv").read_text().splitlines()[1:] for run in ("one", "two")]
    for single, distributed in zip(*losses, strict=True):
        assert float(distributed.split(",")[1]) == pytest.approx(float(single.split(",")[1]), rel=1e-4)


@pytest.mark.slow
def test_when_one_process_dies_the_others_end_with_a_message(torchrun, tmp_path):
    process = torchrun("model=mlp", *QUICK, "epochs=100000", "hydra.run.dir=run")
    metrics = tmp_path / "run" / "metrics.csv"
    wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 2)
    second = [pid for pid in children(process.pid) if environ(pid).get("RANK") == "1"]
    os.kill(second[0], signal.SIGKILL)
    kill_time = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - kill_time < 30
    assert process.returncode != 0
    assert "bnexp: another process of this run has ended or cannot be reached; the same command" in err, err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert (
        torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["progress"]["epoch"] >= 1
    )
    assert not list((tmp_path / "run").rglob("*.part"))


@pytest.mark.slow
def test_a_signal_to_torchrun_saves_the_run(torchrun, tmp_path):
    overrides = ("model=mlp_bn", "model.hidden=[20]", *QUICK, "epochs=100000", "hydra.run.dir=run")
    process = torchrun(*overrides)
    metrics = tmp_path / "run" / "metrics.csv"
    wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 2)
    process.send_signal(signal.SIGTERM)  # torchrun forwards it to its processes
    process.communicate(timeout=60)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "interrupted"


REFUSED = {
    ("batch_size=33",): "batch_size=33: must be a multiple of the 2 processes that share each batch",
    ("batch_size=50", "dataset.val_size=0", "dataset.train_size=51"): "would be 1 for 2 processes",
    ("device.sync_bn=true", "model.norm=batch"): "model.norm=batch_manual is on any device",
    ("device.sync_bn=true", "model.norm=none"): "device.sync_bn=true: this network has no batch norm",
    (
        "device.sync_bn=true",
        "model.norm=batch",
        "model.norm_images=8",
    ): "model.norm_images takes its",
    ("-m", "seed=0,1"): "-m: torchrun's processes train one network",
    ("experiment=bn_study",): "-m: torchrun's processes train one network",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_what_several_processes_cannot_do_is_a_one_line_error(commands, monkeypatch, overrides):
    first_of_two = Processes(0, WORLD)
    monkeypatch.setenv("WORLD_SIZE", str(WORLD))
    monkeypatch.setattr(Processes, "from_environment", lambda: first_of_two)
    monkeypatch.setattr(Processes, "connect", lambda self, device: nullcontext())
    monkeypatch.setattr(Processes, "gather", lambda self, value: [value] * WORLD)
    done = commands.bnexp(*overrides)
    assert done.code == 2
    assert REFUSED[overrides] in done.err
    assert len(done.err.splitlines()) == 1
    assert commands.runs() == []


def agree_on_data(processes: Processes, broken: bool) -> str:
    def work() -> int:
        if broken and processes.rank == 1:
            raise UserError("dataset.root=there: no such folder")
        return processes.rank if not broken else 0

    try:
        return str(processes.agree_on(work, key=lambda rank: rank))
    except UserError as error:
        return str(error)


def test_an_error_or_other_data_in_one_process_stops_all(results):
    broken = "process 1 of 2: dataset.root=there: no such folder"
    assert [result["an error in one process"] for result in results] == [broken, broken]
    differ = "process 1 of 2: sees other data than process 0 (1)"
    assert [result["other data in one process"] for result in results] == [differ, differ]


def wait_for(condition, seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    output = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout
    return [int(child) for child in output.split()]


def environ(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.partition("=")[::2] for pair in pairs)
