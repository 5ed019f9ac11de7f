"""A run's folder: its names, its summary, the environment it ran in. Imports no torch.

``supervised`` wraps the run: whatever happens inside, the folder's summary.json says how it ended.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from bnexp.errors import UserError, one_line
from bnexp.files import write_json

log = logging.getLogger(__name__)

SUMMARY = "summary.json"
ENVIRONMENT = "environment.json"
LOCK = ".lock"
PACKAGES = ("bnexp", "torch", "torchvision", "numpy", "hydra-core", "omegaconf", "tensorboard")
# Where null, these keys of a scheduler are the whole run: its learning rates follow from ``epochs``.
HORIZONS = ("T_max", "total_iters", "total_steps")
# What a run is called, where its files lie, what its verdict calls small: these change no number in it.
NO_IDENTITY = ("name", "tags", "tracking", "checkpoint", "on_failure")
NO_IDENTITY_OF_DATASET = ("root", "delta")


class Diverged(RuntimeError):
    """The loss is no longer a finite number; the message names epoch and step."""


class ProcessLost(RuntimeError):
    """Another process of this run has ended; the message says how to go on."""


class OutOfMemory(RuntimeError):
    """The device has too little memory; the message says which keys take less."""


def experiment(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration changes a number: two runs that share it are the same experiment."""
    kept = {key: value for key, value in config.items() if key not in NO_IDENTITY}
    dataset = dict(config.get("dataset", {}))
    kept["dataset"] = {key: dataset[key] for key in dataset if key not in NO_IDENTITY_OF_DATASET}
    return kept


def config_hash(config: Mapping[str, Any]) -> str:
    """Twelve hex digits that two runs share exactly when they are the same experiment."""
    text = json.dumps(experiment(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def goes_on(summary: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether ``config`` may carry on the run of ``summary``: the same experiment, or more epochs of it."""
    before = int(summary.get("epochs") or 0)
    same = config_hash(dict(config) | {"epochs": before}) == summary.get("config_hash")
    return same and int(config["epochs"]) >= before


def job_folder(sweep: Path, words: str, identity: str) -> str:
    """A sweep job's folder: what tells it from the others, readable, and the hash of its configuration.

    Where the job has been begun under other words it stays there.
    """
    begun = sorted(path.parent.name for path in sweep.glob(f"*-{identity}/{SUMMARY}"))
    plain = re.sub(r"[^A-Za-z0-9_.,=+-]+", "_", words)[:180] or "job"
    return begun[0] if begun else f"{plain}-{identity}"


def done_before(sweep: Path, identity: str = "*") -> list[Path]:
    """Where a sweep has seen the job with this configuration hash, or any, to its end, well or diverged."""
    found = []
    for path in sweep.glob(f"*-{identity}/{SUMMARY}"):
        with suppress(UserError):
            if load_summary(path.parent)["status"] in ("finished", "diverged"):
                found.append(path.parent)
    return found


def environment() -> dict[str, Any]:
    """Versions, machine, git state of the current folder, and the command."""
    return {
        "command": shlex.join(sys.argv),
        "folder": os.getcwd(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": platform.node(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "git": _git_state(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


class RunFolder:
    """The folder of one run and the summary in it, written anew, whole, at each change.

    Raises UserError where the folder holds a run that ``config`` does not go on with.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], overrides: list[str]) -> None:
        self.path = path
        self.before = load_summary(path) if (path / SUMMARY).exists() else None
        if self.before is not None and not goes_on(self.before, config):
            raise UserError(f"{path}: holds a run with another configuration; choose another folder")
        self.summary: dict[str, Any] = {
            "status": "running",
            "name": config["name"],
            "tags": config["tags"],
            "config_hash": config_hash(config),
            "overrides": overrides,
            "seed": config["seed"],
            "epochs": config["epochs"],
            "parameters": None,
            "images": None,
            "classes": None,
            "majority": None,
            "graph": (self.before or {}).get("graph"),  # whether a step is a CUDA graph
            "best": None,
            "final": {},
            "time": {},
            "error": None,
        }

    def update(self, **values: Any) -> None:
        self.summary.update(values)
        write_json(self.path / SUMMARY, self.summary)

    def clear(self) -> None:
        """Removes the record of an attempt that cannot be carried on: this one starts from the beginning."""
        for path in (*self.path.glob("events.out.tfevents.*"), *self.path.glob("checkpoints/*.pt")):
            path.unlink()
        for name in ("metrics.csv", "steps.csv"):
            (self.path / name).unlink(missing_ok=True)

    def record_environment(self, **more: Any) -> None:
        """Writes environment.json; a run that goes on keeps what it was before under ``earlier``."""
        before = self._environment_before()
        earlier = [*before.pop("earlier", []), before] if before else []
        write_json(self.path / ENVIRONMENT, environment() | more | {"earlier": earlier})

    def threads_before(self) -> int | None:
        """The CPU threads that the run in this folder began with, as far as this machine has them."""
        return threads_of(self.path) if self.before is not None else None

    def _environment_before(self) -> dict[str, Any]:
        return _environment_of(self.path) if self.before is not None else {}


def _environment_of(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / ENVIRONMENT).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def threads_of(path: Path) -> int | None:
    """The CPU threads that a run began with, as far as this machine has them: others change the last bits."""
    try:
        before = _environment_of(path)
        threads = (before.get("earlier") or [before])[0].get("threads")
    except (AttributeError, TypeError, LookupError):  # not what bnexp writes
        return None
    return threads if isinstance(threads, int) and 1 <= threads <= (os.cpu_count() or 1) else None


def discard(path: Path) -> None:
    """Removes what a run leaves that never began; anything else in the folder stays."""
    for name in (SUMMARY, ENVIRONMENT, LOCK, "train.log", "metrics.csv", "steps.csv"):
        (path / name).unlink(missing_ok=True)
    for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
        (path / ".hydra" / name).unlink(missing_ok=True)
    for folder in (path / ".hydra", path / "checkpoints"):
        with suppress(OSError):
            folder.rmdir()
    above = path.parents[:2]  # the day and outputs/, unless the user chose another place
    with suppress(OSError):  # the first that holds something else ends it
        for folder in (path, *(above if path.parents[1].name == "outputs" else ())):
            folder.rmdir()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a run's folder; the system lets go of it when the process ends, however it ends.

    Raises UserError where another process holds it.
    """
    from filelock import FileLock, Timeout  # 40 ms that --help need not wait

    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{path}: another process is writing this run; wait for it, or choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def supervised(folder: RunFolder, *, keep: bool) -> Iterator[None]:
    """Records how the block ends: finished, failed, diverged or interrupted.

    A user's mistake takes the folder away again, unless ``keep``: in a sweep it stays, as a failed job.
    """
    started = time.monotonic()
    earlier = ((folder.before or {}).get("time") or {}).get("total_s") or 0.0

    def ended(status: str, error: str | None = None) -> None:
        total = {"total_s": round(earlier + time.monotonic() - started, 3)}
        try:
            folder.update(status=status, error=error, time=folder.summary["time"] | total)
        except OSError as full:  # what went wrong first is what the user has to hear
            log.error(f"{folder.path / SUMMARY}: cannot be written ({full.strerror}): it still says running")

    try:
        folder.update()
        yield
        ended("finished")
    except UserError as error:
        if keep:
            ended("failed", str(error))
        elif folder.before is None:
            discard(folder.path)
        else:
            write_json(folder.path / SUMMARY, folder.before)
        raise
    except Diverged as error:
        ended("diverged", str(error))
        raise
    except KeyboardInterrupt as error:
        ended("interrupted", one_line(error) or "SIGINT")
        raise
    except Exception as error:
        log.debug("the traceback", exc_info=True)
        ended("failed", one_line(f"{type(error).__name__}: {error}"))
        raise


def check_inside(path: Path) -> None:
    """Raises UserError where a folder holds a link that leads out of it, or what is no file and no folder.

    A run's folder may come from elsewhere: reading it must not read, and carrying it on must not write,
    what lies beside it; a pipe in it would hold its reader for ever.
    """
    whole = path.resolve()
    for inner in path.rglob("*"):
        if inner.is_symlink() and not inner.resolve().is_relative_to(whole):
            raise UserError(f"{inner}: points outside the run's folder")
        if inner.exists() and not (inner.is_file() or inner.is_dir()):
            raise UserError(f"{inner}: neither a file nor a folder")


def load_summary(path: Path) -> dict[str, Any]:
    """A run folder's summary; raises UserError where it is missing or damaged, or the folder not whole."""
    check_inside(path)
    try:
        summary = json.loads((path / SUMMARY).read_text())
    except OSError as error:
        raise UserError(f"{path}: not a run folder ({SUMMARY}: {error.strerror})") from None
    except ValueError as error:
        raise UserError(one_line(f"{path / SUMMARY}: damaged ({error})")) from None
    if not isinstance(summary, dict) or "status" not in summary:
        raise UserError(f"{path / SUMMARY}: damaged (no status in it)")
    return summary
