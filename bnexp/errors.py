"""Every exception of bnexp, and the one-line messages for a user's mistakes.

``UserError`` is for a mistake in what the user wrote. Its message is one line: the full key, the value,
what is allowed, the nearest match. The commands print the line and exit with 2.
All other exceptions report what went wrong while a run was at work.
"""

from __future__ import annotations

import difflib
import os
import re
import signal
import sysconfig
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

MAX_REASON = 300  # characters of an error's text in ``reason_of``


class UserError(ValueError):
    """A mistake that the user can correct; ``str(error)`` is the one line to show."""


class Diverged(RuntimeError):
    """The loss is no longer a finite number; the message names the epoch and the step."""


class OutOfMemory(RuntimeError):
    """The device has too little memory; the message names the keys that reduce the use of memory."""


class ProcessLost(RuntimeError):
    """Another process of a distributed run has ended; the message says how to resume the run."""


class ExitCalled(RuntimeError):
    """The user's own code called sys.exit or os._exit, or raised what is no Exception."""


class ProcessExit(SystemExit):
    """What ``os._exit`` raises inside ``forbid_exit``."""


class NotReproducible(RuntimeError):
    """What a run has saved does not give its results again; the message names the part."""


class WriteError(OSError):
    """A file of a run could not be written, for example because the disk is full."""

    def __str__(self) -> str:
        return f"{self.filename}: cannot be written ({self.strerror})"


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run: SIGINT (Ctrl-C), SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2."""

    # The signal of the newest instance. Ray replaces an exception that a signal handler raises by a
    # KeyboardInterrupt of its own; the exit code then follows from this signal.
    latest: int = signal.SIGINT

    def __init__(self, signum: int = signal.SIGINT) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum
        Interrupted.latest = signum


# Whose code runs in each thread: the process of the block and its caller, the innermost block last.
_blocks: dict[int, list[tuple[int, str]]] = {}
_end_process = os._exit  # the function of Python, also while os._exit is ``_refuse_exit``


@contextmanager
def forbid_exit(caller: str) -> Iterator[None]:
    """Raises ExitCalled in place of a SystemExit and of os._exit, which would end the process in silence.

    The same for every other BaseException that is no Exception, as GeneratorExit, asyncio.CancelledError or a
    class of the user's: nothing would catch it, and the run would have no end. A KeyboardInterrupt is a
    signal's. ``caller`` says whose code the block runs. A process that this code has forked ends with the
    block: it would go on with the run beside the original one.
    """
    process, thread = os.getpid(), threading.get_ident()
    os._exit = _refuse_exit
    _blocks.setdefault(thread, []).append((process, caller))
    try:
        yield
    except BaseException as error:
        end_forked_process(process, error)
        if isinstance(error, Exception | KeyboardInterrupt):
            raise
        if isinstance(error, SystemExit):
            function = "os._exit" if isinstance(error, ProcessExit) else "sys.exit"
            raise ExitCalled(one_line(f"{caller} called {function} ({error.code})")) from error
        raise ExitCalled(f"{caller} raised {describe(error)}") from error
    finally:
        _blocks[thread].pop()
        if not _blocks[thread]:
            del _blocks[thread]
    end_forked_process(process)


def _refuse_exit(status: int) -> NoReturn:
    """``os._exit`` from the first ``forbid_exit`` on: it raises ProcessExit where such a block runs.

    Outside of blocks, and in a process that was forked in one, it is Python's own. Another thread beside a
    block may be a watchdog, and ends the process: one line says so, and the exit code is not 0.
    """
    process = os.getpid()
    callers = {
        thread: [caller for owner, caller in blocks if owner == process]
        for thread, blocks in list(_blocks.items())
    }
    if callers.pop(threading.get_ident(), []):
        raise ProcessExit(status)
    if beside := [names[-1] for names in callers.values() if names]:
        line = f"bnexp: {beside[0]}: a thread beside it called os._exit ({status})\n"
        with suppress(OSError):
            os.write(2, line.encode("utf-8", "backslashreplace"))
        status = status or 1
    _end_process(status)


def end_forked_process(original: int, error: BaseException | None = None) -> None:
    """Ends this process if it is not ``original``; an ``error`` that ended its work is told in one line."""
    if os.getpid() == original:
        return
    if error is not None and not isinstance(error, SystemExit):
        with suppress(OSError):
            os.write(2, f"bnexp: a process that the network has forked ended: {describe(error)}\n".encode())
    _end_process(0 if error is None else 1)


def one_line(text: object) -> str:
    """Replaces each run of white space, line breaks included, by one space, and removes colours.

    ``text`` may be an exception. The ``__str__`` of a user's own can fail.
    """
    try:
        return " ".join(re.sub(r"\x1b\[[\d;]*m", "", str(text)).split())
    except Exception:
        return "no text: its __str__ fails"


def describe(error: BaseException) -> str:
    """``ValueError: its text``, in one line."""
    return f"{type(error).__name__}: {one_line(error)}"


def place_of(error: BaseException) -> str:
    """``mynets.py, line 12``: where the user's own code stood when ``error`` was raised; or ""."""
    not_own = (sysconfig.get_path("stdlib"), os.path.dirname(__file__), "<")
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        path = frame.f_code.co_filename
        is_installed = {"site-packages", "dist-packages"}.intersection(Path(path).parts)
        if not is_installed and not path.startswith(not_own):
            return f"{os.path.basename(path)}, line {line}"
    return ""


def reason_of(error: BaseException) -> str:
    """``ValueError: its text; mynets.py, line 12``: an error of the user's own code, in one line."""
    return "; ".join(filter(None, (describe(error)[:MAX_REASON], place_of(error))))


def name_list(names: Sequence[str], limit: int = 8) -> str:
    """``a, b, c``; of more than ``limit`` names the first, and dots."""
    return ", ".join([*names[:limit], *["..."] * (len(names) > limit)])


SYNONYMS = {
    "gpu": "cuda",
    "bn": "batch",
    "batchnorm": "batch",
}  # too unlike their choice for a match by letters


def nearest_match(word: str, choices: Iterable[str]) -> str | None:
    """The choice most similar to ``word``, or None if none is similar."""
    names = list(choices)
    if (synonym := SYNONYMS.get(word.lower())) in names:
        return synonym
    names_by_lower_case = {name.lower(): name for name in names}
    matches = difflib.get_close_matches(word.lower(), names_by_lower_case, n=1, cutoff=0.55)
    return names_by_lower_case[matches[0]] if matches else None


def bad_value(key: str, value: object, allowed: str) -> UserError:
    """``key=value: allowed``, for a value of the wrong type or out of range."""
    text: object = value
    if value is None:
        text = "null"
    elif value == "":
        text = "''"
    elif isinstance(value, str) and _reads_as_number(value):
        text = repr(value)  # from quotes or from the environment: without quotes it would be allowed
    elif isinstance(value, tuple):
        text = list(value)  # the command line writes a list as [a, b]
    return UserError(one_line(f"{key}={text}: {allowed}"))


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def bad_choice(key: str, value: object, choices: Iterable[str]) -> UserError:
    """For a value that must be one of ``choices``; the message proposes the nearest one."""
    names = list(choices)
    nearest = nearest_match(str(value), names)
    hint = f"; did you mean {nearest}?" if nearest else ""
    allowed = f"must be one of {', '.join(names)}{hint}"
    if isinstance(value, str) and value:  # without the quotes that bad_value gives to the text of a number
        return UserError(one_line(f"{key}={value}: {allowed}"))
    return bad_value(key, value, allowed)


def unknown_key(key: str, siblings: Iterable[str], all_keys: Iterable[str] = ()) -> UserError:
    """For a key that does not exist: every message about a misspelt key is made here.

    ``siblings`` are the keys that its parent takes, without the parent; ``all_keys`` are the full names of
    the keys of every group. A key of another group with this last part is proposed as well.
    """
    names = sorted(siblings)
    parent, _, leaf = key.rpartition(".")
    prefix = f"{parent}." if parent else ""
    in_other_groups = [name for name in all_keys if name.endswith(f".{leaf}")]
    nearest = nearest_match(leaf, names)
    proposals = [*([f"{prefix}{nearest}"] if nearest else []), *in_other_groups]
    hint = f"did you mean {' or '.join(proposals)}?" if proposals else ""
    if in_other_groups:
        return UserError(f"{key}: unknown key; {hint}")
    subject = f"{parent} takes" if parent else "keys are"
    return UserError(one_line(f"{key}: unknown key; {hint} {subject}: {', '.join(names) or 'no keys'}"))
