"""``${oc.env:NAME}`` in the arguments of a command becomes the variable's value, as in the shell.

The run's folder then holds the value: later commands read the same one, whatever their environment is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bnexp.config.overrides import quote_value, split_override
from bnexp.errors import UserError, one_line

VARIABLE = re.compile(r"(?<!\\)\$\{\s*oc\.env\s*:[^{}]*\}")  # one that holds no other interpolation
PLAIN = re.compile(r"[\w./+,-]+", re.ASCII)  # Hydra reads it without quotes


def insert_environment(arguments: Sequence[str]) -> list[str]:
    """The arguments with the values of ``${oc.env:NAME}`` and ``${oc.env:NAME,default}``.

    They are inserted as text. An argument whose whole value is one variable gets quotes where it needs them.
    A default that holds another interpolation, as ``${seed}``, stays. Raises UserError for a variable that is
    not set and has no default.
    """
    return [text if text.startswith("-") else _insert(text) for text in arguments]


def interpolation_error(error: OmegaConfBaseException, key: str = "config") -> UserError:
    """For an interpolation that cannot be resolved; ``key`` is its key if the error names none."""
    name = _unset_variable(error)
    reason = str(error.msg or error).splitlines()[0]  # the lines below it repeat the key
    reason = f"the environment variable {name} is not set" if name else reason
    return UserError(one_line(f"{error.full_key or key}: {reason}"))


def _unset_variable(error: OmegaConfBaseException) -> str | None:
    match = re.search(r"Environment variable '(.*)' not found", str(error))
    return match[1] if match else None


def _insert(override: str) -> str:
    key, value = split_override(override)
    text = VARIABLE.sub(lambda match: _evaluate(match[0], override), value)
    if VARIABLE.fullmatch(value) and not PLAIN.fullmatch(text):
        text = quote_value(text)
    return f"{key}={text}" if "=" in override else override


def _evaluate(interpolation: str, override: str) -> str:
    try:
        value = OmegaConf.create({"value": interpolation}).value
    except OmegaConfBaseException as error:
        if (name := _unset_variable(error)) is None:
            raise UserError(f"{override}: {one_line(str(error).splitlines()[0])}") from None
        hint = f"set it, or write ${{oc.env:{name},VALUE}}"
        raise UserError(f"{override}: the environment variable {name} is not set; {hint}") from None
    return "null" if value is None else str(value)
