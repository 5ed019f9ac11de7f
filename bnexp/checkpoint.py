"""Checkpoints: written whole or not at all, read without running anything that is in them."""

from __future__ import annotations

import os
import pickle
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from bnexp.errors import UserError, one_line
from bnexp.files import write_atomically


def save(state: dict[str, Any], path: Path) -> None:
    """Writes ``state`` (tensors, numbers, texts, lists and dictionaries of them) to ``path`` atomically."""
    write_atomically(path, lambda file: torch.save(state, file))


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What ``save`` wrote. Only tensors and plain values are read: a pickle in disguise is refused.

    Raises UserError where the file is missing or damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of odd pickles, which fail anyway
            state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such checkpoint") from None
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = one_line(error).split(". ")[0][:160]
        raise UserError(f"{path}: not a checkpoint that can be read ({reason})") from None
    if not isinstance(state, dict) or "model" not in state:
        raise UserError(f"{path}: not a checkpoint of bnexp (it holds no model)")
    return state


class Checkpoints:
    """checkpoints/last.pt every so many epochs, best.pt, and the ``keep`` newest of the older ones."""

    def __init__(self, folder: Path, *, every: int, keep: int) -> None:
        self.folder, self.every, self.keep = folder, every, keep
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, state: dict[str, Any], epoch: int, *, best: bool, final: bool) -> None:
        """Saves the state after ``epoch`` where it is due: as last, as best, as both."""
        last_path, best_path = self.folder / "last.pt", self.folder / "best.pt"
        due = final or epoch % self.every == 0
        if due:
            save(state, last_path)
            if self.keep:
                self._link(last_path, self.folder / f"epoch-{epoch}.pt")
                self._drop_old()
        if best and due:
            self._link(last_path, best_path)
        elif best:
            save(state, best_path)

    def _link(self, source: Path, target: Path) -> None:
        """``target`` becomes another name for ``source``'s bytes: last.pt is replaced, never rewritten."""
        temporary = target.with_name(f".{target.name}.part")
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)

    def _drop_old(self) -> None:
        numbered = sorted(self.folder.glob("epoch-*.pt"), key=lambda path: int(path.stem.split("-")[1]))
        for path in numbered[: -self.keep]:
            path.unlink()
