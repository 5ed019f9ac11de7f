"""A cache of decoded images on disk: the next start maps arrays into memory and imports no decoder.

A cache file is a safetensors file. Its metadata hold the class names, a fingerprint of the source files and
checksums (safetensors itself does not check the contents). A damaged file is built again, and so is one that
was made from other source files.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bnexp.data.images import ImageDataset, Images
from bnexp.files import is_utf8, write_atomically

log = logging.getLogger(__name__)

FileState = tuple[int, ...]

FOLDER = ".bnexp"  # inside the data set's own folder
FORMAT = "bnexp images 1"
DTYPE_CODES = {torch.uint8: "U8", torch.int64: "I64"}  # safetensors' names


class _DamagedCacheError(Exception):
    """The cache file is damaged; the message is the reason."""


def load(
    root: Path, name: str, fingerprint: Callable[[], str | None], build: Callable[[], ImageDataset]
) -> ImageDataset:
    """The same as ``read_or_build``, but the data set that this process loaded last stays in memory.

    The jobs of a sweep share it while its source files do not change. Its tensors are read, never written.
    """
    key = fingerprint()
    location = (os.path.abspath(root), name)
    if _memory and _memory[0][:2] == (location, key):
        return _memory[0][2]
    _memory.clear()  # before the next data set is read: there may be no room for two
    dataset = read_or_build(root, name, fingerprint, build)
    _memory.append((location, key or fingerprint(), dataset))
    return dataset


_memory: list[tuple[tuple[str, str], str | None, ImageDataset]] = []


def read_or_build(
    root: Path, name: str, fingerprint: Callable[[], str | None], build: Callable[[], ImageDataset]
) -> ImageDataset:
    """The data set ``name`` of the folder ``root``, from its cache file. Without one: builds and caches it.

    ``fingerprint`` describes the source files as they are now. It returns None while a file is missing; then
    ``build`` may download it. One process builds and the others wait for it. The cache file lies in ``root``.
    If that folder is read-only, it lies in the user's own cache folder. If both are, there is no cache.
    """
    paths = candidate_paths(root, f"{name}.safetensors")
    for path in paths:
        with suppress(_DamagedCacheError):  # reported below, where it is built again
            if (dataset := _read(path, fingerprint())) is not None:
                return dataset
    with _lock_first_writable(paths) as locked_path:
        # Taken before the files are read: if one changes during the build, the cache is stale and not wrong.
        key = fingerprint()
        if locked_path is not None:
            try:
                if (dataset := _read(locked_path, key)) is not None:
                    return dataset  # another process built it in the meantime
            except _DamagedCacheError as reason:
                log.warning("%s is damaged (%s): it is built again", locked_path, reason)
        dataset = build()
        key = key or fingerprint()
        if locked_path is not None and key is not None:
            _write(locked_path, key, dataset)
        return dataset


def file_state(path: Path) -> FileState:
    """Changes when a file is written or replaced; raises OSError.

    Size and mtime alone stay the same where ``mv`` exchanges files of one size, and where an archive or
    ``touch`` sets the time. A copy of the data set is decoded again: it has other inodes.
    """
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns


@contextmanager
def no_empty_folders(*folders: Path) -> Iterator[None]:
    """If the block fails, removes those of ``folders`` (inner ones first) that it created and left empty."""
    missing = [folder for folder in folders if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise


def candidate_paths(root: Path, file_name: str) -> list[Path]:
    """Where a cache file of the data set in ``root`` may lie, the preferred path first."""
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    digest = hashlib.sha1(os.fsencode(os.path.abspath(root)), usedforsecurity=False).hexdigest()[:16]
    stem, ending = os.path.splitext(file_name)
    paths = [root / FOLDER / file_name, user_cache / "bnexp" / f"{stem}-{digest}{ending}"]
    return [path for path in paths if is_utf8(path)]  # safetensors opens no other


@contextmanager
def _lock_first_writable(paths: list[Path]) -> Iterator[Path | None]:
    """Locks and yields the first path whose folder is writable; yields None if there is none."""
    for path in paths:
        with no_empty_folders(path.parent, *path.parent.parents):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError:
                continue
            if not os.access(path.parent, os.W_OK | os.X_OK):
                continue
            with _lock(path):
                yield path
            return
    yield None


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Keeps other processes from building ``path``; removes the lock file if the block fails."""
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
        # A process that waits for this lock notices that the file is missing, and creates a new one.
        with suppress(OSError):
            os.unlink(lock.lock_file)
        raise
    finally:
        lock.release()


def _read(path: Path, key: str | None) -> ImageDataset | None:
    """The data set in the file; None if there is no file or its fingerprint is not ``key``.

    The tensors are memory-mapped: nothing is copied, and all processes that read the file share its pages.
    The mapping is private: a write to a tensor never reaches the file. Raises _DamagedCacheError.
    """
    if key is None:
        return None
    try:
        with safe_open(str(path), "pt") as file:
            description = _read_description(file.metadata())
            if description["fingerprint"] != key:
                return None
            tensors = {name: file.get_tensor(name) for name in description["checksums"]}
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        raise _DamagedCacheError(error) from None
    for name, checksum in description["checksums"].items():
        if _checksum(tensors[name]) != checksum:
            raise _DamagedCacheError(f"{name} does not match its checksum")
    return ImageDataset(
        Images(tensors["train.pixels"], tensors["train.labels"]),
        Images(tensors["test.pixels"], tensors["test.labels"]),
        tuple(description["classes"]),
        description.get("white", 255),
        tuple(description.get("notes", ())),
    )


def _read_description(metadata: dict[str, str] | None) -> dict:
    """The fingerprint, the class names and the checksum of each tensor."""
    metadata = metadata or {}
    if metadata.get("format") != FORMAT:
        raise _DamagedCacheError(f"its format is not {FORMAT!r}")
    description = metadata.get("description", "")
    if metadata.get("crc32") != str(zlib.crc32(description.encode())):
        raise _DamagedCacheError("its description does not match its checksum")
    return json.loads(description)


def _write(path: Path, key: str, dataset: ImageDataset) -> None:
    tensors = {  # the labels first: the pixels may end at any byte, and safetensors wants int64 aligned
        "train.labels": dataset.train.labels,
        "test.labels": dataset.test.labels,
        "train.pixels": dataset.train.pixels,
        "test.pixels": dataset.test.pixels,
    }
    checksums = {name: _checksum(tensor) for name, tensor in tensors.items()}
    values = {"classes": dataset.classes, "white": dataset.white, "notes": dataset.notes}
    description = json.dumps({"fingerprint": key, "checksums": checksums, **values})
    crc32 = str(zlib.crc32(description.encode()))
    header = _safetensors_header(tensors, {"format": FORMAT, "description": description, "crc32": crc32})

    def write(file: BinaryIO) -> None:
        file.write(header)
        for tensor in tensors.values():
            file.write(_bytes_of(tensor))

    try:
        write_atomically(path, write)
    except OSError as error:  # without the cache the run goes on
        reason = error.strerror or error
        log.warning("%s could not be written (%s): the next start decodes the images again", path, reason)


def _safetensors_header(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The first bytes of a safetensors file (format: https://github.com/huggingface/safetensors#format).

    The package's ``save`` would copy the whole data set, and a large image folder may fill more than half of
    the memory. Its ``save_file`` (0.8) writes a file that other users cannot read, and does not fsync it.
    """
    header: dict[str, object] = {"__metadata__": metadata}
    start = 0
    for name, tensor in tensors.items():
        stop = start + tensor.nbytes
        shape = list(tensor.shape)
        header[name] = {"dtype": DTYPE_CODES[tensor.dtype], "shape": shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # aligns the first tensor
    return len(text).to_bytes(8, "little") + text


def _checksum(tensor: Tensor) -> int:
    """CRC-32 of dtype, shape and contents."""
    return zlib.crc32(_bytes_of(tensor), zlib.crc32(f"{tensor.dtype} {list(tensor.shape)}".encode()))


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.view(-1).view(torch.uint8).numpy().data
