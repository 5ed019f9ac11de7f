"""Exit codes: every error of a command becomes one line on standard error and a number."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from bnexp.cli.streams import ClosedError, output_error, protect_streams
from bnexp.compute import torchrun
from bnexp.errors import (
    Diverged,
    ExitCalled,
    Interrupted,
    NotReproducible,
    OutOfMemory,
    ProcessLost,
    UserError,
    WriteError,
    describe,
    one_line,
)

log = logging.getLogger("bnexp")


class Failure(NamedTuple):
    """How a command failed: its exit code, and the lines to show."""

    code: int
    lines: list[str]


def exit_code(command: Callable[[], Any]) -> int:
    """Runs ``command`` and returns its exit code. An exception becomes one line on standard error."""
    protect_streams()
    code, lines = failure_of(command)
    for line in lines:
        _print_error(line)
    return code


def _print_error(line: str) -> None:
    """Prints to standard error, also where the user's own code has closed or removed ``sys.stderr``."""
    if sys.stderr is not None and not sys.stderr.closed:
        print(line, file=sys.stderr)
        return
    with suppress(OSError):
        os.write(2, f"{line}\n".encode("utf-8", "backslashreplace"))


def failure_of(command: Callable[[], Any]) -> Failure:
    """Runs ``command`` and returns its exit code, with the lines that say what went wrong; 0 and no line if
    nothing did."""
    folder = os.getcwd()
    try:
        command()
    except SystemExit as request:  # an inner command has already printed its error
        if request.code is None or isinstance(request.code, int):
            return Failure(request.code or 0, [])
        return Failure(1, [f"bnexp: {one_line(request.code)}"])  # sys.exit("text") of somebody else's code
    except UserError as error:
        return Failure(2, [] if torchrun.is_secondary() else [f"bnexp: {error}"])
    except KeyboardInterrupt as error:
        # Ray, for one, raises a plain KeyboardInterrupt where our handler has raised Interrupted.
        interrupt = error if isinstance(error, Interrupted) else Interrupted(Interrupted.latest)
        return Failure(interrupt.exit_code, [f"bnexp: interrupted ({interrupt})"])
    except Exception as error:
        if (message := _expected_failure(error)) is not None:
            return Failure(1, [f"bnexp: {message}"])
        line = f"bnexp: crashed: {describe(error)}"
        return Failure(1, [line, *_log_traceback(error, folder)])
    return Failure(0, [])


def printed_exit_code(command: Callable[[], Any]) -> int:
    """``exit_code`` of a command whose result is what it prints: not 0 if that could not be written.

    A run and a sweep have their result in files, and do not need this.
    """
    if code := exit_code(command):
        return code
    error = output_error()
    if isinstance(error, BrokenPipeError):  # the reader has ended, as "head" does in "| head"
        return 128 + 13  # SIGPIPE
    if isinstance(error, ClosedError):  # a full output has said so itself
        print(f"bnexp: standard output: cannot be written ({error.strerror})", file=sys.stderr)
    return 0 if error is None else 1


def _expected_failure(error: Exception) -> str | None:
    """The message for a failure whose cause is known. None is a crash: its traceback is needed."""
    match error:
        case Diverged():
            return f"diverged: {error}"
        case OutOfMemory():
            return f"out of memory: {error}"
        case ProcessLost() | ExitCalled() | NotReproducible():
            return str(error)
        case WriteError() if not os.path.isdir(os.path.dirname(error.filename)):
            return f"{error}; its folder was removed while the command was at work"
        case WriteError():
            resume = ", and bnexp-resume continues from it" if _is_in_run(Path(error.filename)) else ""
            return f"{error}; what was saved before is complete{resume}"
    return None


def _is_in_run(file: Path) -> bool:
    """Whether a file belongs to a run of training, which has checkpoints."""
    return file.parent.name == "checkpoints" or (file.parent / "checkpoints").is_dir()


def _log_traceback(error: Exception, folder: str) -> list[str]:
    """Writes the traceback into the run's log files; returns a line for each, which names the file.

    Where there is no log file it writes to standard error, and returns no line. ``folder`` is the current one
    of the command's start: the user's own code may have changed it.
    """
    handlers = [h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
    lines = []
    for handler in handlers:
        record = log.makeRecord(
            log.name, logging.ERROR, __file__, 0, "crashed", (), (type(error), error, error.__traceback__)
        )
        handler.emit(record)
        lines.append(f"bnexp: the traceback is in {os.path.relpath(handler.baseFilename, folder)}")
    if not handlers:
        sys.excepthook(type(error), error, error.__traceback__)
    return lines
