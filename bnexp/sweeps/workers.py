"""Ctrl-C and kill in a sweep whose jobs run in the worker processes of joblib or Ray.

Only the process that was started listens. joblib's workers have their signals blocked from their first
instant, which a process inherits, so that a terminal's Ctrl-C cannot hit one between two lines of an import;
within a job they take what the parent hands on, save, and begin no other. Ray's may be on other machines:
they look for a file in the sweep's folder.
"""

from __future__ import annotations

import _thread
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

from bnexp.errors import Interrupted
from bnexp.signals import StopSignal

MASKS = hasattr(signal, "pthread_sigmask")  # not on Windows, where only Ctrl-C is a signal


class Listener:
    """Hears for the workers: the first signal goes on to them, a second leaves at once."""

    heard: int | None = None

    def start(self) -> None:
        """From now on this process and those it starts have their signals blocked; a thread takes them."""
        if MASKS:
            from multiprocessing import resource_tracker

            from joblib.externals.loky.backend import resource_tracker as joblibs

            for tracker in (resource_tracker, joblibs):
                tracker.ensure_running()  # which ends in unblocking what it finds blocked
            signal.pthread_sigmask(signal.SIG_BLOCK, StopSignal.SIGNALS)
            threading.Thread(target=self._listen, daemon=True).start()

    def end(self) -> None:
        """Once all jobs are back; raises Interrupted where a signal stopped them."""
        if MASKS:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, StopSignal.SIGNALS)
        if self.heard is not None:
            raise Interrupted(self.heard)

    def _listen(self) -> None:
        while True:
            signum = signal.sigwait(StopSignal.SIGNALS)
            if self.heard is not None:
                _thread.interrupt_main(signal.Signals(signum))
                return
            self.heard = signum
            for process in _processes():
                os.kill(process, signum)


def _processes() -> list[int]:
    from joblib.externals.loky import reusable_executor

    executor = reusable_executor._executor
    return list(executor._processes or ()) if executor is not None else []


class WorkerStop(StopSignal):
    """A worker's: what has been received stays so, for the jobs to come; a repetition changes nothing."""

    ends_process = False

    def __init__(self) -> None:
        super().__init__()
        self.at_work = False
        threading.Thread(target=self._watch_parent, daemon=True).start()

    def __enter__(self) -> WorkerStop:
        if not self._before:
            super().__enter__()
            if MASKS:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, self.SIGNALS)
        self.at_work = True
        return self

    def __exit__(self, *_: object) -> None:
        self.at_work = False

    def _note(self, signum: int, _frame: object) -> None:
        self.received = self.received or signum

    def _watch_parent(self) -> None:
        """Nobody waits for a worker whose parent was killed: it saves and goes too."""
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        while self.at_work:
            time.sleep(0.1)
        os._exit(128 + signal.SIGTERM)


class FileStop(StopSignal):
    """A Ray worker's: its sweep's end is a file, a signal is Ray's own and ends the worker."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file, self.at_work = file, False
        self._look()

    def __enter__(self) -> FileStop:
        super().__enter__()
        self.at_work = True
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *words: object) -> None:
        self.at_work = False
        super().__exit__(*words)

    def _watch(self) -> None:
        while self.at_work and not self._look():
            time.sleep(0.3)

    def _look(self) -> bool:
        if self.received is None and self.file.exists():
            self.received, self.ends_process = signal.SIGINT, False
        return self.received is not None


_stop: WorkerStop | None = None


def stop_signal(file: Path | None) -> StopSignal:
    """What a job listens with: the process's own, a worker's, or the ``file`` that ends its sweep."""
    global _stop
    if file is not None:
        return FileStop(file)
    if not multiprocessing.current_process().name.startswith("LokyProcess"):
        return StopSignal()
    _stop = _stop or WorkerStop()
    return _stop
