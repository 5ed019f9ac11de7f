"""What torchrun's processes do before they meet: one of them writes the run's folder and speaks for all.

Imports no torch. What they do together is in processes.py.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

RUN_DIR = "hydra.run.dir="


def is_distributed() -> bool:
    """Whether this process is one of several that train one network."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


def is_secondary() -> bool:
    """Whether another one speaks and writes for this one."""
    return is_distributed() and int(os.environ.get("RANK") or 0) > 0


def secondary_arguments(arguments: list[str]) -> list[str]:
    """A silent process's command line: the same, with a folder that goes when the process does."""
    folder = tempfile.mkdtemp(prefix="bnexp-process-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    kept = [word for word in arguments if not word.startswith(RUN_DIR)]
    quiet = ("hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none")
    return [*kept, f"{RUN_DIR}{folder}", *quiet]


def shared_run_folder(arguments: list[str]) -> Path | None:
    """The run's folder where the command line names it, in a silent process too."""
    named = [word.removeprefix(RUN_DIR).strip("'") for word in arguments if word.startswith(RUN_DIR)]
    return Path(named[-1]) if named else None
