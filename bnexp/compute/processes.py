"""One network trained by several processes: rank, shard of a batch, sums over all processes.

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
    """The processes of one run, and which of them this is. A single process sends nothing and never waits."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1  # processes on this machine

    @classmethod
    def from_environment(cls) -> Processes:
        """As torchrun has set it in this process's environment variables."""

        def read(name: str, default: int) -> int:
            return int(os.environ.get(name) or default)

        return cls(read("RANK", 0), read("WORLD_SIZE", 1), read("LOCAL_RANK", 0), read("LOCAL_WORLD_SIZE", 1))

    @property
    def is_distributed(self) -> bool:
        return self.world_size > 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run's folder."""
        return self.rank == 0

    @contextmanager
    def connect(self, device: torch.device) -> Iterator[None]:
        """Connects all processes, over nccl on GPUs, else over gloo. Raises ProcessLost when one ends.

        Raises UserError where torchrun has not said how to connect.
        """
        if not self.is_distributed:
            yield
            return
        for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
            if not os.environ.get(name):
                hint = "start with torchrun, or unset WORLD_SIZE"
                raise UserError(f"WORLD_SIZE={self.world_size}: {name} is not set; {hint}")
        with _report_lost_process():
            backend = "nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=timedelta(minutes=10))
            try:
                yield
            finally:
                dist.destroy_process_group()

    def shard(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """This process's rows of each tensor (B, ...). If B does not divide, the first ranks get one more."""
        if not self.is_distributed:
            return tensors
        return tuple(tensor.tensor_split(self.world_size)[self.rank] for tensor in tensors)

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replaces the values of ``tensor`` by their sums over all processes."""
        if self.is_distributed:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether ``flag`` is true in any process."""
        if not self.is_distributed:
            return flag
        return bool(self.sum_(torch.tensor([float(flag)], device=device)) > 0)

    def broadcast(self, make: Callable[[], T]) -> T:
        """The result of ``make`` in the first process, given to every process."""
        if not self.is_distributed:
            return make()
        results: list[Any] = [make() if self.is_first else None]
        dist.broadcast_object_list(results)
        return results[0]

    def agree_on(self, work: Callable[[], T], key: Callable[[T], object]) -> T:
        """The result of ``work`` in this process.

        Raises UserError in every process if it did so in one, or if ``key`` of the results differs.
        """
        if not self.is_distributed:
            return work()
        result, message = None, None
        try:
            result = work()
        except UserError as error:
            message = str(error)
        reports = self.gather((message, None if message else key(result)))  # type: ignore[arg-type]
        for rank, (error_message, value) in enumerate(reports):
            if error_message is not None:
                raise UserError(f"process {rank} of {self.world_size}: {error_message}")
            if value != reports[0][1]:
                raise UserError(
                    f"process {rank} of {self.world_size}: sees other data than process 0 ({value})"
                )
        return result  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        """The ``value`` of each process, in the order of their ranks."""
        values: list[Any] = [value] * self.world_size
        if self.is_distributed:
            dist.all_gather_object(values, value)
        return values

    def wrap_ddp(self, module: nn.Module) -> nn.Module:
        """``module`` with its gradients averaged over all processes during the backward pass."""
        return nn.parallel.DistributedDataParallel(module) if self.is_distributed else module

    def copy_buffers(self, module: nn.Module) -> None:
        """Gives all processes the running statistics of the first one: each has seen its own shards only."""
        if self.is_distributed:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)


SINGLE_PROCESS = Processes()
# gloo has no exception of its own: its messages name its source files or a connection.
_BACKEND_MESSAGE = re.compile(r"gloo|nccl|connection (closed|reset|refused)|socket|timed out", re.IGNORECASE)


@contextmanager
def _report_lost_process() -> Iterator[None]:
    """Raises ProcessLost in place of what a backend raises when another process is gone."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not _BACKEND_MESSAGE.search(str(error)):
            raise
        raise ProcessLost(
            "another process of this run has ended or cannot be reached; the same command with the same"
            " hydra.run.dir goes on from the last checkpoint"
        ) from error


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes. Gradients are summed too: all results depend on all inputs."""

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
