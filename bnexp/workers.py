"""Ctrl-C and kill in a sweep whose jobs run in joblib's worker processes.

Only the process that was started listens. A worker has its signals blocked from its first instant, which a
process inherits, so that a terminal's Ctrl-C cannot hit it between two lines of an import; within a job it
takes what the parent hands on, saves, and begins no other.
"""

from __future__ import annotations

import _thread
import multiprocessing
import os
import signal
import threading
import time

from bnexp.runs import Interrupted, StopSignal

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


_stop: WorkerStop | None = None


def stop_signal() -> StopSignal:
    """What a job listens with: its own in a process of its own, the process's in a worker."""
    global _stop
    if not is_worker():
        return StopSignal()
    _stop = _stop or WorkerStop()
    return _stop


def is_worker() -> bool:
    return multiprocessing.current_process().name.startswith("LokyProcess")
