"""Atomic writes: a file is complete or absent. Temporary name, flush, fsync, rename."""

from __future__ import annotations

import hashlib
import math
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from json import dumps
from pathlib import Path
from typing import Any, BinaryIO

from bnexp.errors import WriteError

FILE_DIGITS = 16  # hexadecimal, of a file's digest where it is recorded
MAX_FILES = 1000  # of a folder that a key names
OUTPUT_MARKS = {".hydra", "multirun.yaml", "comparison.json"}  # in the folder of a run, sweep, comparison


@contextmanager
def keep_current_folder() -> Iterator[None]:
    """Ends in the folder in which it began: the user's own code may change it."""
    folder = os.getcwd()
    try:
        yield
    finally:
        os.chdir(folder)


@contextmanager
def name_write_errors(path: Path) -> Iterator[None]:
    """Turns an OSError inside the block into a WriteError that names ``path``."""
    try:
        yield
    except WriteError:
        raise
    except (OSError, RuntimeError) as error:
        # torch.save raises its own RuntimeError after an OSError of the file that it writes to.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise WriteError(cause.errno, cause.strerror or str(cause), str(path)) from error


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls ``write`` with an open temporary file, which replaces ``path`` once it is on the disk.

    A process that is killed at any instant leaves the old file or the new file under that name, never a
    part of one. It may leave its temporary file; the next write removes that. There must be one writer at
    a time. Raises WriteError.
    """
    for leftover in path.parent.glob(f".{path.name}.*.part"):
        leftover.unlink(missing_ok=True)
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
    """Makes a rename in a folder survive a power failure, on systems that can open a folder."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` as UTF-8. A byte of a path that is no text is written as an escape, as ``\\udcf6``."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, values: Any) -> None:
    """Writes ``values`` as JSON, atomically. JSON has no nan and no infinity: they become null."""
    text = dumps(nulls_for_nonfinite(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text)


def nulls_for_nonfinite(values: Any) -> Any:
    """``values``, nested in dictionaries and lists, with None in place of nan and infinity."""
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    if isinstance(values, dict):
        return {str(key): nulls_for_nonfinite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [nulls_for_nonfinite(value) for value in values]
    return values


def is_utf8(path: Path) -> bool:
    """Whether ``path`` can be written as UTF-8: TensorBoard and safetensors open no other path.

    Python stands in with a surrogate for each byte of a path that its own encoding does not know, as in the
    locale C without UTF-8 mode. No encoding has surrogates.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def path_digest(path: str) -> bytes:
    """``file_digest`` of a file; of a folder, a digest of the names of ``files_below``. Raises OSError."""
    if not path.endswith(os.sep):
        return file_digest(Path(path))
    names = "\0".join(file.removeprefix(path) for file in files_below(path))
    return hashlib.sha256(os.fsencode(names)).digest()


def files_below(folder: str) -> list[str]:
    """The regular files below a folder, MAX_FILES at most, in the same order each time.

    Without hidden ones, Python's caches, and what bnexp has written. Raises OSError where the folder is gone.
    """
    paths: list[str] = []
    os.stat(folder)
    for parent, subfolders, names in os.walk(folder):
        if not OUTPUT_MARKS.isdisjoint(subfolders + names):
            subfolders.clear()
            continue
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "__pycache__")))
        candidates = (os.path.join(parent, name) for name in sorted(names) if not name.startswith("."))
        paths += filter(os.path.isfile, candidates)
        if len(paths) >= MAX_FILES:
            break
    return paths[:MAX_FILES]


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file's contents; raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.digest()
