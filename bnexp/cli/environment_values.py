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

QUOTED = r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\""""
# One that holds no other interpolation. Behind a backslash it would be text.
VARIABLE = re.compile(rf"(?<!\\)\$\{{\s*oc\.env\s*:(?:{QUOTED.replace('^', '^$')}|[^${{}}'\"])*\}}")
PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")  # Hydra reads it as one value without quotes


def insert_environment(arguments: Sequence[str]) -> list[str]:
    """The arguments with the values of ``${oc.env:NAME}`` and ``${oc.env:NAME,default}``.

    A value is one value: one with a comma or a space is quoted. A default that holds another interpolation,
    as ``${seed}``, stays. Raises UserError for a variable that is not set and has no default.
    """
    return [text if text.startswith("-") else _insert(text) for text in arguments]


def interpolation_error(error: OmegaConfBaseException, key: str = "config") -> UserError:
    """For an interpolation of a YAML file that cannot be resolved. ``key`` is used if the error names none."""
    name = _unset_variable(error)
    reason = str(error.msg or error).splitlines()[0]  # the lines below it repeat the key
    reason = f"the environment variable {name} is not set" if name else reason
    return UserError(one_line(f"{error.full_key or key}: {reason}"))


def _unset_variable(error: OmegaConfBaseException) -> str | None:
    match = re.search(r"Environment variable '(.*)' not found", str(error))
    return match[1] if match else None


def _insert(override: str) -> str:
    key, value = split_override(override)
    while match := VARIABLE.search(value):
        before, after = value[: match.start()], value[match.end() :]
        text = _evaluate(match[0], override)
        is_inside = _is_inside_interpolation(before)
        if is_inside:
            text = quote_value(text)
        unquoted = re.sub(QUOTED, "", before)
        if quote := next((character for character in unquoted if character in "'\""), ""):
            text = re.sub(rf"(\\*){quote}", rf"\1\1\\{quote}", text)
        elif not is_inside and not PLAIN.fullmatch(text):
            if re.search(r"[^\s,\[({:]\s*$", before) or re.match(r"\s*[^\s,\])}]", after):
                if re.search(r"[\\'\",\[\](){}]", re.sub(r"\$\{[^{}]*\}", "", value)):
                    raise UserError(
                        one_line(f"{override}: {text!r} needs quotes around the text it is part of")
                    )
                value = f"'{value}'"
                continue
            text = quote_value(text)
        value = f"{before}{text}{after}"
    return f"{key}={value}" if "=" in override else override


def _is_inside_interpolation(text: str) -> bool:
    """Whether a ``${`` of ``text`` is still open at its end."""
    open_braces: list[str] = []
    for brace in re.findall(r"\$?\{|\}", re.sub(QUOTED, "", text)):
        if brace != "}":
            open_braces.append(brace)
        elif open_braces:
            open_braces.pop()
    return "${" in open_braces


def _evaluate(interpolation: str, override: str) -> str:
    try:
        value = OmegaConf.create({"value": interpolation}).value
    except OmegaConfBaseException as error:
        if (name := _unset_variable(error)) is None:
            raise UserError(f"{override}: {one_line(str(error).splitlines()[0])}") from None
        hint = f"set it, or write ${{oc.env:{name},VALUE}}"
        raise UserError(f"{override}: the environment variable {name} is not set; {hint}") from None
    if value is None:
        return "null"
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", str(value))  # the value of a variable holds no interpolation
