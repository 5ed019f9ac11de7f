"""The flags of a command that Hydra configures: they go before the overrides, and an unknown one is told."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from bnexp.cli.config_dir import check_chosen_files, check_config_dir
from bnexp.cli.hydra_commands import TRAIN, HydraCommand
from bnexp.cli.key_names import all_keys
from bnexp.config.overrides import split_override
from bnexp.errors import UserError, nearest_match, one_line


def put_flags_first(arguments: list[str], command: HydraCommand = TRAIN) -> list[str]:
    """The same arguments with the flags in front: Hydra's own parser fails at flags between overrides.

    Raises UserError for an unknown flag.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        if message.startswith("argument "):  # the flag exists; its value is wrong or missing
            raise UserError(one_line(message.removeprefix("argument ")))
        flag = message.rpartition(": ")[2].split()[0]
        flags = [*parser._option_string_actions, "--version"]
        hint = _hint_for_flag(flag, flags, command)
        reason = message.partition(":")[0]
        raise UserError(one_line(f"{flag}: {reason}{hint} ({command.name} --help lists all)"))

    parser.error = refuse  # type: ignore[method-assign]
    parsed = parser.parse_intermixed_args(arguments)
    _check_flags(parsed, command)
    if parsed.config_dir is not None and not parsed.config_dir.strip():
        raise UserError(f"--config-dir {parsed.config_dir!r}: must name a folder")
    if parsed.config_dir is not None:
        check_config_dir(Path(parsed.config_dir), command)
        check_chosen_files(Path(parsed.config_dir), parsed.overrides)
    overrides = list(parsed.overrides)
    flags = list(arguments)
    for override in overrides:
        flags.remove(override)
    if parsed.hydra_help:
        return ["--hydra-help"]  # Hydra composes no configuration that could take an override
    if flags[-1:] in (["--info"], ["-i"]):
        flags[-1] = "--info=all"  # Hydra's own parser would take an override for its value
    return [*flags, *overrides]


def _check_flags(parsed: Namespace, command: HydraCommand) -> None:
    """Raises UserError for a flag without effect, one that replaces bnexp's configuration, and one that takes
    away the check of a run's folder."""
    for flag in ("config_path", "config_name"):
        if getattr(parsed, flag):
            raise UserError(f"--{flag.replace('_', '-')}: {command.name} does not take this flag of Hydra's")
    if parsed.package and not parsed.cfg:
        raise UserError(f"--package {parsed.package}: no effect without --cfg")
    for override in parsed.overrides:
        if re.match(r"[+~]*hydra\.callbacks(\.run\b|=|$)", override):
            raise UserError(f"{override}: it protects the folders of other runs; leave this key out")


def _hint_for_flag(flag: str, flags: list[str], command: HydraCommand) -> str:
    """Proposes a key with the flag's name, else the nearest flag, else the nearest key."""
    name = split_override(flag.lstrip("-"))[0].replace("-", "_")
    keys = all_keys({}, command)
    if name not in keys and (nearest_flag := nearest_match(flag, flags)):
        return f"; did you mean {nearest_flag}?"
    nearest_key = nearest_match(name, keys)
    return f"; keys have no dashes: {nearest_key}=..." if nearest_key else ""
