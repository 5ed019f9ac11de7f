"""The folder of ``--config-dir``: groups and presets of the user's own."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path

from bnexp.cli.hydra_commands import HydraCommand
from bnexp.config.overrides import override_values
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


def check_chosen_files(folder: Path, overrides: Sequence[str]) -> None:
    """Raises UserError for a chosen file without keys, and for one whose ``# @package`` Hydra does not see.

    Hydra would read the first as no settings at all. In the second, a byte order mark comes before the line.
    """
    for group, value in override_values(overrides).items():
        for choice in value.split(","):
            path = folder / group / f"{choice}.yaml"
            content = path.read_bytes() if path.is_file() else b"key"
            first_line, *_ = lines = content.splitlines() or [b""]
            if first_line.startswith(codecs.BOM_UTF8) and b"@package" in first_line:
                raise UserError(f"{path}: begins with a byte order mark; save it as UTF-8 without one")
            if all(not line.strip() or line.lstrip().startswith((b"#", b"---")) for line in lines):
                raise UserError(f"{path}: holds no keys, so {group}={choice} has no effect")
