"""Decoded images kept on disk, so that the next start reads arrays and imports nothing.

A file is one line of plain text, one of JSON, then the arrays as they lie in memory; nothing in it is ever
unpickled or run. The JSON says what the arrays were made from and holds their checksums, and its own checksum
stands in the first line: a file that is damaged anywhere, or made from other files, is built again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from bnexp.data.images import ImageDataset, Images
from bnexp.files import write_atomically

log = logging.getLogger(__name__)

FOLDER = ".bnexp"  # inside the data set's own folder
MAGIC = f"bnexp images 1 {sys.byteorder}"
DTYPES = {"uint8": torch.uint8, "int64": torch.int64}
PIECE = 1 << 20  # read and checked piece by piece, while it is in the processor's cache
LONGEST_HEADER = 1 << 24


class _Damaged(Exception):
    """What is wrong with the file, in words."""


def load(
    root: Path, name: str, fingerprint: Callable[[], str | None], build: Callable[[], ImageDataset]
) -> ImageDataset:
    """``fetch``, but a set that this process fetched last, from files as they are now, is still in memory.

    The jobs of a sweep share it: its tensors are read, never written.
    """
    key = fingerprint()
    place = (os.path.abspath(root), name)
    if _last and _last[0][:2] == (place, key):
        return _last[0][2]
    _last.clear()  # before the next one is read: there need not be room for two
    source = fetch(root, name, fingerprint, build)
    _last.append((place, key or fingerprint(), source))
    return source


_last: list[tuple[tuple[str, str], str | None, ImageDataset]] = []


def fetch(
    root: Path, name: str, fingerprint: Callable[[], str | None], build: Callable[[], ImageDataset]
) -> ImageDataset:
    """The Source kept as ``name`` for the folder ``root``, or what ``build`` gives, kept for the next time.

    ``fingerprint`` says what the files are now, None while some are missing; ``build`` may bring them. One
    process builds, others wait for it. Kept in ``root``; where that can't be written, in the user's own cache
    folder; where that can't be written either, not at all.
    """
    paths = _paths(root, name)
    for path in paths:
        with suppress(_Damaged):  # told of below, where it is built again
            if (source := _read(path, fingerprint())) is not None:
                return source
    with _building(paths) as place:
        key = fingerprint()  # before the files are read: a change meanwhile makes the cache stale, not wrong
        if place is not None:
            try:
                if (source := _read(place, key)) is not None:
                    return source  # another process was quicker
            except _Damaged as damage:
                log.warning("%s is damaged (%s): built again", place, damage)
        source = build()
        key = key or fingerprint()
        if place is not None and key is not None:
            _write(place, key, source)
        return source


@contextmanager
def no_empty_folders(*folders: Path) -> Iterator[None]:
    """Of ``folders`` (inner ones first), removes those that a failing block made and left empty."""
    made = [folder for folder in folders if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def _paths(root: Path, name: str) -> list[Path]:
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    digest = hashlib.sha1(os.path.abspath(root).encode(), usedforsecurity=False).hexdigest()[:16]
    return [root / FOLDER / f"{name}.cache", home / "bnexp" / f"{name}-{digest}.cache"]


@contextmanager
def _building(paths: list[Path]) -> Iterator[Path | None]:
    """The first path that can be written, locked; None where there is none."""
    for path in paths:
        with no_empty_folders(path.parent, *path.parent.parents):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError:
                continue
            if not os.access(path.parent, os.W_OK | os.X_OK):
                continue
            with _locked(path):
                yield path
            return
    yield None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path.with_suffix(".lock"))
    try:
        try:
            lock.acquire(timeout=1)
        except Timeout:
            log.info("another process is preparing %s: waiting for it", path.stem)
            lock.acquire()
    except OSError as error:  # some network file systems have no locks
        log.info("%s can't be locked (%s)", path, error)
    try:
        yield
    except BaseException:
        # Whoever waits for the lock sees that its file is gone and makes a new one.
        with suppress(OSError):
            os.unlink(lock.lock_file)
        raise
    finally:
        lock.release()


def _read(path: Path, key: str | None) -> ImageDataset | None:
    """The Source in the file; None where there is no file, or one made from other files than ``key`` says."""
    if key is None:
        return None
    try:
        with open(path, "rb") as file:
            header = _read_header(file)
            if header["fingerprint"] != key:
                return None
            tensors = [_read_array(file, array) for array in header["arrays"]]
            if file.read(1):
                raise _Damaged("it goes on after its end")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _Damaged(error.strerror or str(error)) from None
    return ImageDataset(Images(*tensors[:2]), Images(*tensors[2:]), tuple(header["classes"]))


def _read_header(file: BinaryIO) -> dict:
    words = file.readline(200).decode("ascii", "replace").split()
    if " ".join(words[:-2]) != MAGIC or not all(word.isdecimal() for word in words[-2:]):
        raise _Damaged("its first line is not one of bnexp's")
    length, checksum = map(int, words[-2:])
    text = file.read(min(length, LONGEST_HEADER))
    if len(text) != length or zlib.crc32(text) != checksum:
        raise _Damaged("its header has another checksum")
    return json.loads(text)


def _read_array(file: BinaryIO, array: dict) -> Tensor:
    """Straight into the tensor's memory: no second copy of the data set."""
    tensor = torch.empty(array["shape"], dtype=DTYPES[array["dtype"]])
    view, checksum = _bytes_of(tensor), 0
    for start in range(0, len(view), PIECE):
        piece = view[start : start + PIECE]
        if file.readinto(piece) != len(piece):  # type: ignore[attr-defined]
            raise _Damaged("it is cut short")
        checksum = zlib.crc32(piece, checksum)
    if checksum != array["crc32"]:
        raise _Damaged("its data have another checksum")
    return tensor


def _write(path: Path, key: str, source: ImageDataset) -> None:
    tensors = (source.train.pixels, source.train.labels, source.test.pixels, source.test.labels)
    arrays = [
        {"shape": list(t.shape), "dtype": str(t.dtype).split(".")[1], "crc32": zlib.crc32(_bytes_of(t))}
        for t in tensors
    ]
    text = json.dumps({"fingerprint": key, "classes": source.classes, "arrays": arrays}).encode() + b"\n"

    def write(file: BinaryIO) -> None:
        file.write(f"{MAGIC} {len(text)} {zlib.crc32(text)}\n".encode())
        file.write(text)
        for tensor in tensors:
            file.write(_bytes_of(tensor))

    try:
        write_atomically(path, write)
    except OSError as error:  # a full disk costs the cache, not the run
        reason = error.strerror or error
        log.warning("%s could not be written (%s): the next start decodes again", path, reason)


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.view(-1).view(torch.uint8).numpy().data
