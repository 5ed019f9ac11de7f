"""What a worker of SLURM or Ray does with a unit. A file or a signal stops it: no connection leads to it."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from bnexp.runs.job import MachineShare
from bnexp.signals import StopSignal, unblock_signals
from bnexp.sweeps.launchers.launcher import JobEnd, SweepContext, Unit

POLL_S = 0.3  # how often a worker looks for the stop file
KILL_PATIENCE_S = 600  # how long a job that SLURM has told to end (SIGTERM) waits for its end


class FileStop(StopSignal):
    """A stop signal that a file gives, too. Further signals do nothing: SLURM sends several.

    It also records the SIGTERM that submitit ignores.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self.was_terminated = False  # by the SIGTERM that submitit ignores
        self._ended = threading.Event()
        self._look()

    def __enter__(self) -> FileStop:
        super().__enter__()
        handler = signal.getsignal(signal.SIGTERM)
        if self._previous_handlers and signal.SIGTERM not in self._previous_handlers and callable(handler):
            self._previous_handlers[signal.SIGTERM] = handler
            self._install(signal.SIGTERM, self._terminate)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        super().__exit__(*exception)

    def _record(self, signum: int, _frame: object) -> None:
        if self.received is None or self.was_terminated:
            self.was_terminated = False
            self.received = signum

    def _terminate(self, signum: int, _frame: object) -> None:
        if self.received is None:
            self.was_terminated = True
            self.received = signum

    def _watch(self) -> None:
        while not self._ended.wait(POLL_S):
            self._look()

    def _look(self) -> None:
        if self.received is None and self.file.exists():
            self.received = signal.SIGINT

    def wait_for_end(self) -> None:
        """After submitit's SIGTERM: returns at a later signal, at the stop file, and when it was in vain."""
        deadline = time.monotonic() + KILL_PATIENCE_S
        while self.was_terminated and not self.file.exists() and time.monotonic() < deadline:
            time.sleep(POLL_S)


def train_remotely(unit: Unit, share: MachineShare, context: SweepContext) -> list[JobEnd]:
    """Trains a unit in the current folder and with the variables of the command that started the sweep.

    After a signal of the cluster the running job is saved, and the cluster's own handler is called: it queues
    the unit again. SIGTERM in a job of SLURM means that it is pre-empted or cancelled and killed a little
    later, and SLURM knows whether to queue it again. So the job is saved and waits; it goes on if nothing
    happens.
    """
    os.environ.update(context.environment)
    if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):  # not every cluster binds a job to its cores
        os.environ.setdefault("OMP_NUM_THREADS", cpus)
    os.chdir(context.cwd)
    while True:
        with FileStop(context.stop_file) as stop:
            unblock_signals()  # a local job of submitit inherits blocked ones
            from bnexp.sweeps.launchers.worker import train_unit  # imports torch, which reads the variables

            ends = train_unit(unit, share, stop)
            if not any(end.code >= 128 for end in ends):
                return ends
            stop.wait_for_end()
            if context.stop_file.exists():
                return ends
            if not stop.was_terminated:
                stop.forward_to_launcher()
                return ends
