"""The folder of ``--config-dir``: groups and presets of the user's own."""

from __future__ import annotations

from pathlib import Path

from bnexp.cli.help import CONF
from bnexp.errors import UserError


def check_config_dir(folder: Path) -> None:
    """Raises UserError for a file that has the name of one of bnexp's and other content.

    Hydra reads bnexp's own file then, and the user's settings have no effect.
    """
    for shipped in sorted(CONF.rglob("*.yaml")):
        path = folder / shipped.relative_to(CONF)
        if path.is_file() and path.read_bytes() != shipped.read_bytes():
            raise UserError(
                f"--config-dir {folder}: {shipped.relative_to(CONF)} has the name of a file of bnexp, which"
                " is read instead; give it another name"
            )
