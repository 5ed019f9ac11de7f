"""The one error type for a user's mistakes, and the nearest match to a mistyped word.

Every message is one line: the full key, the value, what is allowed, the nearest match. The commands
print it and exit with 2; used as a library, bnexp raises it as a ``ValueError``.
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake the user can mend; ``str(error)`` is the one line to show."""


def one_line(text: object) -> str:
    """Folds a message of any shape into one line."""
    return " ".join(str(text).split())


SYNONYMS = {"gpu": "cuda", "bn": "batch", "batchnorm": "batch"}  # what is meant by words of other letters


def nearest_match(word: str, choices: Iterable[str]) -> str | None:
    """The choice most like ``word``, or None where nothing is close."""
    names = list(choices)
    if (same := SYNONYMS.get(word.lower())) in names:
        return same
    folded = {name.lower(): name for name in names}
    match = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.55)
    return folded[match[0]] if match else None


def bad_value(key: str, value: object, allowed: str) -> UserError:
    """``key=value: allowed``, for a value of the wrong type or out of range."""
    shown: object = "null" if value is None else value
    if isinstance(value, tuple):
        shown = list(value)  # as it was written on the command line
    elif value == "":
        shown = "''"
    return UserError(one_line(f"{key}={shown}: {allowed}"))


def bad_choice(key: str, value: object, choices: Iterable[str]) -> UserError:
    """For a word that must be one of a few, with the nearest of them."""
    names = list(choices)
    near = nearest_match(str(value), names)
    hint = f"; did you mean {near}?" if near else ""
    return bad_value(key, value, f"must be one of {', '.join(names)}{hint}")


def unknown_key(key: str, choices: Iterable[str]) -> UserError:
    """For a key that nothing takes, with its nearest neighbour under the same parent."""
    names = sorted(choices)
    parent, _, leaf = key.rpartition(".")
    near = nearest_match(leaf, names)
    dotted = f"{parent}." if parent else ""
    hint = f"did you mean {dotted}{near}? " if near else ""
    where = f"{parent} takes" if parent else "keys are"
    return UserError(one_line(f"{key}: unknown key; {hint}{where}: {', '.join(names) or 'no keys'}"))


class WriteError(OSError):
    """What a run must keep could not be written: the disk is full, the folder is gone."""

    def __str__(self) -> str:
        return f"{self.filename}: cannot be written ({self.strerror})"


class Diverged(RuntimeError):
    """The loss is no longer a finite number; the message names epoch and step."""


class ProcessLost(RuntimeError):
    """Another process of this run has ended; the message says how to go on."""


class OutOfMemory(RuntimeError):
    """The device has too little memory; the message says which keys take less."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM, SIGUSR1 or SIGUSR2, after the step at hand was finished."""

    latest: int = signal.SIGINT  # for those who raise their own KeyboardInterrupt where a handler raised this

    def __init__(self, signum: int = signal.SIGINT) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum
        Interrupted.latest = signum
