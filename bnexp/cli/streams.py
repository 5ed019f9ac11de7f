"""Standard output and standard error that cannot end a command.

A stream may be closed, full, ASCII only, or a pipe whose reader has ended. None of these may cost a result.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import select
import sys
from contextlib import suppress
from typing import Any, TextIO

from bnexp.errors import one_line

TITLES = {"stdout": "standard output", "stderr": "standard error"}


class ClosedError(OSError):
    """The command was started with a stream closed, as by ``>&-``."""

    def __init__(self) -> None:
        super().__init__(errno.EBADF, "it is closed")


class _TolerantOutput(io.RawIOBase):
    """Writes to ``raw``. After a write that fails it drops what follows; ``error`` is then the reason.

    ``is_closed``: the command was started without this stream, and ``raw`` is the null device.
    """

    def __init__(self, raw: Any, name: str, *, is_closed: bool = False) -> None:
        self._raw, self._name, self._is_closed = raw, name, is_closed
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def write(self, data: Any) -> int:
        if self._is_closed:  # no line: a run that nobody watches is no mistake
            self.error = ClosedError()
        if self.error is None:
            try:
                while (count := self._raw.write(data)) is None:  # a non-blocking pipe that is full
                    select.select([], [self._raw], [])
                return count
            except OSError as error:
                self.error = error
                if self._name == "stdout" and not isinstance(error, BrokenPipeError):
                    text = f"bnexp: {TITLES[self._name]}: cannot be written ({error.strerror})"
                    with suppress(OSError):  # not print: the live view sends sys.stderr through this stream
                        os.write(2, f"{one_line(text)}\n".encode())
        return len(data)


class _Stream(io.TextIOWrapper):
    """Standard output or error, which stays open until the process ends, whoever closes it."""

    def close(self) -> None:
        self.flush()


def protect_streams() -> None:
    """Makes standard output and standard error tolerate what would raise an exception in ``print``.

    A missing stream becomes the null device. What cannot be written is dropped, and a character that the
    encoding lacks is replaced. A stream that somebody else has put into ``sys`` is left alone.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # It takes the free descriptor: otherwise the next file that is opened would get the output of
            # other libraries.
            null = io.FileIO(os.devnull, "r" if name == "stdin" else "w")
            os.set_inheritable(null.fileno(), True)  # for the processes that a sweep starts
            if name == "stdin":
                sys.stdin = io.TextIOWrapper(io.BufferedReader(null), encoding="utf-8")
            else:
                output = _TolerantOutput(null, name, is_closed=True)
                setattr(sys, name, _text_stream(output, name, encoding="utf-8", line_buffering=False))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            raw = getattr(stream.buffer, "raw", stream.buffer)  # python -u has no buffer
            tolerant = _text_stream(
                _TolerantOutput(raw, name),
                name,
                encoding=stream.encoding,
                line_buffering=stream.line_buffering or stream.write_through,
            )
            setattr(sys, name, tolerant)
            for handler in logging.getLogger().handlers:  # of a job in a worker: Hydra made it before
                if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
                    handler.setStream(tolerant)


def _text_stream(output: _TolerantOutput, name: str, *, encoding: str, line_buffering: bool) -> TextIO:
    return _Stream(
        io.BufferedWriter(output),
        encoding=encoding,
        errors="backslashreplace" if name == "stderr" else "replace",
        line_buffering=line_buffering,
    )


def output_error() -> OSError | None:
    """Why something that was printed did not reach standard output; None if all of it did."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, _TolerantOutput) else None
