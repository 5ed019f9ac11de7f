"""What a worker of SLURM or Ray does with a unit. A file or a signal stops it: no connection leads to it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from bnexp.runs.job import MachineShare
from bnexp.signals import StopSignal
from bnexp.sweeps.launcher import JobEnd, SweepContext, Unit
from bnexp.sweeps.worker import train_unit

POLL_S = 0.3  # how often a worker looks for the stop file


class FileStop(StopSignal):
    """A stop signal that a file gives, too."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self._ended = threading.Event()
        self._look()

    def __enter__(self) -> FileStop:
        super().__enter__()
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        super().__exit__(*exception)

    def _watch(self) -> None:
        while not self._ended.wait(POLL_S):
            self._look()

    def _look(self) -> None:
        if self.received is None and self.file.exists():
            self.received = signal.SIGINT


def train_remotely(unit: Unit, share: MachineShare, context: SweepContext) -> list[JobEnd]:
    """Trains a unit in the current folder and with the variables of the command that started the sweep.

    After a signal of the cluster the running job is saved, and the cluster's own handler is called: it queues
    the unit again.
    """
    os.environ.update(context.environment)
    os.chdir(context.cwd)
    with FileStop(context.stop_file) as stop:
        ends = train_unit(unit, share, stop)
    if not context.stop_file.exists():
        stop.forward_to_launcher()
    return ends
