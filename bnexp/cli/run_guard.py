"""Refuses to write into a folder with another run or with other files, before Hydra creates anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from bnexp.cli.composed_config import (
    check_as_recorded,
    fingerprints_of,
    identity_values,
    output_folder,
    resolve_config,
    resolved_value,
    typed_overrides,
)
from bnexp.cli.exit_codes import exit_code
from bnexp.compute import torchrun
from bnexp.config.overrides import check_deletions, flatten, override_key
from bnexp.config.schema import check_name, parse
from bnexp.errors import UserError
from bnexp.runs.folder import is_free, missing_folders
from bnexp.runs.identity import RUN_LENGTH_KEYS, can_resume, describe_changes, experiment
from bnexp.runs.lock import lock_folder
from bnexp.runs.summary import SUMMARY, check_inside, check_is_training, load_summary


class RunGuard(Callback):
    """Hydra calls it before it creates the folder of a single run.

    It ends the process where the folder holds files that bnexp did not write, another run, or the same run,
    finished.
    """

    new_folders: ClassVar[list[Path]] = []  # the folders that Hydra creates after this callback
    has_checked: ClassVar[bool] = False

    @classmethod
    def is_passed(cls) -> bool:
        """Whether it has checked the folder of the run that begins now: a preset can remove this callback."""
        has_checked, cls.has_checked = cls.has_checked, False
        return has_checked

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        HydraConfig.instance().set_config(config)  # Hydra does so only later; the folder's name needs it now
        secondary = torchrun.is_secondary()  # another process checks the folder, creates it and prints
        code = 0 if secondary else exit_code(lambda: _check(config))
        if code:
            sys.exit(code)  # Hydra turns an exception of a callback into a warning, but not SystemExit
        folder = _run_folder(config)
        RunGuard.new_folders = [] if secondary else missing_folders(folder)
        if (folder / SUMMARY).exists() and _is_finished(folder, config):
            if not secondary:
                print(f"{folder}: this run is finished; nothing to do")
            sys.exit(0)
        RunGuard.has_checked = True


def _is_finished(folder: Path, config: DictConfig) -> bool:
    """Whether the run in ``folder`` has had all its epochs; ``_check`` compared the other keys before."""
    summary, values = load_summary(folder), identity_values(config)
    patience = values["early_stopping"]["patience"]
    is_longer = summary["epochs"] != values["epochs"] or summary.get("patience", patience) != patience
    return summary["status"] == "finished" and not is_longer


def _check(config: DictConfig) -> None:
    """Raises UserError for a mistake in the configuration, before a folder is created.

    Also where the folder holds foreign files, another run, or a run that is being written.
    """
    check_name(str(resolved_value(config, "name")))
    folder = _run_folder(config)
    try:
        free = is_free(folder)
    except OSError as error:
        raise UserError(f"hydra.run.dir={folder}: cannot be read ({error.strerror})") from None
    if not free:
        raise UserError(f"hydra.run.dir={folder}: holds files but no run of bnexp; choose another folder")
    keys = [str(key) for key in config if key != "hydra"]
    parse(resolve_config(OmegaConf.masked_copy(config, keys)))
    check_deletions(typed_overrides(config, "task"))
    _check_no_axes(config)
    if (folder / SUMMARY).exists():
        check_is_training(folder)
        _check_can_resume(folder, identity_values(config))


def _check_no_axes(config: DictConfig) -> None:
    """Raises UserError for a preset with axes, of which a single run would train none."""
    typed = {override_key(override) for override in typed_overrides(config, "task")}
    axes = [str(key) for key in config.hydra.sweeper.get("params") or {} if key not in typed]
    if axes:
        preset = config.hydra.runtime.choices.get("experiment")
        raise UserError(f"experiment={preset}: its axes ({', '.join(axes)}) are a sweep; add -m")


def _run_folder(config: DictConfig) -> Path:
    """The folder that the run is written to.

    A secondary process of torchrun has a temporary folder of its own. The run's folder is then the one that
    the command line names before it, if it names one.
    """
    if torchrun.is_secondary():
        overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.hydra))
        folders = [override.value() for override in overrides if override.key_or_group == "hydra.run.dir"]
        if len(folders) > 1:
            return Path(str(folders[-2]))
    return output_folder(config, "hydra.run.dir")


def _check_can_resume(folder: Path, values: dict[str, Any]) -> None:
    """Raises UserError where the folder holds another run, or where another process is writing it."""
    check_inside(folder)
    with lock_folder(folder):
        summary = load_summary(folder)
    root = values["dataset"].get("root")
    if values["dataset"].get("name") == "image_folder" and root and not Path(str(root)).expanduser().exists():
        raise UserError(f"dataset.root={root}: there is no such folder; dataset.root=DIR names its new place")
    fingerprints = fingerprints_of(values)
    if not can_resume(summary, values, fingerprints):
        if changes := describe_changes(summary, values, fingerprints):
            raise UserError(f"hydra.run.dir={folder}: {changes}; choose another folder")
        raise UserError(f"hydra.run.dir={folder}: holds a run with {_differences(folder, summary, values)}")
    derived_keys = [key for key in RUN_LENGTH_KEYS if values["scheduler"].get(key, "") is None]
    if summary["epochs"] != values["epochs"] and derived_keys:
        raise UserError(
            f"epochs={values['epochs']}: the learning rates of this run were planned for"
            f" {summary['epochs']} epochs (scheduler.{derived_keys[0]}=null takes its value from epochs);"
            " start a new run in another folder"
        )


def _differences(folder: Path, summary: dict[str, Any], values: dict[str, Any]) -> str:
    """The keys in which ``values`` differ from the configuration that is saved in a run's folder.

    Raises UserError where that one no longer has the values of the run.
    """
    try:
        composed: Any = OmegaConf.load(folder / ".hydra" / "config.yaml")
        saved = identity_values(composed)
        check_as_recorded(folder, summary, composed, saved)
    except UserError:
        raise
    except Exception:  # an unreadable configuration; the hash already differs
        return "another configuration; choose another folder"
    old, new = flatten(experiment(saved)), flatten(experiment(values))
    keys = [key for key in [*old, *(new.keys() - old.keys())] if old.get(key) != new.get(key)]
    listing = ", ".join(f"{key}={old.get(key)} (here {new.get(key)})" for key in keys[:4])
    remainder = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
    return f"{listing or 'another configuration'}{remainder}; choose another folder"
