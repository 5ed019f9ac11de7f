"""The text of --help, read from conf/: each file of a group is a choice, each comment explains a key."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

from bnexp.cli.hydra_commands import CONF, TRAIN, HydraCommand

__all__ = ["CONF", "GROUPS", "choices", "help_text"]

GROUPS = TRAIN.groups
LINE = re.compile(r"^( *)([A-Za-z_]\w*):(?: (.*?))?(?:\s+# (.*))?$")


class ExplainedKey(NamedTuple):
    default: str
    explanation: str


def choices(group: str, command: HydraCommand = TRAIN) -> list[str]:
    """The names that a group can be set to."""
    return command.choices(group)


def help_text(command: HydraCommand = TRAIN) -> str:
    sections = [
        command.title,
        f"usage: {command.name} [-m] [group=choice ...] [key=value ...]",
        f"examples:\n{command.examples.rstrip()}",
        f"keys:\n{_list_keys(command.config_file)}",
    ]
    for group in command.groups:
        names = command.choices(group)
        default = command.defaults.get(group)
        listing = ", ".join(f"{name} (default)" if name == default else name for name in names)
        details = _list_choices(command, group) if group in command.listed else []
        if group != "experiment":
            details += _list_group_keys(command, group)
        sections.append("\n".join([_wrap(f"{group}: ", listing), *details]))
    return "\n\n".join([*sections, command.footer])


def _list_choices(command: HydraCommand, group: str) -> list[str]:
    """One line for each choice of a group: the comment on the second line of its file."""
    lines = []
    for name in command.choices(group):
        comment = command.file(group, name).read_text(encoding="utf-8").splitlines()[1]
        lines.append(_wrap(f"  {name:<38} ", comment.lstrip("# ")))
    return lines


def _list_group_keys(command: HydraCommand, group: str) -> list[str]:
    """One line for each key of a group, as the default choice or else the first choice explains it."""
    keys: dict[str, ExplainedKey] = {}
    owners: dict[str, list[str]] = {}
    names = sorted(command.choices(group), key=lambda name: name != command.defaults.get(group))
    files = {name: command.file(group, name) for name in names}
    bases = [name for name in names if name != "none" and not _inherits(files[name])]
    for name in bases:
        for key, explained_key in _explained_keys(files[name]).items():
            if group in command.listed:  # its files set keys of every group
                if not key.startswith(f"{group}."):
                    continue
                key = key.removeprefix(f"{group}.")
            keys.setdefault(key, explained_key)
            owners.setdefault(key, []).append(name)
    bases = [name for name in bases if name != "custom"]
    lines = []
    for key, (default, explanation) in keys.items():
        owner_list = "" if set(owners[key]) >= set(bases) else f" [{', '.join(owners[key])}]"
        indent = "  " if group in command.listed else ""
        text = explanation + owner_list + _list_other_defaults(files, key, default, indent)
        lines.append(_format_key(f"{group}.{key}", default, text))
    return lines


def _list_other_defaults(files: dict[str, Path], key: str, default: str, indent: str) -> str:
    """The other defaults that a key has in the choices of its group: ``; 0.001 in adam, adamw``."""
    choices_by_value: dict[str, list[str]] = {}
    for name, file in files.items():
        value = _default(file, key, indent)
        if value not in (default, None):
            choices_by_value.setdefault(str(value), []).append(name)
    return "".join(f"; {value} in {', '.join(names)}" for value, names in choices_by_value.items())


def _default(path: Path, key: str, indent: str = "") -> str | None:
    """The value of a key in a file, or in the file that it inherits from."""
    text = path.read_text(encoding="utf-8")
    if match := re.search(rf"^{indent}{key}: (.*?)(?:\s+#.*)?$", text, re.MULTILINE):
        return match[1]
    base = re.match(r"defaults: \[(\w+)", text)
    return _default(path.with_stem(base[1]), key) if base else None


def _inherits(path: Path) -> bool:
    return path.read_text(encoding="utf-8").startswith("defaults: [")


def _list_keys(path: Path) -> str:
    return "\n".join(_format_key(key, *explained_key) for key, explained_key in _explained_keys(path).items())


def _explained_keys(path: Path) -> dict[str, ExplainedKey]:
    """Every key of a file that has a comment behind it."""
    keys: dict[str, ExplainedKey] = {}
    parents: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := LINE.match(line):
            indent, name, value, comment = len(match[1]) // 2, match[2], match[3], match[4]
            parents = [*parents[:indent], name]
            if comment and value is not None and name != "_target_":
                keys[".".join(parents)] = ExplainedKey(value, comment)
    return keys


def _format_key(key: str, default: str, text: str) -> str:
    default = default if len(default) <= 14 else "..."
    return _wrap(f"  {key + '=' + default:<38} ", text)


def _wrap(start: str, text: str) -> str:
    indent = " " * min(len(start), 41)
    return textwrap.fill(start + text, width=100, subsequent_indent=indent, break_on_hyphens=False)
