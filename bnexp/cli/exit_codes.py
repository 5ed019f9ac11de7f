"""Exit codes: every error of a command becomes one line on standard error and a number."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from typing import Any

from bnexp.cli.streams import output_error, protect_streams
from bnexp.compute import torchrun
from bnexp.errors import (
    Diverged,
    ExitCalled,
    Interrupted,
    OutOfMemory,
    ProcessLost,
    UserError,
    WriteError,
    one_line,
)

log = logging.getLogger("bnexp")


def exit_code(command: Callable[[], Any]) -> int:
    """Runs ``command`` and returns its exit code. An exception becomes one line on standard error."""
    protect_streams()
    try:
        command()
    except SystemExit as request:  # an inner command has already printed its error
        if request.code is None or isinstance(request.code, int):
            return request.code or 0
        print(f"bnexp: {one_line(request.code)}", file=sys.stderr)  # sys.exit("text") of somebody else's code
        return 1
    except UserError as error:
        if not torchrun.is_secondary():
            print(f"bnexp: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        # Ray, for one, raises a plain KeyboardInterrupt where our handler has raised Interrupted.
        interrupt = error if isinstance(error, Interrupted) else Interrupted(Interrupted.latest)
        print(f"bnexp: interrupted ({interrupt})", file=sys.stderr)
        return interrupt.exit_code
    except Exception as error:
        if (message := _expected_failure(error)) is not None:
            print(f"bnexp: {message}", file=sys.stderr)
        else:
            print(one_line(f"bnexp: crashed: {type(error).__name__}: {error}"), file=sys.stderr)
            _log_traceback(error)
        return 1
    return 0


def printed_exit_code(command: Callable[[], Any]) -> int:
    """``exit_code`` of a command whose result is what it prints: not 0 if that could not be written.

    A run and a sweep have their result in files, and do not need this.
    """
    if code := exit_code(command):
        return code
    error = output_error()
    if isinstance(error, BrokenPipeError):  # the reader has ended, as "head" does in "| head"
        return 128 + 13  # SIGPIPE
    return 0 if error is None else 1


def _expected_failure(error: Exception) -> str | None:
    """The message for a failure whose cause is known. None is a crash: its traceback is needed."""
    match error:
        case Diverged():
            return f"diverged: {error}"
        case OutOfMemory():
            return f"out of memory: {error}"
        case ProcessLost() | ExitCalled():
            return str(error)
        case WriteError():
            return f"{error}; what was saved before is complete, and bnexp-resume continues from it"
        case BrokenExecutor():  # raised by joblib, which then runs no further job
            return one_line(f"a job's process died and ended the sweep: {error}")
    return None


def _log_traceback(error: Exception) -> None:
    """Writes the traceback into the run's log file, or to standard error where there is no log file."""
    handlers = [h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
    for handler in handlers:
        record = log.makeRecord(
            log.name, logging.ERROR, __file__, 0, "crashed", (), (type(error), error, error.__traceback__)
        )
        handler.emit(record)
        print(f"bnexp: the traceback is in {os.path.relpath(handler.baseFilename)}", file=sys.stderr)
    if not handlers:
        sys.excepthook(type(error), error, error.__traceback__)
