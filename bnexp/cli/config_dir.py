"""The folder of ``--config-dir``: groups and presets of the user's own."""

from __future__ import annotations

from pathlib import Path

from bnexp.cli.hydra_commands import HydraCommand
from bnexp.errors import UserError


def check_config_dir(folder: Path, command: HydraCommand) -> None:
    """Raises UserError for a file that has the name of one of bnexp's and other content.

    Hydra reads bnexp's own file then, and the user's settings have no effect.
    """
    names = {file.relative_to(root): file for root in command.folders for file in root.rglob("*.yaml")}
    for name, shipped in sorted(names.items()):
        path = folder / name
        if path.is_file() and path.read_bytes() != shipped.read_bytes():
            raise UserError(
                f"--config-dir {folder}: {name} has the name of a file of bnexp, which"
                " is read instead; give it another name"
            )
