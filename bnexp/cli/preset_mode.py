"""A preset that is a sweep has ``hydra.mode: MULTIRUN`` in its file; Hydra 1.4 does not read it there."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bnexp.config.overrides import split_override

MODE = "hydra.mode"
SWEEP_FLAGS = ("-m", "--multirun", "-sc", "--shell-completion")


def with_mode_of_preset(arguments: Sequence[str]) -> list[str]:
    """The arguments, with ``hydra.mode=MULTIRUN`` at their end where the chosen experiment is a sweep."""
    keys = [split_override(argument)[0] for argument in arguments]
    if MODE in keys or set(SWEEP_FLAGS) & set(arguments):
        return list(arguments)
    names = [split_override(argument)[1] for argument in arguments if argument.startswith("experiment=")]
    modes = [mode for text in _texts(names[-1], arguments) if (mode := _mode(text))] if names else []
    return [*arguments, f"{MODE}={modes[0]}"] if modes else list(arguments)


def _texts(preset: str, arguments: Sequence[str]) -> Iterator[str]:
    """The files of that name: in the folders of --config-dir, then bnexp's own."""
    folders: list[Any] = [Path(folder) for folder in _config_dirs(arguments)]
    for folder in [*folders, importlib.resources.files("bnexp.conf")]:
        with suppress(OSError, ValueError):
            yield (folder / "experiment" / f"{preset}.yaml").read_text(encoding="utf-8")


def _config_dirs(arguments: Sequence[str]) -> Iterator[str]:
    flags = ("--config-dir", "-cd")
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        flag, equals, value = argument.partition("=")
        if flag in flags:
            yield value if equals else following


def _mode(text: str) -> str | None:
    import yaml

    try:
        values = yaml.safe_load(text)
        return str(values["hydra"]["mode"])
    except (yaml.YAMLError, LookupError, TypeError):
        return None
