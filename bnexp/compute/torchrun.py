"""torchrun's processes before they connect: the first writes the run's folder, the others are silent.

Imports no torch. What the processes do together is in processes.py.
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
    """Whether another process prints and writes for this one."""
    return is_distributed() and int(os.environ.get("RANK") or 0) > 0


def secondary_arguments(arguments: list[str]) -> list[str]:
    """The command line of a secondary process: the same, with a temporary folder and without logging."""
    folder = tempfile.mkdtemp(prefix="bnexp-process-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    own = [argument for argument in arguments if not argument.startswith(RUN_DIR)]
    silent = ("hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none")
    return [*own, f"{RUN_DIR}{folder}", *silent]


def shared_run_folder(arguments: list[str]) -> Path | None:
    """The run's folder if the command line names it, also in a secondary process."""
    folders = [word.removeprefix(RUN_DIR).strip("'") for word in arguments if word.startswith(RUN_DIR)]
    return Path(folders[-1]) if folders else None
