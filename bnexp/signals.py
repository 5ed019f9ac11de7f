"""Ctrl-C and its kin: noted, so that the step at hand can end; raised where none is. Imports no torch."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bnexp.errors import Interrupted


class StopSignal:
    """Notes a signal so that the step at hand can end; a second one leaves at once.

    A signal that is ignored stays so: nohup's, and SIGTERM in submitit's jobs, where a pre-emption sends it
    beside SIGUSR2 and whoever left at it would not be queued again.
    """

    ends_process = True  # whether the process goes too, once the run is saved
    NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
    SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():  # Python delivers signals there alone
            handlers = {number: signal.getsignal(number) for number in self.SIGNALS}
            self._before = {number: old for number, old in handlers.items() if not _ignores(old)}
            for number in self._before:
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, signum: int, _frame: object) -> None:
        if self.received is not None:
            raise Interrupted(signum)
        self.received = signum

    def interrupted(self) -> Interrupted:
        """What to raise once a signal has come."""
        return Interrupted(self.received or signal.SIGINT)

    def hand_on(self) -> None:
        """Gives the signal, once the run is saved, to the launcher that waits for it, if one does.

        submitit queues the job again and ends the process; Ray ends it and starts the job elsewhere.
        """
        handler = self._before.get(self.received or 0)
        if callable(handler) and handler is not signal.default_int_handler:
            handler(self.received, None)


def _ignores(handler: Any) -> bool:
    return handler is signal.SIG_IGN or getattr(handler, "__name__", "") == "bypass"  # submitit's


@contextmanager
def interruptible() -> Iterator[None]:
    """Outside of a step too, in start-up and between two jobs, a signal ends the block with Interrupted."""

    def leave(signum: int, frame: object) -> None:
        if frame is not None:  # a launcher may hand on, as a call, what a run has obeyed already
            raise Interrupted(signum)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in StopSignal.SIGNALS}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]  # nohup's stay so
    for number in heard:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])
