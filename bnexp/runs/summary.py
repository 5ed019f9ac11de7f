"""summary.json of a run: what other commands read, and its checks. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bnexp.errors import UserError, one_line

SUMMARY = "summary.json"
# What a resumed run, bnexp-eval and bnexp-compare read; None and a missing key are allowed.
SUMMARY_TYPES: dict[str, tuple[type, ...]] = {
    "status": (str,), "config_hash": (str,), "fingerprints": (dict,), "files": (dict,), "overrides": (list,),
    "choices": (dict,), "epochs": (int,), "patience": (int,), "seed": (int,), "graph": (bool,),
    "best": (dict,), "final": (dict,), "predictions": (dict,), "probes": (dict,), "time": (dict,),
    "input": (dict,), "version": (str,), "reproduced": (bool,),
}  # fmt: skip
DESCENT = "descent"  # the ``kind`` in the summary.json of bnexp-descend; a run of training has none


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
