"""Which code a custom ``_target_`` stands for: a fingerprint of its source file."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from pathlib import Path

DIGITS = 16  # hexadecimal, of the fingerprint
VERSIONED_PACKAGES = ("bnexp", "torch", "torchvision")  # their versions are in environment.json


def source_fingerprint(target: str | None) -> str | None:
    """16 hexadecimal digits of the file that defines ``mynets.Net``.

    None for a target of bnexp or torch, and where the file cannot be found. Only this file counts, not what
    it imports. The file is not executed.
    """
    module = (target or "").rpartition(".")[0]
    if not module or module.partition(".")[0] in VERSIONED_PACKAGES:
        return None
    search_current_folder()
    try:
        spec = importlib.util.find_spec(module)
        content = Path(spec.origin).read_bytes() if spec and spec.origin else None
    except Exception:  # the run itself says what is wrong with the target
        return None
    return None if content is None else hashlib.sha256(content).hexdigest()[:DIGITS]


def search_current_folder() -> None:
    """Lets an import search the current folder, last: it must not hide a package.

    A console script does not search it.
    """
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)
