"""Stop signals: Ctrl-C (SIGINT), SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2. Imports no torch.

During training a signal is recorded, so that the current step can end and the run can be saved
(``StopSignal``). At all other times a signal raises Interrupted at once (``interruptible``).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bnexp.errors import Interrupted

HAS_SIGNAL_MASKS = hasattr(signal, "pthread_sigmask")  # not on Windows, which has no signal but Ctrl-C


class StopSignal:
    """Records the first signal so that the current step can end; a second one but SIGHUP raises Interrupted.

    An ignored signal stays ignored. nohup ignores signals. submitit ignores SIGTERM in its jobs: SLURM sends
    a pre-empted job SIGTERM together with SIGUSR2, and a job that ended at SIGTERM would not be queued again.
    """

    NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous_handlers: dict[int, Any] = {}
        self._own_handlers: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        handlers = installed_handlers()
        self._previous_handlers = {
            number: handler for number, handler in handlers.items() if not _ignores(handler)
        }
        for number in self._previous_handlers:
            self._install(number, self._record)
        return self

    def _install(self, number: int, handler: Any) -> None:
        signal.signal(number, handler)
        self._own_handlers[number] = handler

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def take_back(self) -> list[str]:
        """Installs the handlers again that the user's own code has replaced; the names of their signals.

        The run could not be stopped and saved otherwise.
        """
        current = installed_handlers()
        replaced = [n for n, handler in self._own_handlers.items() if current.get(n, handler) != handler]
        for number in replaced:
            signal.signal(number, self._own_handlers[number])
        return [signal.Signals(number).name for number in replaced]

    def _record(self, signum: int, _frame: object) -> None:
        if self.received is None:
            self.received = signum
        elif signal.Signals(signum).name != "SIGHUP":  # shell and system send two when a terminal closes
            raise Interrupted(signum)

    def interrupted(self) -> Interrupted:
        """The exception to raise once a signal has been received."""
        return Interrupted(self.received or signal.SIGINT)

    def forward_to_launcher(self) -> None:
        """Calls the handler that the launcher had installed for the received signal, if it had one.

        The run must have been saved. submitit's handler queues the job again and ends the process. Ray's
        ends the process, and Ray starts the job in another one.
        """
        handler = self._previous_handlers.get(self.received or 0)
        if callable(handler) and handler is not signal.default_int_handler:
            handler(self.received, None)


def installed_handlers() -> dict[int, Any]:
    """The handler of each stop signal; none outside the main thread, where Python delivers no signal."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.getsignal(number) for number in StopSignal.SIGNALS}


def _ignores(handler: Any) -> bool:
    # submitit installs a function named "bypass", which does nothing, for a signal that it ignores.
    return handler is signal.SIG_IGN or getattr(handler, "__name__", "") == "bypass"


@contextmanager
def interruptible() -> Iterator[None]:
    """A signal ends the block with Interrupted, unless a StopSignal inside records it.

    It serves the time outside of training: the start-up and the time between two jobs.
    """

    def interrupt(signum: int, frame: object) -> None:
        # forward_to_launcher calls a handler without a frame: the run has already obeyed that signal.
        if frame is not None:
            raise Interrupted(signum)

    handlers = {
        number: handler for number, handler in installed_handlers().items() if handler is not signal.SIG_IGN
    }  # nohup's signals stay ignored
    for number in handlers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def blocked_signals() -> Iterator[None]:
    """No signal reaches this thread, nor a process that is started inside the block, until it unblocks them.

    A terminal's Ctrl-C then cannot end a worker during its imports.
    """
    if not HAS_SIGNAL_MASKS:
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, StopSignal.SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def unblock_signals() -> None:
    """Signals reach this process again, and first those that arrived in between."""
    if HAS_SIGNAL_MASKS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, StopSignal.SIGNALS)
