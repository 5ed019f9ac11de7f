"""The launcher ``local``: processes on this machine, which a fork server starts with torch imported.

This is no process pool of a library: a signal must save the running jobs, in any process, also where the
main process was killed; a dead worker must cost its own unit alone; and each worker has a GPU of its own.
One connection to each worker does all three: it brings units, it brings the word to stop, and its end means
that the other side is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from bnexp.errors import one_line
from bnexp.runs.job import Job, MachineShare
from bnexp.signals import StopSignal, blocked_signals
from bnexp.sweeps.launchers.launcher import OUTPUT, OnEnd, SweepContext, Unit, UnitLauncher, whole_number

POLL_S = 0.2  # how often the main process looks for a signal


class LocalProcesses(UnitLauncher):
    """``jobs`` processes; None: as many as the machine has room for. One job at a time needs no process.

    A job with a user's own code has a process to itself: a class attribute, a cache, torch's switches or
    os._exit of one seed can then have no effect on the next.
    """

    name = "local"

    def __init__(self, jobs: Any, fuse: Any) -> None:
        self.jobs = whole_number("hydra.launcher.jobs", jobs)
        self.fuse = whole_number("hydra.launcher.fuse", fuse)
        self._idle: list[_Worker] = []
        self._server: threading.Thread | None = None
        has_fork_server = "forkserver" in multiprocessing.get_all_start_methods()
        self._processes: Any = multiprocessing.get_context("forkserver" if has_fork_server else "spawn")

    def start(self, context: SweepContext) -> None:
        super().start(context)
        if (self.jobs or cores()) > 1:
            self._start_server()

    def _start_server(self) -> threading.Thread:
        """Begins to start the fork server, which imports torch."""
        if self._server is None:
            self._processes.set_forkserver_preload(["bnexp.sweeps.launchers.local_worker"])
            self._server = threading.Thread(target=self._start_first_process)
            self._server.start()
        return self._server

    def _start_first_process(self) -> None:
        """Starts a process that ends at once: the fork server starts with it."""
        resource_tracker.ensure_running()  # first, because it unblocks the signals
        with blocked_signals(), suppress(OSError, EOFError):  # the first worker reports a failure
            process = self._processes.Process(target=int)
            process.start()
            process.join()

    def jobs_at_once(self, jobs: Sequence[Job]) -> int:
        """``jobs``, or one for each GPU, or as many as the cores allow at the threads that a job takes."""
        if self.jobs is not None:
            return self.jobs
        devices = {job.values["device"]["name"] for job in jobs}
        if gpus := _gpus(devices):
            return gpus
        threads = max([job.values["device"]["threads"] or 1 for job in jobs], default=1)
        return max(1, cores() // threads)

    def run(self, units: Sequence[Unit], on_end: OnEnd) -> list[str]:
        count = min(len(units), self.jobs_at_once([job for unit in units for job in unit.jobs]))
        if count == 1 and not any(unit.has_own_code for unit in units):
            self._run_here(units, on_end)
            return []
        return self._run_in_processes(units, on_end, count)

    def _run_here(self, units: Sequence[Unit], on_end: OnEnd) -> None:
        from bnexp.sweeps.launchers.worker import train_unit

        stop = StopSignal()
        for unit in units:
            with stop:
                goes_on = on_end(train_unit(unit, MachineShare(has_console=False), stop))
            if stop.received is not None:
                raise stop.interrupted()
            if not goes_on:
                return

    def _run_in_processes(self, units: Sequence[Unit], on_end: OnEnd, count: int) -> list[str]:
        self._start_server().join()
        waiting = deque(units)
        busy: dict[Any, _Worker] = {}
        messages: list[str] = []
        with StopSignal() as stop:
            try:
                while waiting or busy:
                    while waiting and len(busy) < count and stop.received is None:
                        worker = self._idle.pop() if self._idle else self._new_worker(busy.values(), count)
                        worker.begin(waiting.popleft())
                        busy[worker.connection] = worker
                    if stop.received is not None:
                        waiting.clear()
                        for worker in busy.values():
                            worker.tell_to_stop(stop.received)
                    for connection in wait(list(busy), timeout=POLL_S):
                        worker = busy.pop(connection)
                        ends = worker.receive()
                        if ends is None:
                            messages.append(worker.last_words())
                            continue
                        if worker.is_used_up:
                            worker.end()
                        else:
                            self._idle.append(worker)
                        if not on_end(ends):
                            waiting.clear()
            finally:
                self._idle += busy.values()
        if stop.received is not None:
            raise stop.interrupted()
        return messages

    def _new_worker(self, busy: Iterable[_Worker], count: int) -> _Worker:
        numbers = {worker.number for worker in busy}
        number = min(set(range(count)) - numbers)
        return _Worker(self._processes, number, count, self.context)

    def close(self) -> None:
        if self._server is not None:
            self._server.join()
        for worker in self._idle:
            worker.end()
        self._idle.clear()
        path = Path(self.context.folder) / OUTPUT
        with suppress(OSError):  # no worker was started
            if path.stat().st_size == 0:
                path.unlink()


class _Worker:
    """A process and the connection to it."""

    def __init__(self, processes: Any, number: int, jobs_at_once: int, context: SweepContext) -> None:
        from bnexp.sweeps.launchers import local_worker

        self.number = number
        self.unit: Unit | None = None
        self.is_told = False
        self.connection, other_end = processes.Pipe()
        share = MachineShare(jobs_at_once, number, has_console=False)
        self.process = processes.Process(target=local_worker.work, args=(other_end, share, context))
        with blocked_signals():
            self.process.start()
        other_end.close()  # the worker has it: its death closes the connection

    def begin(self, unit: Unit) -> None:
        self.unit = unit
        with suppress(OSError):  # it has died; ``receive`` says so
            self.connection.send(unit)

    @property
    def is_used_up(self) -> bool:
        """Whether its process has run a user's own code."""
        return self.unit is not None and self.unit.has_own_code

    def receive(self) -> Any:
        """The ends of its jobs, or None if the process has died."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return None

    def last_words(self) -> str:
        code = self.process.exitcode or 0
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return one_line(f"a worker was lost ({cause}): {self.unit}")

    def tell_to_stop(self, signum: int) -> None:
        if not self.is_told:
            self.is_told = True
            with suppress(OSError):
                self.connection.send(signum)

    def end(self) -> None:
        """Ends the process: an idle one by closing its connection, one at work, after a second signal, by
        force."""
        self.connection.close()
        self.process.join(timeout=0.1 if self.is_told else 5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus(devices: set[str]) -> int:
    """The number of GPUs that jobs with these values of ``device`` use; 0 where they run on the CPU."""
    if devices == {"cpu"}:
        return 0
    import torch

    if "mps" in devices or ("auto" in devices and torch.backends.mps.is_available()):
        return 1
    return torch.cuda.device_count()
