"""A run's folder: its names, its summary, the environment it ran in. Imports no torch.

``supervised`` wraps the run: whatever happens inside, the folder's summary.json says how it ended.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bnexp.errors import Diverged, UserError, one_line
from bnexp.files import write_json
from bnexp.runs.environment import ENVIRONMENT, environment, read_environment, recorded_threads
from bnexp.runs.identity import can_resume, config_hash

log = logging.getLogger(__name__)

SUMMARY = "summary.json"
LOCK = ".lock"


class RunFolder:
    """The folder of one run and the summary in it, written anew, whole, at each change.

    Raises UserError where the folder holds a run that ``config`` does not go on with.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], overrides: list[str]) -> None:
        self.path = path
        self.before = load_summary(path) if (path / SUMMARY).exists() else None
        if self.before is not None and not can_resume(self.before, config):
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
        return recorded_threads(self.path) if self.before is not None else None

    def _environment_before(self) -> dict[str, Any]:
        return read_environment(self.path) if self.before is not None else {}


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
def record_outcome(folder: RunFolder, *, keep: bool) -> Iterator[None]:
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
