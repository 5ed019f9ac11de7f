"""A run's folder: what a run writes into it, and which folders it may take. Imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bnexp import __version__
from bnexp.errors import UserError
from bnexp.files import write_bytes, write_json
from bnexp.runs.confusion import CONFUSION_FILE
from bnexp.runs.environment import ENVIRONMENT, describe_environment, read_environment, recorded_threads
from bnexp.runs.identity import can_resume, checkpoint_identity, config_hash, describe_changes
from bnexp.runs.lock import LOCK
from bnexp.runs.summary import SUMMARY, load_summary

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
        self._previous_files = {
            file: file.read_bytes()
            for file in (path / SUMMARY, path / ENVIRONMENT, *(path / ".hydra").glob("*.yaml"))
            if self.previous_summary is not None and file.is_file()
        }
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
            # Whether the checkpoint gave the results again; None: not yet checked, or no need to.
            "reproduced": (self.previous_summary or {}).get("reproduced"),
            "best": None,
            "final": {},
            "probes": {},  # the probes of this run, each with the reason why it failed, or null
            "predictions": {},  # the number of test images given to each class, at the best and final epoch
            "time": {},
            "error": None,
        }
        if (replicas := (self.previous_summary or {}).get("fused")) is not None:
            self.summary["fused"] = replicas  # a part of this run was trained together with other seeds

    @property
    def has_checkpoints(self) -> bool:
        folder = self.path / "checkpoints"
        return folder.is_dir() and not _is_empty(folder)

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

    def restore(self) -> None:
        """Gives a run that was not resumed after all the settings, environment and summary it had before."""
        for file, content in self._previous_files.items():
            write_bytes(file, content)

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
