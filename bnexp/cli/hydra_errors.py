"""Hydra's and OmegaConf's errors as one line in bnexp's form."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bnexp.cli.help import GROUPS, choices
from bnexp.errors import (
    UserError,
    bad_choice,
    nearest_match,
    one_line,
    unknown_key,
)

# The extra of bnexp that brings each launcher.
EXTRAS = {
    "joblib": "parallel",
    "submitit_local": "slurm",
    "submitit_slurm": "slurm",
    "slurm": "slurm",
    "ray": "ray",
    "ray_cluster": "ray",
}


def translate_hydra_errors(entry: Callable[[], Any], arguments: list[str]) -> None:
    """Runs what composes a configuration from ``arguments``; Hydra's complaints become a UserError."""
    try:
        entry()
    except (UserError, BrokenExecutor):
        raise
    except Exception as error:  # a run's own exceptions end inside entry: this is about the command line
        raise _translate(error, arguments) from error


def check_flags(arguments: list[str]) -> None:
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        word = message.rpartition(": ")[2].split()[0]
        key = word.lstrip("-").partition("=")[0].replace("-", "_")
        near = nearest_match(key, _all_keys({}))
        hint = f"; keys have no dashes: {near}=..." if near else ""
        raise UserError(one_line(f"{word}: {message.partition(':')[0]}{hint} (bnexp --help lists all)"))

    parser.error = refuse  # type: ignore[method-assign]
    overrides = list(parser.parse_intermixed_args(arguments).overrides)
    flags = list(arguments)
    for word in overrides:
        flags.remove(word)
    sys.argv[1:] = [*flags, *overrides]  # Hydra takes flags only before or only after its overrides


def _translate(error: Exception, arguments: list[str]) -> UserError:
    """Hydra's and OmegaConf's errors, which take several lines, as one in our form."""
    text = str(error)
    first = one_line(text.splitlines()[0]) if text else type(error).__name__
    if isinstance(error, OSError) and error.filename and not isinstance(error, HydraException):
        return UserError(f"{error.filename}: cannot be written ({error.strerror or first})")
    if match := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(match[1], arguments)
    if match := re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", text):
        if match[1] == "hydra/launcher" and match[2] in EXTRAS:
            extra = EXTRAS[match[2]]
            return UserError(
                f'hydra/launcher={match[2]}: not installed; pip install "bnexp[{extra}]" brings it'
            )
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE) or choices(match[1])
        return bad_choice(match[1], match[2], options)
    if match := re.search(r"Could not append to config\. An item is already at '([^']+)'", text):
        return UserError(f"+{match[1]}: this key exists already; write it without the plus")
    if match := re.search(r"Could not delete from config\. '?([^' ]+)'? does not exist", text):
        return _unknown_key(match[1], arguments)
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        key, _, value = match[1].partition("=")
        return UserError(
            f"{match[1]}: several values are a sweep (add -m); a list has brackets: '{key}=[{value}]'"
        )
    if isinstance(error, OverrideParseException):
        return UserError(one_line(f"{error.override}: cannot be read as key=value ({first})"))
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return UserError(f"{error.full_key}: {first}")
    cause = one_line(error.__cause__ or "")
    return UserError(f"{first} ({cause})" if cause and cause not in first else first)


def _unknown_key(key: str, arguments: list[str]) -> UserError:
    if key.startswith("hydra."):
        return UserError(f"{key}: Hydra has no such key (bnexp --cfg hydra shows those it has)")
    groups = dict(word.partition("=")[::2] for word in arguments if "=" in word)
    parent = key.rpartition(".")[0]
    inside = f"{parent}." if parent else ""
    names = _all_keys(groups)
    elsewhere = [name for name in names if name.endswith(f".{key.rpartition('.')[2]}")]
    if elsewhere:
        return UserError(f"{key}: unknown key; did you mean {' or '.join(elsewhere)}?")
    siblings = {name.removeprefix(inside) for name in names if name.startswith(inside)}
    groups_too = () if parent else GROUPS
    return unknown_key(key, {name for name in (*siblings, *groups_too) if "." not in name})


def _all_keys(groups: Mapping[str, str]) -> list[str]:
    """Every key of the configuration that the given group choices compose, dotted."""
    from hydra import compose, initialize_config_module

    known = [f"{group}={choice}" for group, choice in groups.items() if choice in choices(group)]
    GlobalHydra.instance().clear()
    with initialize_config_module("bnexp.conf", version_base="1.3"):
        composed = OmegaConf.to_container(compose("config", overrides=known), resolve=False)
    names: list[str] = []

    def walk(values: Any, path: str) -> None:
        for name, value in values.items():
            dotted = f"{path}.{name}" if path else str(name)
            names.append(dotted)
            if isinstance(value, dict):
                walk(value, dotted)

    walk(composed, "")
    return [name for name in names if not name.endswith("_target_")]
