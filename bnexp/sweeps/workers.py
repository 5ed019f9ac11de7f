"""Ctrl-C and kill in a sweep whose jobs run in the worker processes of joblib or Ray.

Only the main process receives signals. joblib's workers start with their signals blocked, because a process
inherits its parent's mask: otherwise a terminal's Ctrl-C could interrupt a worker during an import. During a
job a worker accepts the signal that the main process forwards, saves the run, and starts no other job.
Ray's workers may be on other machines: they look for a file in the sweep's folder.
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

HAS_SIGNAL_MASKS = hasattr(signal, "pthread_sigmask")  # not on Windows, which has no signal but Ctrl-C


class SignalForwarder:
    """Forwards the first signal to the workers; a second signal ends the main process at once."""

    received: int | None = None

    def start(self) -> None:
        """Blocks the signals of this process and of those that it starts; a thread waits for them."""
        if HAS_SIGNAL_MASKS:
            from multiprocessing import resource_tracker

            from joblib.externals.loky.backend import resource_tracker as joblib_tracker

            for tracker in (resource_tracker, joblib_tracker):
                tracker.ensure_running()  # first, because it unblocks the signals
            signal.pthread_sigmask(signal.SIG_BLOCK, StopSignal.SIGNALS)
            threading.Thread(target=self._listen, daemon=True).start()

    def end(self) -> None:
        """To call after the last job; raises Interrupted if a signal stopped the jobs."""
        if HAS_SIGNAL_MASKS:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, StopSignal.SIGNALS)
        if self.received is not None:
            raise Interrupted(self.received)

    def _listen(self) -> None:
        while True:
            signum = signal.sigwait(StopSignal.SIGNALS)
            if self.received is not None:
                _thread.interrupt_main(signal.Signals(signum))
                return
            self.received = signum
            for process in _processes():
                os.kill(process, signum)


def _processes() -> list[int]:
    from joblib.externals.loky import reusable_executor

    executor = reusable_executor._executor
    return list(executor._processes or ()) if executor is not None else []


class WorkerStop(StopSignal):
    """Stop signal in a joblib worker: a signal applies to all later jobs; further signals do nothing."""

    ends_process = False

    def __init__(self) -> None:
        super().__init__()
        self.is_running = False
        threading.Thread(target=self._watch_parent, daemon=True).start()

    def __enter__(self) -> WorkerStop:
        if not self._previous_handlers:
            super().__enter__()
            if HAS_SIGNAL_MASKS:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, self.SIGNALS)
        self.is_running = True
        return self

    def __exit__(self, *_: object) -> None:
        self.is_running = False

    def _record(self, signum: int, _frame: object) -> None:
        self.received = self.received or signum

    def _watch_parent(self) -> None:
        """Ends a worker whose parent was killed; a running job is saved first."""
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        while self.is_running:
            time.sleep(0.1)
        os._exit(128 + signal.SIGTERM)


class FileStop(StopSignal):
    """Stop signal in a Ray worker: a file stops the sweep; a signal comes from Ray and ends the worker."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file, self.is_running = file, False
        self._check_file()

    def __enter__(self) -> FileStop:
        super().__enter__()
        self.is_running = True
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.is_running = False
        super().__exit__(*exception)

    def _watch(self) -> None:
        while self.is_running and not self._check_file():
            time.sleep(0.3)

    def _check_file(self) -> bool:
        if self.received is None and self.file.exists():
            self.received, self.ends_process = signal.SIGINT, False
        return self.received is not None


_stop: WorkerStop | None = None


def stop_signal(file: Path | None) -> StopSignal:
    """The stop signal for a run in this process. A Ray worker gives the ``file`` that stops its sweep."""
    global _stop
    if file is not None:
        return FileStop(file)
    if not multiprocessing.current_process().name.startswith("LokyProcess"):
        return StopSignal()
    _stop = _stop or WorkerStop()
    return _stop
