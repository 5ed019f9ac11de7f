"""train.log of a job whose process has no logging of Hydra's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FORMAT = "[%(asctime)s] %(levelname)s %(message)s"  # as in conf/hydra/job_logging/bnexp.yaml


@contextmanager
def log_to(*paths: Path) -> Iterator[None]:
    """Inside the block the log goes to the files ``paths``, complete into each, and nowhere else."""
    root, package = logging.getLogger(), logging.getLogger("bnexp")
    handlers, levels = list(root.handlers), (root.level, package.level)
    files = [logging.FileHandler(path, encoding="utf-8", errors="backslashreplace") for path in paths]
    try:
        for handler in handlers:
            root.removeHandler(handler)
        for file in files:
            file.setFormatter(logging.Formatter(FORMAT))
            root.addHandler(file)
        root.setLevel(logging.INFO)
        package.setLevel(logging.DEBUG)
        yield
    finally:
        for file in files:
            root.removeHandler(file)
            file.close()
        for handler in handlers:
            root.addHandler(handler)
        root.setLevel(levels[0])
        package.setLevel(levels[1])
