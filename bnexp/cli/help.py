"""--help, read from the YAML groups: their files are the choices, their comments the words on each key."""

from __future__ import annotations

import importlib.resources
import re
import textwrap
from pathlib import Path

CONF = Path(str(importlib.resources.files("bnexp.conf")))
GROUPS = ("model", "dataset", "optimizer", "scheduler", "loss", "device", "experiment")
DEFAULTS = dict(re.findall(r"^  - (\w+): (\w+)$", (CONF / "config.yaml").read_text(), re.MULTILINE))
LINE = re.compile(r"^( *)([A-Za-z_]\w*):(?: (.*?))?(?:\s+# (.*))?$")

EXAMPLES = """\
  bnexp                                                     a first run on embedded data
  bnexp model=conv_bn dataset=mnist epochs=5                one network on MNIST
  bnexp model=resnet model.norm=group dataset=cifar10 'dataset.augment=[flip,crop]'
  bnexp -m model=conv,conv_bn dataset=mnist seed=0,1,2,3,4  a sweep, ending in a verdict
  bnexp -m experiment=mnist_mlp model.norm=none,batch seed=0,1,2
"""


def choices(group: str) -> list[str]:
    """The names a group can be set to."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def help_text() -> str:
    """The whole page."""
    parts = [
        "bnexp: does this normalisation, optimiser or learning rate help, and how sure are we?",
        "usage: bnexp [-m] [group=choice ...] [key=value ...]",
        f"examples:\n{EXAMPLES.rstrip()}",
        f"keys:\n{_keys(CONF / 'config.yaml')}",
    ]
    for group in GROUPS:
        names = choices(group)
        shown = ", ".join(f"{name} (default)" if name == DEFAULTS.get(group) else name for name in names)
        parts.append(_wrap(f"{group}: ", shown) + _group_keys(group, names))
    parts.append(
        "A key that is not listed takes a plus: +model.width=64. Lists: 'model.hidden=[200,200]'.\n"
        "-m runs every combination of comma-separated values. --cfg job prints the configuration and ends.\n"
        '--config-dir DIR adds groups of your own. Shell completion: eval "$(bnexp -sc install=bash)".\n'
        "Other commands: bnexp-compare DIR..., bnexp-eval RUN_DIR, bnexp-plan, bnexp-resume DIR.\n"
        "Hydra's own flags: bnexp --hydra-help."
    )
    return "\n\n".join(parts)


def _group_keys(group: str, names: list[str]) -> str:
    """Each key of a group once, as the default choice has it or else the first that does."""
    if group == "experiment":
        lines = []
        for name in names:
            first = (CONF / group / f"{name}.yaml").read_text().splitlines()[1]
            lines.append(_wrap(f"  {name:<38} ", first.lstrip("# ")))
        return "\n" + "\n".join(lines)
    found: dict[str, tuple[str, str]] = {}
    owners: dict[str, list[str]] = {}
    names = sorted(names, key=lambda name: name != DEFAULTS.get(group))
    bases = [name for name in names if name != "none" and not _inherits(CONF / group / f"{name}.yaml")]
    for name in bases:
        for key, explained in _explained(CONF / group / f"{name}.yaml").items():
            found.setdefault(key, explained)
            owners.setdefault(key, []).append(name)
    bases = [name for name in bases if name != "custom"]
    lines = []
    for key, (value, words) in found.items():
        only = "" if set(owners[key]) >= set(bases) else f" [{', '.join(owners[key])}]"
        lines.append(_row(f"{group}.{key}", value, words + only + _otherwise(group, names, key, value)))
    return ("\n" if lines else "") + "\n".join(lines)


def _otherwise(group: str, names: list[str], key: str, value: str) -> str:
    """The other values that a group's choices give a key."""
    found: dict[str, list[str]] = {}
    for name in names:
        theirs = _value(CONF / group / f"{name}.yaml", key)
        if theirs not in (value, None):
            found.setdefault(str(theirs), []).append(name)
    return "".join(f"; {other} in {', '.join(names)}" for other, names in found.items())


def _value(path: Path, key: str) -> str | None:
    """What a file gives a key, or the file it inherits from."""
    text = path.read_text()
    if match := re.search(rf"^{key}: (.*?)(?:\s+#.*)?$", text, re.MULTILINE):
        return match[1]
    base = re.match(r"defaults: \[(\w+)", text)
    return _value(path.with_stem(base[1]), key) if base else None


def _inherits(path: Path) -> bool:
    return path.read_text().startswith("defaults: [")


def _keys(path: Path) -> str:
    return "\n".join(_row(key, value, words) for key, (value, words) in _explained(path).items())


def _explained(path: Path) -> dict[str, tuple[str, str]]:
    """Every key that a file gives with a comment: its default and the comment."""
    found: dict[str, tuple[str, str]] = {}
    parents: list[str] = []
    for line in path.read_text().splitlines():
        if match := LINE.match(line):
            indent, name, value, words = len(match[1]) // 2, match[2], match[3], match[4]
            parents = [*parents[:indent], name]
            if words and value is not None and name != "_target_":
                found[".".join(parents)] = (value, words)
    return found


def _row(key: str, value: str, words: str) -> str:
    shown = value if len(value) <= 14 else "..."
    return _wrap(f"  {key + '=' + shown:<38} ", words)


def _wrap(start: str, text: str) -> str:
    indent = " " * min(len(start), 41)
    return textwrap.fill(start + text, width=100, subsequent_indent=indent, break_on_hyphens=False)
