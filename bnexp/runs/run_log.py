"""train.log of a job whose process has no logging of Hydra's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FORMAT = "[%(asctime)s] %(levelname)s %(message)s"  # as in conf/hydra/job_logging/bnexp.yaml


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Inside the block the log goes to the file ``path`` and nowhere else."""
    root, package = logging.getLogger(), logging.getLogger("bnexp")
    handlers, levels = list(root.handlers), (root.level, package.level)
    file = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter(FORMAT))
    try:
        for handler in handlers:
            root.removeHandler(handler)
        root.addHandler(file)
        root.setLevel(logging.INFO)
        package.setLevel(logging.DEBUG)
        yield
    finally:
        root.removeHandler(file)
        file.close()
        for handler in handlers:
            root.addHandler(handler)
        root.setLevel(levels[0])
        package.setLevel(levels[1])
