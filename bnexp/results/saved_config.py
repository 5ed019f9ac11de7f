"""The configuration that a run has saved, read without running code of the folder's author."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bnexp.cli import composed_config
from bnexp.config.schema import COMPONENTS, Config, parse
from bnexp.config.trust import check_target
from bnexp.errors import UserError, describe
from bnexp.runs.summary import check_is_training, load_summary


def read_values(run: Path) -> dict[str, Any]:
    """The saved configuration as plain values, interpolations resolved.

    ``dataset.root`` is the folder that it was for the run, where that still exists. Raises UserError if the
    configuration is damaged, or has other values than those of the run.
    """
    saved, values = _resolve(run)
    composed_config.check_as_recorded(run, load_summary(run), saved, values)
    return values


def _resolve(run: Path) -> tuple[DictConfig, dict[str, Any]]:
    """The saved configuration as it stands in its file, and its values."""
    load_summary(run)
    check_is_training(run)
    try:
        saved: Any = OmegaConf.load(run / ".hydra" / "config.yaml")
        hydra = OmegaConf.load(run / ".hydra" / "hydra.yaml").hydra
        # Hydra is not running: ${hydra:...} is read from the file that it saved.
        OmegaConf.register_new_resolver("hydra", lambda key: OmegaConf.select(hydra, key), replace=True)
        values = composed_config.resolve_config(saved)
        root = values["dataset"]["root"]
        if root is not None and Path(hydra.runtime.cwd, root).exists():
            values["dataset"]["root"] = str(Path(hydra.runtime.cwd, root))
    except UserError as error:
        raise UserError(f"{run / '.hydra' / 'config.yaml'}: {error}") from None
    except Exception as error:
        reason = describe(error)
        raise UserError(f"{run / '.hydra'}: the run's configuration cannot be read ({reason})") from error
    return saved, values


def load_config(run: Path, device: str | None, trusted_targets: Collection[str]) -> Config:
    """The checked configuration saved in the run's folder, on ``device`` if that is given.

    Raises UserError where it cannot be read, has other values than those of the run, or names a ``_target_``
    that is not allowed.
    """
    saved, values = _resolve(run)
    config = parse(values)
    for group in COMPONENTS:
        check_target(f"{group}._target_", getattr(config, group).target, trusted_targets)
    composed_config.check_as_recorded(run, load_summary(run), saved, values)
    if device is None:
        return config
    return parse(values | {"device": values["device"] | {"name": device}})
