"""torchrun's processes before they connect: the first writes the run's folder, the others are silent.

Imports no torch. What the processes do together is in processes.py.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile


def is_distributed() -> bool:
    """Whether this process is one of several that train one network."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


def is_secondary() -> bool:
    """Whether another process prints and writes for this one."""
    return is_distributed() and int(os.environ.get("RANK") or 0) > 0


def secondary_arguments(arguments: list[str]) -> list[str]:
    """The command line of a secondary process: the same, with a temporary folder and no log.

    A run folder that the command line names stays in front of the temporary one: Hydra takes the
    last one, and cli.run_guard reads the one before it.
    """
    folder = tempfile.mkdtemp(prefix="bnexp-process-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    quiet = ("hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none")
    return [*arguments, f"hydra.run.dir={folder}", *quiet]
