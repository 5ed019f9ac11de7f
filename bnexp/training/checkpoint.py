"""Checkpoints: written whole or not at all, and read without running any code that is in them."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bnexp.errors import UserError, one_line
from bnexp.files import name_write_errors, write_atomically
from bnexp.runs.folder import numbered_checkpoints
from bnexp.runs.summary import check_same_run, checkpoint_labels

log = logging.getLogger(__name__)


def save(state: dict[str, Any], path: Path) -> None:
    """Writes ``state`` (tensors, numbers, strings, lists and dictionaries of them) to ``path`` atomically."""
    with name_write_errors(path.parent):
        path.parent.mkdir(exist_ok=True)  # without parents: a run's folder that was removed stays away
    write_atomically(path, lambda file: torch.save(state, file))


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads what ``save`` wrote, tensors and plain values only: any other pickled object is refused.

    Raises UserError if the file is missing, damaged, or outside its run's folder. The archive's checksums are
    compared here, because torch does not compare them.
    """
    if not path.resolve().is_relative_to(path.parent.parent.resolve()):
        raise UserError(f"{path}: points outside the run's folder")
    try:
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{damaged} is not what was written")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of unusual pickles, and they fail anyway
            state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such checkpoint") from None
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = one_line(error).split(". ")[0][:160]
        raise UserError(f"{path}: not a checkpoint that can be read ({reason})") from None
    if not isinstance(state, dict) or "model" not in state:
        raise UserError(f"{path}: not a checkpoint of bnexp (it holds no model)")
    return state


def check_layer_order(key: str, network: nn.Module, saved: Mapping[str, Any]) -> None:
    """Raises UserError where ``network`` has the tensors of a state dict in another order; ``key`` names it.

    Layers that are made in the order of a set of texts come in another order in every process. Where the
    forward pass follows it, the weights fit no longer, and the optimizer's state neither.
    """
    if not isinstance(saved, Mapping):  # no state dict: who loads it says so
        return
    names = list(network.state_dict())
    if names != list(saved) and set(names) == set(saved):
        other = next(name for name, saved_name in zip(names, saved, strict=True) if name != saved_name)
        raise UserError(
            f"{key}: its layers come in another order than in the run ({other}), so the weights do not fit;"
            " make them from a list or sorted(...), because the order of a set of texts changes from process"
            " to process"
        )


class Checkpoints:
    """last.pt every ``every`` epochs, best.pt, and the ``keep`` newest numbered ones (epoch-N.pt).

    During a run previous.pt holds the last.pt before the present one, in case last.pt gets damaged.
    """

    def __init__(self, folder: Path, *, every: int, keep: int) -> None:
        self.every, self.keep = every, keep
        self.folder, self.last, self.best = folder, folder / "last.pt", folder / "best.pt"
        self.previous = folder / "previous.pt"
        self.labels = checkpoint_labels(folder.parent)  # each checkpoint says whose it is and what it reads

    def newest(self) -> dict[str, Any] | None:
        """The newest readable state, on the CPU; None if there is none. best.pt then belongs to this state.

        Logs a warning for a damaged file. Raises UserError for a checkpoint of another run.
        """
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            try:
                state = load(path)
                self._restore_best(state["progress"], path)
            except (UserError, KeyError, TypeError) as error:
                log.warning(f"{one_line(error)}: going back to the checkpoint before it, or to the beginning")
                continue
            check_same_run(state, path)
            return state
        return None

    def _restore_best(self, progress: dict[str, Any], path: Path) -> None:
        """Makes best.pt the best checkpoint of this progress: a kill may have come before it was written.

        Raises UserError if the best checkpoint is lost.
        """
        best = progress["best"]
        if best is None:
            return
        if best["epoch"] == progress["epoch"] and not progress["current"]["steps"]:
            self._link(path, self.best)
        elif load(self.best)["progress"]["epoch"] < best["epoch"]:
            raise UserError(f"{self.best}: older than {path.name}")

    def save(self, state: dict[str, Any], epoch: int, *, best: bool, final: bool) -> None:
        """Saves the state after ``epoch``: as last if it is due, as best if it is the ``best`` so far."""
        is_due = final or epoch % self.every == 0
        if is_due:
            self.save_last(state)
            if self.keep:
                self._link(self.last, self.folder / f"epoch-{epoch}.pt")
                self._delete_old()
        if best and is_due:
            self._link(self.last, self.best)
        elif best:
            save(state | self.labels, self.best)

    def finish(self) -> None:
        """Ends the training: previous.pt is needed no longer. A kill may have come after the last save."""
        self.previous.unlink(missing_ok=True)

    def save_last(self, state: dict[str, Any]) -> None:
        """Saves ``state`` as last.pt and keeps the old last.pt as previous.pt."""
        if self.last.exists():
            self._link(self.last, self.previous)
        save(state | self.labels, self.last)

    def _link(self, source: Path, target: Path) -> None:
        """Makes ``target`` a hard link to ``source``: checkpoints are never changed in place."""
        temporary = target.with_name(f".{target.name}.part")
        with name_write_errors(target):
            temporary.unlink(missing_ok=True)
            try:
                os.link(source, temporary)
            except OSError:  # the file system has no hard links
                shutil.copyfile(source, temporary)
            os.replace(temporary, target)
            temporary.unlink(missing_ok=True)  # it stays where both names are links to one file

    def _delete_old(self) -> None:
        for path in numbered_checkpoints(self.folder)[: -self.keep]:
            path.unlink()
