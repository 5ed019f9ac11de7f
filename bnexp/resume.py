"""``bnexp-resume DIR``: the same command again into the same folder, going on with what is unfinished."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf

from bnexp import train
from bnexp.cli import argument_parser, exit_codes
from bnexp.cli.help import GROUPS
from bnexp.config.trust import check_target
from bnexp.errors import UserError, one_line
from bnexp.runs.folder import check_inside

# Hydra's keys that only say where and how many at once. Any other can name what is run.
CHOICES = r"[\w\s,()*-]*"  # names of a group's choices: no path, which could lead to any YAML file
HARMLESS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.mode", "hydra/launcher", "hydra.launcher.n_jobs")


def words_of(folder: Path, more: list[str], trusted: Collection[str]) -> list[str]:
    """The command line that goes on with a run's or a sweep's folder, as Hydra saved it there.

    ``more`` overrides replace those of the same key; where either has several values, as axes of a sweep
    do, they are added: what the sweep has not finished is still among its jobs. Raises UserError where the
    folder is none, and where it names code that is neither bnexp's nor torch's nor ``trusted``.
    """
    sweep, run = folder / "multirun.yaml", folder / ".hydra" / "hydra.yaml"
    if not sweep.exists() and not run.exists():
        raise UserError(f"{folder}: neither a run's folder (no .hydra) nor a sweep's (no multirun.yaml)")
    check_inside(folder)
    try:
        loaded = OmegaConf.load(sweep if sweep.exists() else run)
        saved: Any = OmegaConf.to_container(loaded, resolve=False)  # an override may hold an interpolation
        saved = saved["hydra"]
        words = [str(word) for word in (*saved["overrides"]["hydra"], *saved["overrides"]["task"])]
        named = saved["runtime"]["config_sources"]
        sources = [str(source["path"]) for source in named if source["provider"] == "command-line"]
        overrides = OverridesParser.create().parse_overrides(words)
    except Exception as error:
        raise UserError(f"{folder}: what Hydra saved cannot be read ({one_line(error)})") from error
    for override, word in zip(overrides, words, strict=True):
        _check_word(override, word, trusted)
    for path in sources:
        if path not in trusted:
            raise UserError(f"--config-dir {path}: its YAML files may name code; --trust {path} reads them")
    place = "sweep" if sweep.exists() else "run"
    replaced = {_key(word) for word in more} | {f"hydra.{place}.dir", "hydra.mode"}
    kept = [word for word in words if _key(word) not in replaced]
    if sweep.exists():
        axes = [f"{key}={values}" for key, values in (saved["sweeper"].get("params") or {}).items()]
        more = [_added([*axes, *words], word) for word in more]
    flags = ["-m"] if sweep.exists() else []
    flags += [word for path in sources for word in ("--config-dir", path)]
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return [*flags, *kept, *more, f"hydra.{place}.dir='{quoted}'"]


def _added(words: list[str], word: str) -> str:
    """``word`` with the values that its key has had, if it or they are several."""
    before = next((old for old in reversed(words) if _key(old) == _key(word)), None)
    parser = OverridesParser.create()
    try:
        both = parser.parse_overrides([word] if before is None else [before, word])
    except OverrideParseException:
        return word  # Hydra says what is wrong with it
    if not any(override.is_sweep_override() for override in both):
        return word
    values = [value for override in both for value in _values(override)]
    return f"{word.partition('=')[0]}={','.join(dict.fromkeys(values))}"


def _values(override: Override) -> list[str]:
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_string_iterator()]
    return [override.get_value_element_as_str()]


def _check_word(override: Any, word: str, trusted: Collection[str]) -> None:
    key = override.key_or_group
    if word in trusted:
        return
    if (key.startswith("hydra") and key not in HARMLESS) or str(override.package or "").startswith("hydra"):
        raise UserError(f"{word}: a key of Hydra's that may run code; --trust '{word}' lets it")
    group = key in GROUPS or "/" in key or override.package is not None
    if group and not re.fullmatch(CHOICES, word.partition("=")[2]):
        raise UserError(f"{word}: not the name of a choice, and may name code; --trust '{word}' lets it")
    if key.endswith("._target_"):
        for target in word.partition("=")[2].split(","):
            check_target(key, target.strip("'\" "), trusted)
    elif "_target_" in word:
        raise UserError(f"{word}: names code inside a value; --trust '{word}' lets it run")


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def arguments() -> argparse.Namespace:
    parser = argument_parser.ArgumentParser(
        prog="bnexp-resume",
        description="Carries on what is unfinished in a run's or a sweep's folder, as if it had never"
        " stopped. A run takes more epochs (epochs=20), a sweep more jobs ('seed=range(10)').",
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument(
        "words", nargs="*", metavar="key=value", help="instead of what the folder says; an axis gets longer"
    )
    parser.add_argument(
        "--trust", action="append", default=[], metavar="WORD",
        help="a _target_, an override of Hydra's or a --config-dir of the folder that may be used",
    )  # fmt: skip
    return parser.parse_args()


def main() -> None:
    def prepare() -> None:
        words = arguments()
        sys.argv[1:] = words_of(words.folder, words.words, words.trust)

    before = sys.argv[1:]
    code = exit_codes.exit_code(prepare)
    if code or sys.argv[1:] == before:  # a mistake, or --help
        sys.exit(code)
    train.main()


if __name__ == "__main__":
    main()
