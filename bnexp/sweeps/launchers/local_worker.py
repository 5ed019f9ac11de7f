"""The process of a worker of the launcher ``local``. The fork server imports this file, and torch with it."""

from __future__ import annotations

import faulthandler
import os
import queue
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from bnexp.runs import tensorboard_logger  # noqa: F401  # imported once, by the fork server
from bnexp.runs.job import MachineShare
from bnexp.signals import StopSignal, unblock_signals
from bnexp.sweeps.launchers.launcher import OUTPUT, SweepContext
from bnexp.sweeps.launchers.worker import train_unit


class WorkerStop(StopSignal):
    """A signal, or a message of the main process, stops the running job and all later ones.

    Further signals do nothing: a terminal's Ctrl-C reaches a worker too.
    """

    def _record(self, signum: int, _frame: object) -> None:
        self.received = self.received or signum

    def stop(self, signum: int) -> None:
        self._record(signum, None)


def work(connection: Connection, share: MachineShare, context: SweepContext) -> None:
    """Trains the units that come through the connection, until a number comes, which is a signal's.

    The end of the connection means that the main process is gone: the running job is saved.
    """
    os.environ.update(context.environment)
    os.chdir(context.cwd)
    _write_output_to(Path(context.folder) / OUTPUT)
    units: queue.SimpleQueue = queue.SimpleQueue()
    stop = WorkerStop()
    with stop:
        unblock_signals()

        def listen() -> None:
            try:
                while not isinstance(message := connection.recv(), int):
                    units.put(message)
            except (EOFError, OSError):
                message = signal.SIGTERM
            stop.stop(message)
            units.put(None)

        threading.Thread(target=listen, daemon=True).start()
        while (unit := units.get()) is not None:
            ends = train_unit(unit, share, stop)
            try:
                connection.send(ends)
            except OSError:  # the main process is gone
                break


def _write_output_to(path: Path) -> None:
    """Standard output and error go to a file: the terminal shows the sweep's view."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.close(descriptor)
    faulthandler.enable()
