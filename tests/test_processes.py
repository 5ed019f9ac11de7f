"""Several processes, one network: real processes, over gloo."""

import os
import socket

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from bnexp import norms
from bnexp.processes import Processes

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
    processes.join(torch.device("cpu"))
    torch.save(work(processes, *arguments), f"{folder}/{rank}.pt")
    processes.leave()


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
    for module in net.modules():
        if isinstance(module, norms.BatchNorm):
            module.synchronised = synchronised
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
