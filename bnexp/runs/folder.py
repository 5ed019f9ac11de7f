"""A run's folder: its summary.json, its environment.json, its lock. Imports no torch.

Training runs inside ``record_outcome``: summary.json then says how the run ended, whatever happened.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bnexp import __version__
from bnexp.errors import Diverged, UserError, describe, forbid_exit, one_line
from bnexp.files import write_json
from bnexp.runs.confusion import CONFUSION_FILE
from bnexp.runs.environment import ENVIRONMENT, describe_environment, read_environment, recorded_threads
from bnexp.runs.identity import can_resume, checkpoint_identity, config_hash, describe_changes

log = logging.getLogger(__name__)

SUMMARY = "summary.json"
# What a resumed run, bnexp-eval and bnexp-compare read; None and a missing key are allowed.
SUMMARY_TYPES: dict[str, tuple[type, ...]] = {
    "status": (str,), "config_hash": (str,), "fingerprints": (dict,), "files": (dict,), "overrides": (list,),
    "choices": (dict,), "epochs": (int,), "patience": (int,), "seed": (int,), "graph": (bool,),
    "best": (dict,), "final": (dict,), "predictions": (dict,), "probes": (dict,), "time": (dict,),
    "input": (dict,), "version": (str,),
}  # fmt: skip
DESCENT = "descent"  # the ``kind`` in the summary.json of bnexp-descend; a run of training has none
LOCK = ".lock"
LOG = "train.log"
PROBE_FOLDER = "probes"
# A run writes summary.json before any of them.
RECORDS = (ENVIRONMENT, "metrics.csv", "steps.csv", CONFUSION_FILE, "checkpoints", PROBE_FOLDER)


class RunFolder:
    """The folder of one run. Each update rewrites the complete summary.json.

    ``previous_summary`` is the summary that was in the folder before: None for a new run. ``new_folders`` are
    the folders that were created for this run. Raises UserError if the folder holds a run that ``config``
    does not resume, or records that belong to no run of bnexp.
    """

    def __init__(
        self,
        path: Path,
        config: Mapping[str, Any],
        overrides: list[str],
        new_folders: Iterable[Path] = (),
        *,
        fingerprints: Mapping[str, str] | None = None,
        choices: Mapping[str, str | None] | None = None,
        job_number: int | None = None,
    ) -> None:
        self.path = path
        self.shown = os.path.relpath(path)  # own code can change the current folder
        self.new_folders = tuple(new_folders)
        self.previous_summary = load_summary(path) if (path / SUMMARY).exists() else None
        fingerprints = dict(fingerprints or {})
        if self.previous_summary is not None and not can_resume(self.previous_summary, config, fingerprints):
            changes = describe_changes(self.previous_summary, config, fingerprints)
            reason = changes or "holds a run with another configuration"
            raise UserError(f"{path}: {reason}; choose another folder")
        records = [path / name for name in RECORDS if (path / name).exists() and not _is_empty(path / name)]
        if self.previous_summary is None and records:
            raise UserError(f"{records[0]}: belongs to no run of bnexp; choose another folder")
        self.summary: dict[str, Any] = {
            "status": "running",
            "name": config["name"],
            "tags": config["tags"],
            "config_hash": config_hash(config, fingerprints),
            "checkpoint_identity": checkpoint_identity(config, fingerprints),
            "fingerprints": fingerprints,  # of the images and of the user's own code
            "files": {},  # data files that the user's own code has read, and their digests
            "overrides": overrides,
            "choices": dict(choices or {}),  # the chosen file of each group: model, optimizer ...
            "job_number": job_number,  # the place in its sweep, from 0; None for a single run
            "seed": config["seed"],
            "epochs": config["epochs"],
            "patience": config.get("early_stopping", {}).get("patience"),
            "parameters": None,
            "images": None,
            "classes": None,
            "majority": None,
            "input": None,  # what the network reads: channels, sizes, mean, std; and the names of its answers
            "version": __version__,
            "graph": (self.previous_summary or {}).get("graph"),  # whether a step is a CUDA graph
            "best": None,
            "final": {},
            "probes": {},  # the probes of this run, each with the reason why it failed, or null
            "predictions": {},  # the number of test images given to each class, at the best and final epoch
            "time": {},
            "error": None,
        }
        if (replicas := (self.previous_summary or {}).get("fused")) is not None:
            self.summary["fused"] = replicas  # a part of this run was trained together with other seeds

    def update(self, **values: Any) -> None:
        """Sets keys of the summary and writes it."""
        self.summary.update(values)
        write_json(self.path / SUMMARY, self.summary)

    def clear(self) -> None:
        """Removes the records of an attempt that has no checkpoint: the run starts from the beginning."""
        if self.previous_summary is None:
            return
        checkpoints = self.path / "checkpoints"
        for path in [*self.path.glob("events.out.tfevents.*"), *numbered_checkpoints(checkpoints)]:
            path.unlink()
        records = [self.path / name for name in ("metrics.csv", "steps.csv", CONFUSION_FILE)]
        records += (self.path / PROBE_FOLDER).glob("*.csv")
        for path in [*records, *(checkpoints / f"{name}.pt" for name in ("last", "best", "previous"))]:
            path.unlink(missing_ok=True)

    def record_environment(self, **details: Any) -> None:
        """Writes environment.json; a resumed run keeps its previous environments under ``earlier``."""
        previous = read_environment(self.path) if self.previous_summary is not None else {}
        earlier = [*previous.pop("earlier", []), previous] if previous else []
        write_json(self.path / ENVIRONMENT, describe_environment() | details | {"earlier": earlier})

    def previous_threads(self) -> int | None:
        """The CPU threads that a resumed run began with; None for a new run, or if this machine has fewer."""
        return recorded_threads(self.path) if self.previous_summary is not None else None


def is_free(path: Path) -> bool:
    """Whether a run may write into ``path``: it is missing, empty, or bnexp's own.

    A run that was killed before it wrote summary.json has left its lock, and perhaps its log, .hydra and the
    empty folder of its checkpoints.
    """
    if (path / SUMMARY).exists():
        return "config_hash" in load_summary(path)
    if not path.is_dir():
        return True
    names = {entry.name for entry in path.iterdir() if not entry.name.startswith(f".{SUMMARY}.")}
    if _is_empty(path / "checkpoints"):
        names.discard("checkpoints")
    if names == {LOG}:
        return (path / LOG).stat().st_size == 0
    return not names or (LOCK in names and names <= {LOCK, LOG, ".hydra"})


def _is_empty(path: Path) -> bool:
    """Whether it is a folder without entries."""
    return path.is_dir() and not any(path.iterdir())


def numbered_checkpoints(folder: Path) -> list[Path]:
    """``epoch-N.pt`` of each epoch, in the order of N. Other names, as ``epoch-final.pt``, are the user's."""
    paths = [
        path
        for path in folder.glob("epoch-*.pt")
        if re.fullmatch(r"epoch-\d+\.pt", path.name) and path.is_file()
    ]
    return sorted(paths, key=lambda path: int(path.stem.split("-")[1]))


def missing_folders(path: Path) -> list[Path]:
    """``path`` and the folders above it that do not exist yet, the deepest first."""
    absolute = path.absolute()
    return [folder for folder in (absolute, *absolute.parents) if not os.path.lexists(folder)]


def discard(path: Path, new_folders: Iterable[Path]) -> None:
    """Removes the files of a run that never started, and those of ``new_folders`` that are empty then."""
    for name in (SUMMARY, ENVIRONMENT, LOCK, LOG, "metrics.csv", "steps.csv"):
        (path / name).unlink(missing_ok=True)
    for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
        (path / ".hydra" / name).unlink(missing_ok=True)
    for measurement in (path / PROBE_FOLDER).glob("*.csv"):
        measurement.unlink()
    for folder in (path / ".hydra", path / "checkpoints", path / PROBE_FOLDER):
        with suppress(OSError):  # it holds other files
            folder.rmdir()
    with suppress(OSError):  # the first folder that holds other files ends the loop
        for folder in new_folders:
            folder.rmdir()


@contextmanager
def lock_folder(path: Path) -> Iterator[None]:
    """Locks a run's folder. The operating system releases the lock when the process ends, in whatever way.

    Raises UserError if another process holds the lock.
    """
    from filelock import FileLock, Timeout  # takes 40 ms, which --help need not wait for

    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0.3, poll_interval=0.02)  # ``is_locked`` of a watcher takes it for microseconds
    except Timeout:
        raise UserError(
            f"{path}: another process is writing this run; wait for it, or choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a process writes the run in a folder: its lock is taken. The look changes no file.

    The answer is yes where that cannot be told.
    """
    try:
        descriptor = os.open(path / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        import fcntl

        # A shared lock needs no right to write, and does not disturb other watchers.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (OSError, ImportError):  # taken; or Windows, which has no flock
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def record_outcome(folder: RunFolder, *, keep: bool) -> Iterator[None]:
    """Records how the block ends: finished, failed, diverged or interrupted.

    After a user's mistake the folder is restored: a new run's files and ``new_folders`` are removed, a
    resumed run gets its previous summary. With ``keep``, for a job of a sweep, the folder stays and says that
    the job failed.
    """
    start = time.monotonic()
    previous_seconds = ((folder.previous_summary or {}).get("time") or {}).get("total_s") or 0.0

    def record(status: str, error: str | None = None) -> None:
        seconds = round(previous_seconds + time.monotonic() - start, 3)
        try:
            folder.update(status=status, error=error, time=folder.summary["time"] | {"total_s": seconds})
        except OSError as write_error:  # logged only: the user has to see the error that ended the run
            reason = write_error.strerror
            log.error(f"{folder.path / SUMMARY}: cannot be written ({reason}); it still says running")

    try:
        folder.update()
        with forbid_exit("the network, loss, optimizer or scheduler"):
            yield
        record("finished")
    except UserError as error:
        if keep:
            record("failed", str(error))
        elif folder.previous_summary is None:
            discard(folder.path, folder.new_folders)
        else:
            write_json(folder.path / SUMMARY, folder.previous_summary)
        raise
    except Diverged as error:
        record("diverged", str(error))
        raise
    except KeyboardInterrupt as error:
        record("interrupted", one_line(error) or "SIGINT")
        raise
    except Exception as error:
        log.debug("the traceback", exc_info=True)
        record("failed", describe(error))
        raise


def check_inside(path: Path) -> None:
    """Raises UserError if a folder holds a link to a path outside of it, or a pipe, a socket or a device.

    A run's folder may come from somebody else. Evaluating the run must not read files outside of the folder,
    and resuming it must not write to them. Reading a pipe could block for ever.
    """
    root = path.resolve()
    for entry in path.rglob("*"):
        if entry.is_symlink() and not entry.resolve().is_relative_to(root):
            raise UserError(f"{entry}: points outside the run's folder")
        if entry.exists() and not (entry.is_file() or entry.is_dir()):
            raise UserError(f"{entry}: neither a file nor a folder")


def is_descent(path: Path) -> bool:
    """Whether a folder is one of bnexp-descend."""
    try:
        return bool(json.loads((path / SUMMARY).read_text(encoding="utf-8"))["kind"] == DESCENT)
    except (OSError, ValueError, LookupError, TypeError):  # other checks say what is wrong with it
        return False


def check_is_training(path: Path) -> None:
    """Raises UserError for a folder of bnexp-descend."""
    if is_descent(path):
        raise UserError(f"{path}: a descent of bnexp-descend, which trains no network")


def check_same_run(state: Mapping[str, Any], checkpoint: Path) -> None:
    """Raises UserError if a checkpoint's ``state`` was saved by another run than that of its folder.

    An older checkpoint, or one outside a run's folder, does not say.
    """
    identity = recorded_identity(checkpoint.parent.parent)
    if None not in (identity, state.get("identity")) and state["identity"] != identity:
        raise UserError(f"{checkpoint}: belongs to another run (its settings, seed, images or code differ)")


def recorded_identity(path: Path) -> str | None:
    """The ``checkpoint_identity`` of the run in folder ``path``; None if it recorded none."""
    return checkpoint_labels(path)["identity"]


def checkpoint_labels(path: Path) -> dict[str, Any]:
    """What each checkpoint of the run in folder ``path`` says of it: its identity, input and version."""
    summary: dict[str, Any] = {}
    with suppress(UserError):
        summary = load_summary(path)
    keys = {"identity": "checkpoint_identity", "input": "input", "version": "version"}
    return {label: summary.get(key) for label, key in keys.items()}


def load_summary(path: Path) -> dict[str, Any]:
    """The summary of the run in folder ``path``.

    Raises UserError if it is missing or damaged, or if ``check_inside`` refuses the folder.
    """
    check_inside(path)
    try:
        summary = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: not a run folder ({SUMMARY}: {error.strerror})") from None
    except ValueError as error:
        raise UserError(one_line(f"{path / SUMMARY}: damaged ({error})")) from None
    if not isinstance(summary, dict) or "status" not in summary:
        raise UserError(f"{path / SUMMARY}: damaged (no status in it)")
    for key, types in SUMMARY_TYPES.items():
        if not isinstance(summary.get(key), (*types, type(None))):
            raise UserError(one_line(f"{path / SUMMARY}: damaged ({key}: {summary[key]!r})"))
    return summary
