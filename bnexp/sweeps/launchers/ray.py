"""The launcher ``ray``: each unit is a task of a Ray cluster."""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Sequence
from typing import Any

from bnexp.errors import UserError, one_line
from bnexp.runs.job import Job, MachineShare
from bnexp.signals import StopSignal
from bnexp.sweeps.launchers.launcher import (
    STOP_PATIENCE_S,
    OnEnd,
    SweepContext,
    Unit,
    UnitLauncher,
    missing_extra,
    whole_number,
)

POLL_S = 0.3
CONNECT_S = 10.0


def _check_reachable(address: str) -> None:
    """Raises UserError where nobody listens at host:port: Ray itself would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise UserError(one_line(f"hydra.launcher.address={address}: no cluster there ({error})")) from None


class RayTasks(UnitLauncher):
    """Tasks of the cluster at ``address``; None starts a cluster on this machine and stops it at the end.

    ``num_cpus`` and ``num_gpus`` are those of a task. A task whose worker or node dies is started again up to
    ``max_retries`` times, and goes on from its checkpoints. ``init`` has further arguments of ``ray.init``.
    """

    name = "ray"

    def __init__(
        self,
        fuse: Any,
        address: str | None = None,
        num_cpus: float = 1,
        num_gpus: float = 0,
        max_retries: int = 3,
        init: Any = None,
    ) -> None:
        try:
            import ray
        except ImportError:
            raise missing_extra("ray") from None
        self._ray, self.fuse = ray, whole_number("hydra.launcher.fuse", fuse)
        self.address, self.num_cpus, self.num_gpus = address, num_cpus, num_gpus
        self.max_retries = whole_number("hydra.launcher.max_retries", max_retries, least=0)
        self._init = dict(init or {})

    def start(self, context: SweepContext) -> None:
        super().start(context)
        if self.address and ":" in self.address:
            _check_reachable(self.address)
        handler = signal.getsignal(signal.SIGTERM)
        arguments: dict[str, Any] = {} if self.address else {"include_dashboard": False}
        try:
            self._ray.init(
                address=self.address, log_to_driver=False, logging_level=logging.ERROR,
                runtime_env={"env_vars": context.environment}, **arguments | self._init,
            )  # fmt: skip
        except (ConnectionError, ValueError, TypeError) as error:
            raise UserError(one_line(f"hydra.launcher.address={self.address}: {error}")[:300]) from None
        finally:
            signal.signal(signal.SIGTERM, handler)  # Ray has installed its own

    def jobs_at_once(self, jobs: Sequence[Job]) -> int:
        return max(1, int(self._ray.cluster_resources().get("CPU", 1) // (self.num_cpus or 1)))

    def run(self, units: Sequence[Unit], on_end: OnEnd) -> list[str]:
        ray = self._ray
        from bnexp.sweeps.launchers.remote_worker import train_remotely

        task = ray.remote(
            num_cpus=self.num_cpus, num_gpus=self.num_gpus, max_retries=self.max_retries,
            max_calls=int(any(unit.has_own_code for unit in units)),  # of one process; 0: any number
        )(train_remotely)  # fmt: skip
        running = {}
        for number, unit in enumerate(units):
            gpu = None if self.num_gpus else number  # without num_gpus every task sees all GPUs
            running[task.remote(unit, MachineShare(1, gpu, has_console=False), self.context)] = unit
        messages: list[str] = []
        goes_on = True
        deadline = float("inf")
        with StopSignal() as stop:
            while running and time.monotonic() < deadline:
                for reference in ray.wait(list(running), timeout=POLL_S)[0]:
                    unit = running.pop(reference)
                    try:
                        goes_on = on_end(ray.get(reference)) and goes_on
                    except ray.exceptions.RayError as error:
                        messages.append(one_line(f"a job was lost: {unit}: {error}")[:300])
                if (stop.received is not None or not goes_on) and deadline == float("inf"):
                    # Not ray.cancel: if the task ends by itself at that moment, Ray 2.60 crashes.
                    self.context.stop_file.touch()
                    deadline = time.monotonic() + STOP_PATIENCE_S
        if stop.received is not None:
            raise stop.interrupted()
        return messages

    def close(self) -> None:
        self._ray.shutdown()
