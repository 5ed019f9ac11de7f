"""``outputs/latest``: a link to the newest run or sweep. Imports no torch."""

from __future__ import annotations

import os
import re
import uuid
from contextlib import suppress
from pathlib import Path

LATEST = "latest"
DATE = re.compile(r"\d{4}-\d\d-\d\d")


def point_latest(folder: Path) -> None:
    """Lets ``latest`` in the folder ``outputs`` point to ``folder``: a relative link, replaced in one step.

    Only for ``outputs/DATE/NAME`` and ``outputs/multirun/DATE/NAME``, the folders that bnexp chooses itself.
    A file, a folder or a link to another place with this name stays as it is. A system without links has no
    ``latest``.
    """
    path = Path(os.path.abspath(folder))
    outputs = path.parent.parent
    if outputs.name == "multirun":
        outputs = outputs.parent
    if outputs.name != "outputs" or not DATE.fullmatch(path.parent.name):
        return
    link = outputs / LATEST
    temporary = outputs / f".{LATEST}.{uuid.uuid4().hex[:8]}"
    with suppress(OSError, NotImplementedError):
        if os.path.lexists(link) and not _is_own(link):
            return
        try:
            os.symlink(path.relative_to(outputs), temporary, target_is_directory=True)
            os.replace(temporary, link)
        finally:
            temporary.unlink(missing_ok=True)


def _is_own(link: Path) -> bool:
    """Whether ``link`` is a link that bnexp made: relative, to a folder of a date."""
    if not link.is_symlink():
        return False
    target = Path(os.readlink(link))
    return not target.is_absolute() and bool(DATE.fullmatch(target.parent.name)) and ".." not in target.parts
