"""One network trained by several processes: which one this is, its share of a batch, sums over all of them.

torchrun starts the processes and watches them; they talk through torch.distributed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bnexp.errors import ProcessLost, UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes of one run, and which of them this is. Alone, nothing is sent and nothing waits."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1  # processes on this machine

    @classmethod
    def started(cls) -> Processes:
        """What torchrun has set in this process's environment."""
        rank, world, local_rank = (int(os.environ.get(name) or 0) for name in VARIABLES)
        return cls(rank, max(world, 1), local_rank, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))

    @property
    def first(self) -> bool:
        """Whether this is the one that writes the run's folder."""
        return self.rank == 0

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """In touch with the others, over nccl on GPUs, else over gloo; one that ends raises ProcessLost."""
        if self.world == 1:
            yield
            return
        with _translate_lost_peer():
            backend = "nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=timedelta(minutes=10))
            try:
                yield
            finally:
                dist.destroy_process_group()

    def share(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """This process's rows of each (B, ...): B / world, one more in the first if there is a rest."""
        if self.world == 1:
            return tensors
        return tuple(tensor.tensor_split(self.world)[self.rank] for tensor in tensors)

    def sum_(self, tensor: Tensor) -> Tensor:
        """``tensor`` replaced by its sum over all processes."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether ``flag`` is up in any process."""
        if self.world == 1:
            return flag
        return bool(self.sum_(torch.tensor([float(flag)], device=device)) > 0)

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, in every one of them."""
        if self.world == 1:
            return make()
        made: list[Any] = [make() if self.first else None]
        dist.broadcast_object_list(made)
        return made[0]

    def agreed(self, work: Callable[[], T], same: Callable[[T], object]) -> T:
        """What ``work`` gives here. Raises UserError in all if it did in one, or if ``same`` differs."""
        if self.world == 1:
            return work()
        found, fault = None, None
        try:
            found = work()
        except UserError as error:
            fault = str(error)
        reports = self.gathered((fault, None if fault else same(found)))  # type: ignore[arg-type]
        for rank, (wrong, seen) in enumerate(reports):
            if wrong is not None:
                raise UserError(f"process {rank} of {self.world}: {wrong}")
            if seen != reports[0][1]:
                raise UserError(f"process {rank} of {self.world}: sees other data than process 0 ({seen})")
        return found  # type: ignore[return-value]

    def gathered(self, value: T) -> list[T]:
        """What each process gives, in the order of their ranks."""
        values: list[Any] = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(values, value)
        return values

    def averaging(self, module: nn.Module) -> nn.Module:
        """``module``, its gradients averaged over all processes while they are computed."""
        if self.world == 1:
            return module
        return nn.parallel.DistributedDataParallel(module)

    def copy_buffers(self, module: nn.Module) -> None:
        """Running statistics become the first process's: each has seen its own share of the batches."""
        if self.world > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)


VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
SINGLE_PROCESS = Processes()


@contextmanager
def _translate_lost_peer() -> Iterator[None]:
    """Turns what a backend raises when its peer is gone into ProcessLost; other errors pass."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not BACKEND_MESSAGES.search(str(error)):
            raise
        raise ProcessLost(
            "another process of this run has ended or cannot be reached; the same command with the same"
            " hydra.run.dir goes on from the last checkpoint"
        ) from error


# gloo has no exception of its own: its messages name its source files, or a connection.
BACKEND_MESSAGES = re.compile(r"gloo|nccl|connection (closed|reset|refused)|socket|timed out", re.IGNORECASE)


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes. Each input is in every result: gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
