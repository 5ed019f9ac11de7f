"""Refuses to write over the folder of another run, before Hydra creates anything."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from bnexp.cli.composed_config import config_identity, experiment_of
from bnexp.cli.exit_codes import exit_code
from bnexp.compute import torchrun
from bnexp.errors import (
    UserError,
)
from bnexp.runs.folder import SUMMARY, check_inside, load_summary, lock_folder
from bnexp.runs.identity import RUN_LENGTH_KEYS, can_resume


class RunGuard(Callback):
    """Hydra's call before it makes a single run's folder: a folder that holds a run is not written over."""

    folder_of_all: Path | None = None  # in a process of torchrun's whose own folder is another

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        HydraConfig.instance().set_config(config)  # Hydra does so a moment later; the folder's name needs it
        folder = self.folder_of_all or Path(str(config.hydra.run.dir))
        if not (folder / SUMMARY).exists():
            return
        code = 0 if torchrun.is_secondary() else exit_code(lambda: self._check(folder, experiment_of(config)))
        if code:
            sys.exit(code)  # Hydra turns a callback's exceptions into warnings, but not this
        summary = load_summary(folder)
        if summary["status"] == "finished" and summary["config_hash"] == config_identity(config):
            if not torchrun.is_secondary():
                print(f"{folder}: this run is finished; nothing to do")
            sys.exit(0)

    def _check(self, folder: Path, ours: dict[str, Any]) -> None:
        """Raises UserError where another process is at work here, or ``ours`` is another run."""
        check_inside(folder)
        with lock_folder(folder):
            summary = load_summary(folder)
        if not can_resume(summary, ours):
            raise UserError(f"hydra.run.dir={folder}: holds a run with {_differences(folder, ours)}")
        laid_out = [name for name in RUN_LENGTH_KEYS if ours["scheduler"].get(name, "") is None]
        if summary["epochs"] != ours["epochs"] and laid_out:
            raise UserError(
                f"epochs={ours['epochs']}: this run's learning rate was laid out for {summary['epochs']}"
                f" (scheduler.{laid_out[0]}=null follows epochs); begin anew in another folder"
            )


def _differences(folder: Path, ours: dict[str, Any]) -> str:
    """The keys in which ``ours`` differs from the configuration saved in a run's folder, in words."""
    try:
        saved = experiment_of(OmegaConf.load(folder / ".hydra" / "config.yaml"))  # type: ignore[arg-type]
    except Exception:  # whatever is wrong with it, the hash has already told that it is another one
        return "another configuration; choose another folder"
    there, here = _flat(saved), _flat(ours)
    keys = [key for key in [*there, *(here.keys() - there.keys())] if there.get(key) != here.get(key)]
    shown = ", ".join(f"{key}={there.get(key)} (here {here.get(key)})" for key in keys[:4])
    more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
    return f"{shown or 'another configuration'}{more}; choose another folder"


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{path}{name}.") if isinstance(value, Mapping) else {f"{path}{name}": value}
    return found
