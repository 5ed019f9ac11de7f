"""The text of --help, read from conf/: each file of a group is a choice, each comment explains a key."""

from __future__ import annotations

import importlib.resources
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

CONF = Path(str(importlib.resources.files("bnexp.conf")))
GROUPS = ("model", "dataset", "optimizer", "scheduler", "loss", "device", "experiment")
DEFAULTS = dict(
    re.findall(r"^  - (\w+): (\w+)$", (CONF / "config.yaml").read_text(encoding="utf-8"), re.MULTILINE)
)
LINE = re.compile(r"^( *)([A-Za-z_]\w*):(?: (.*?))?(?:\s+# (.*))?$")

EXAMPLES = """\
  bnexp                                                     a first run on embedded data
  bnexp model=conv_bn dataset=mnist epochs=5                one network on MNIST
  bnexp model=resnet model.norm=group dataset=cifar10 'dataset.augment=[flip,crop]'
  bnexp -m model=conv,conv_bn dataset=mnist seed=0,1,2,3,4  a sweep, then its verdict
  bnexp -m experiment=mnist_mlp model.norm=none,batch seed=0,1,2
"""

FOOTER = """\
To set a key that is not listed, write a plus before it: +model.width=64.
To set a list, write brackets inside quotes: 'model.hidden=[200,200]'.
[a, b] behind a key: only these choices of the group have it.
-m runs one job for each combination of comma-separated values.
--cfg job prints the configuration and runs nothing.
--config-dir DIR adds a folder with groups of your own.
Shell completion: eval "$(bnexp -sc install=bash)".
Other commands: bnexp-compare DIR..., bnexp-eval RUN_DIR, bnexp-plan, bnexp-resume DIR,
bnexp-watch DIR, bnexp-list.
Hydra's own flags: bnexp --hydra-help.\
"""


class ExplainedKey(NamedTuple):
    default: str
    explanation: str


def choices(group: str) -> list[str]:
    """The names that a group can be set to."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def help_text() -> str:
    sections = [
        "bnexp: does this normalisation, optimiser or learning rate help, and how sure are we?",
        "usage: bnexp [-m] [group=choice ...] [key=value ...]",
        f"examples:\n{EXAMPLES.rstrip()}",
        f"keys:\n{_list_keys(CONF / 'config.yaml')}",
    ]
    for group in GROUPS:
        names = choices(group)
        listing = ", ".join(f"{name} (default)" if name == DEFAULTS.get(group) else name for name in names)
        details = _list_experiments(names) if group == "experiment" else _list_group_keys(group, names)
        sections.append("\n".join([_wrap(f"{group}: ", listing), *details]))
    return "\n\n".join([*sections, FOOTER])


def _list_experiments(names: list[str]) -> list[str]:
    """One line for each experiment: the comment on the second line of its file."""
    lines = []
    for name in names:
        comment = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[1]
        lines.append(_wrap(f"  {name:<38} ", comment.lstrip("# ")))
    return lines


def _list_group_keys(group: str, names: list[str]) -> list[str]:
    """One line for each key of a group, as the default choice or else the first choice explains it."""
    keys: dict[str, ExplainedKey] = {}
    owners: dict[str, list[str]] = {}
    names = sorted(names, key=lambda name: name != DEFAULTS.get(group))
    bases = [name for name in names if name != "none" and not _inherits(CONF / group / f"{name}.yaml")]
    for name in bases:
        for key, explained_key in _explained_keys(CONF / group / f"{name}.yaml").items():
            keys.setdefault(key, explained_key)
            owners.setdefault(key, []).append(name)
    bases = [name for name in bases if name != "custom"]
    lines = []
    for key, (default, explanation) in keys.items():
        owner_list = "" if set(owners[key]) >= set(bases) else f" [{', '.join(owners[key])}]"
        text = explanation + owner_list + _list_other_defaults(group, names, key, default)
        lines.append(_format_key(f"{group}.{key}", default, text))
    return lines


def _list_other_defaults(group: str, names: list[str], key: str, default: str) -> str:
    """The other defaults that a key has in the choices of its group: ``; 0.001 in adam, adamw``."""
    choices_by_value: dict[str, list[str]] = {}
    for name in names:
        value = _default(CONF / group / f"{name}.yaml", key)
        if value not in (default, None):
            choices_by_value.setdefault(str(value), []).append(name)
    return "".join(f"; {value} in {', '.join(names)}" for value, names in choices_by_value.items())


def _default(path: Path, key: str) -> str | None:
    """The value of a key in a file, or in the file that it inherits from."""
    text = path.read_text(encoding="utf-8")
    if match := re.search(rf"^{key}: (.*?)(?:\s+#.*)?$", text, re.MULTILINE):
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
