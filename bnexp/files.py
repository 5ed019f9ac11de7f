"""Files that are whole or not there: temporary name, flush, fsync, rename."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from bnexp.errors import WriteError


@contextmanager
def name_write_errors(path: Path) -> Iterator[None]:
    """Says of an OSError inside that it befell ``path``; raises WriteError."""
    try:
        yield
    except WriteError:
        raise
    except (OSError, RuntimeError) as error:
        # torch.save ends in a RuntimeError of its own when the file under it raises.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise WriteError(cause.errno, cause.strerror or str(cause), str(path)) from error


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls ``write`` with an open file that takes ``path``'s place once it is safely on the disk.

    Killed at any instant, this leaves the old file or the new one under that name, never a part; what such
    a kill leaves beside it goes with the next write. One writer at a time. Raises WriteError.
    """
    for stale in path.parent.glob(f".{path.name}.*.part"):
        stale.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with name_write_errors(path):
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    """Makes a rename in a folder outlast a power cut, where the system lets a folder be opened."""
    with suppress(OSError):
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: Path, values: Any) -> None:
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
