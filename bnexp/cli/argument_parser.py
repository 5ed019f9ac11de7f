"""The argument parser of all commands but ``bnexp`` itself."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from bnexp.config.overrides import split_override
from bnexp.errors import UserError, nearest_match, one_line


class ArgumentParser(argparse.ArgumentParser):
    """Reports a wrong argument as a UserError of one line that names the nearest flag."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        flags = self._option_string_actions
        names = (split_override(argument)[0] for argument in sys.argv[1:] if argument.startswith("--"))
        unknown = next((name for name in names if name not in flags), "")
        nearest = nearest_match(unknown, flags)
        hint = f"; did you mean {nearest}?" if nearest else ""
        text = message.removeprefix("argument ")
        raise UserError(one_line(f"{text}{hint} ({self.prog} --help lists all)"))


def named_path(text: str) -> Path:
    """A path. Refuses an empty one, which an unset shell variable gives: it would be the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} must name a file or folder")
    return Path(text)


def named_folder(text: str) -> Path:
    """A path of a folder, which may be missing; refuses a file."""
    path = named_path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} must name a folder, but is a file")
    return path
