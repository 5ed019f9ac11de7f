"""Disks that are full, and output folders that vanish."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from reference import get_reference
from trial import RUN, Trial, TrialSkipped, require


def full_by_limit(trial: Trial) -> None:
    """No file may grow beyond a random size: some files reach it at once, the events file late."""
    reference = get_reference(trial)
    size = int(10 ** trial.random.uniform(3.7, 5.3))
    args = (*RUN, "hydra.run.dir=run")
    limit_files = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
    result = trial.run(*args, preexec_fn=limit_files)
    if result.code:
        result.require_one_line(1, "cannot be written")
    trial.require_whole_checkpoints()
    trial.run_successfully(*args)
    trial.require_same_record(reference.path)


@contextlib.contextmanager
def mounted_disk(trial: Trial, size: str) -> Iterator[Path]:
    path = trial.folder / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True).returncode:
        raise TrialSkipped("only root can mount a small disk")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def full_disk(trial: Trial) -> None:
    """A real file system without free space, which is then made larger."""
    reference = get_reference(trial)
    args = (*RUN, "hydra.run.dir=disk/run")
    with mounted_disk(trial, f"{trial.random.randint(100, 900)}k") as disk:
        trial.run(*args).require_one_line(1, "cannot be written (No space left on device)")
        trial.require_whole_checkpoints("disk/run")
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        trial.run_successfully(*args)
        trial.require_same_record(reference.path, "disk/run")


def vanished(trial: Trial) -> None:
    """The output folder is moved away during the run; in odd trials a file takes its name."""
    process = trial.start(*RUN, "epochs=500", "hydra.run.dir=run")
    trial.wait_until(trial.has_epoch, process)
    run = trial.folder / "run"
    os.rename(run, trial.folder / "moved")
    if trial.number % 2:
        run.write_text("a file instead of the folder")
    trial.finish(process).require_one_line(1, "cannot be written (No")
    require(not run.is_dir(), "the run made the folder again")
