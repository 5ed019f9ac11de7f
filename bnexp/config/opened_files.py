"""Which files a component of the user's own reads while it is imported and made: they shape its run.

``torch.load("weights.pt")`` in a network's ``__init__`` is an example, and a module that is imported from a
folder which the code has added to ``sys.path``: no key names these files.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import sysconfig
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bnexp.files import FILE_DIGITS, MAX_FILES, files_below, path_digest

BINARY_CODE = (".pyc", ".so", ".dll", ".pyd")
INSTALLED = ("site-packages", "dist-packages")
SYSTEM_FOLDERS = ("/proc", "/sys", "/dev", "/etc", "/usr")
PACKAGE = Path(__file__).parents[1]  # bnexp

_collectors: list[set[str]] = []  # the sets that the running blocks fill
_thread = threading.local()  # ``is_ignored`` in threads whose reading belongs to no component
_opened: dict[str, set[str]] = {}  # what a component or the module of a target has read -> absolute paths


@contextmanager
def collect_opened_files(reader: str) -> Iterator[set[str]]:
    """Notes under ``reader`` every file that Python opens for reading inside the block, and no longer others.

    A library that opens a file by itself, in C or Rust, does so unseen.
    """
    _install_hook()
    paths = _opened[reader] = set()
    _collectors.append(paths)
    try:
        yield paths
    finally:
        _collectors.remove(paths)


def ignore_this_thread() -> None:
    """What this thread reads from now on belongs to no component, whatever another thread makes meanwhile."""
    _thread.is_ignored = True


def file_digests(readers: Iterable[str], left_out: Collection[str]) -> dict[str, str]:
    """The digest of each file that ``readers`` have read and that still exists, by its path.

    Without the paths in ``left_out``. Of a compiled module, as Python caches it, the source file counts.
    """
    digests = {}
    opened = set().union(*(_opened.get(reader, set()) for reader in readers))
    for path in sorted({*map(_source_of, opened)}.difference(left_out))[:MAX_FILES]:
        if _is_own(path):
            with suppress(OSError):
                digests[path] = path_digest(path).hex()[:FILE_DIGITS]
    return digests


@functools.cache
def _install_hook() -> None:
    """Python has no way to remove an audit hook; without a collector it does nothing."""
    sys.addaudithook(_record)


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    if not _collectors or event != "open" or getattr(_thread, "is_ignored", False):
        return
    path, mode, flags = arguments
    is_read = mode.startswith("r") and "+" not in mode if mode else flags & os.O_ACCMODE == os.O_RDONLY
    if is_read and isinstance(path, str | bytes):
        for paths in _collectors:
            paths.add(os.path.abspath(os.fsdecode(path)))


def paths_in(value: Any) -> Iterator[str]:
    """The absolute paths of the files that a key's value names, in lists and mappings too.

    Of a folder, ``files_below``, and the folder with a separator at its end, which stands for their names.
    """
    if isinstance(value, str) and os.path.isfile(value):
        yield os.path.abspath(value)
    elif isinstance(value, str) and os.path.isdir(value):
        folder = os.path.join(os.path.abspath(value), "")
        if files := files_below(folder):
            yield from (folder, *files)
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from paths_in(part)


def _source_of(path: str) -> str:
    """The source file of a compiled module in ``__pycache__``; any other path as it is."""
    with suppress(ValueError):
        return importlib.util.source_from_cache(path)
    return path


def _is_own(path: str) -> bool:
    """Whether it is a regular file or a named folder, and no part of the system, of bnexp or of Python."""
    folders = (*SYSTEM_FOLDERS, str(PACKAGE), *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))
    is_installed = any(path.startswith(f"{folder}{os.sep}") for folder in folders)
    is_installed = is_installed or not set(Path(path).parts).isdisjoint(INSTALLED)
    is_present = os.path.isdir(path) if path.endswith(os.sep) else os.path.isfile(path)
    return not is_installed and not path.endswith(BINARY_CODE) and is_present
