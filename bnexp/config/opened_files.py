"""Which data files a component of the user's own reads while it is imported and made: they shape its run.

``torch.load("weights.pt")`` in a network's ``__init__`` is an example: no key names that file.
"""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bnexp.files import FILE_DIGITS, file_digest

CODE_SUFFIXES = (".py", ".pyc", ".pyi", ".so", ".pth", ".dll", ".pyd")
SYSTEM_FOLDERS = ("/proc", "/sys", "/dev", "/etc", "/usr")
MAX_FILES = 1000

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


def file_digests(readers: Iterable[str]) -> dict[str, str]:
    """The digest of each data file that ``readers`` have read and that still exists, by its path."""
    digests = {}
    for path in sorted(set().union(*(_opened.get(reader, set()) for reader in readers)))[:MAX_FILES]:
        if _is_data_file(path):
            with suppress(OSError):
                digests[path] = file_digest(Path(path)).hex()[:FILE_DIGITS]
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
    """The absolute paths of the files that a key's value names, in lists and mappings too."""
    if isinstance(value, str) and os.path.isfile(value):
        yield os.path.abspath(value)
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from paths_in(part)


def _is_data_file(path: str) -> bool:
    """Whether it is a regular file, neither code nor a part of the system or of the Python installation."""
    installed = (*SYSTEM_FOLDERS, *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))
    inside = any(path.startswith(f"{folder}{os.sep}") for folder in installed)
    return not inside and not path.endswith(CODE_SUFFIXES) and os.path.isfile(path)
