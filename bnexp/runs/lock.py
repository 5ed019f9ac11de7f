"""The lock of a run's folder: one process writes it at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bnexp.errors import UserError

LOCK = ".lock"


@contextmanager
def lock_folder(path: Path) -> Iterator[None]:
    """Locks a run's folder. The operating system releases the lock when the process ends, in whatever way.

    Raises UserError if another process holds the lock, and where it cannot be written.
    """
    from filelock import FileLock, Timeout  # takes 40 ms, which --help need not wait for

    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0.3, poll_interval=0.02)  # ``is_locked`` of a watcher takes it for microseconds
    except Timeout:
        raise UserError(
            f"{path}: another process is writing this run; wait for it, or choose another folder"
        ) from None
    except OSError as error:
        raise UserError(f"{path / LOCK}: cannot be written ({error.strerror})") from None
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a process writes the run in a folder: its lock is taken. The look changes no file.

    The answer is yes where that cannot be told.
    """
    try:
        descriptor = os.open(path / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        import fcntl

        # A shared lock needs no right to write, and does not disturb other watchers.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (OSError, ImportError):  # taken; or Windows, which has no flock
        return True
    finally:
        os.close(descriptor)
    return False
