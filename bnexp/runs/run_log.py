"""The log of a run: train.log of a job whose process has no logging of Hydra's, its warnings; and a log that
stays.

A user's own code may call ``logging.disable`` or ``logging.basicConfig(force=True)``, or replace
``sys.stdout``: warnings and results must still appear.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

FORMAT = "[%(asctime)s] %(levelname)s %(message)s"  # as in conf/hydra/job_logging/bnexp.yaml
IN_VERDICT = {"in_verdict": True}  # ``extra`` of a warning that a sweep need not repeat: its verdict has it


class LogSettings:
    """Handlers, levels and switches of the root logger and of bnexp's loggers, and the streams, as of now."""

    def __init__(self) -> None:
        self._streams = sys.stdout, sys.stderr
        self._handlers = list(logging.getLogger().handlers)
        self._disabled_level = logging.root.manager.disable
        self._loggers = {
            logger: (logger.level, logger.propagate, logger.disabled) for logger in _own_loggers()
        }

    def restore(self) -> None:
        """Sets them again; a handler that was added meanwhile stays."""
        sys.stdout, sys.stderr = self._streams
        root = logging.getLogger()
        for handler in self._handlers:
            root.addHandler(handler)  # nothing happens where it is still there
        logging.disable(self._disabled_level)
        for logger, (level, propagate, disabled) in self._loggers.items():
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled


def _own_loggers() -> list[logging.Logger]:
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "bnexp"]
    return [logging.getLogger(), *map(logging.getLogger, names)]


_current: list[LogSettings] = []  # those of the blocks of ``keep_log``, the innermost last


@contextmanager
def keep_log() -> Iterator[None]:
    """The log has the same settings after the block, and wherever ``restore_log`` is called inside it."""
    _current.append(LogSettings())
    try:
        yield
    finally:
        _current.pop().restore()


def restore_log() -> None:
    """Undoes what the user's own code has changed; nothing outside of ``keep_log``."""
    if _current:
        _current[-1].restore()


_run_folder: ContextVar[Path | None] = ContextVar("run_folder", default=None)


@contextmanager
def warnings_of(folder: Path) -> Iterator[None]:
    """Warnings inside the block are about the run in ``folder`` alone, not about all runs of the process."""
    token = _run_folder.set(folder)
    try:
        yield
    finally:
        _run_folder.reset(token)


class RunWarnings(logging.Handler):
    """Collects the warnings of bnexp's loggers."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._messages: list[tuple[str, Path | None]] = []

    def emit(self, record: logging.LogRecord) -> None:
        is_own = record.name.partition(".")[0] == "bnexp"
        if is_own and record.levelno == logging.WARNING and not hasattr(record, "in_verdict"):
            self._messages.append((record.getMessage(), _run_folder.get()))

    def about(self, folder: Path) -> tuple[str, ...]:
        """The distinct messages about the run in ``folder``."""
        return tuple(dict.fromkeys(text for text, run in self._messages if run in (None, folder)))


@contextmanager
def log_to(*paths: Path) -> Iterator[RunWarnings]:
    """Inside the block the log goes to the files ``paths``, complete into each; yields its warnings."""
    root, package = logging.getLogger(), logging.getLogger("bnexp")
    handlers, levels = list(root.handlers), (root.level, package.level)
    files = [logging.FileHandler(path, encoding="utf-8", errors="backslashreplace") for path in paths]
    warnings = RunWarnings()
    try:
        for handler in handlers:
            root.removeHandler(handler)
        for file in files:
            file.setFormatter(logging.Formatter(FORMAT))
            root.addHandler(file)
        root.addHandler(warnings)
        root.setLevel(logging.INFO)
        package.setLevel(logging.DEBUG)
        with keep_log():
            yield warnings
    finally:
        root.removeHandler(warnings)
        for file in files:
            root.removeHandler(file)
            file.close()
        for handler in handlers:
            root.addHandler(handler)
        root.setLevel(levels[0])
        package.setLevel(levels[1])
