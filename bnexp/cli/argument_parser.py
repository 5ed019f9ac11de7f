"""The argument parser of the smaller commands."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from bnexp.errors import (
    UserError,
    nearest_match,
    one_line,
)


class ArgumentParser(argparse.ArgumentParser):
    """argparse for the smaller commands, its complaints in one line like all others (a UserError)."""

    def __init__(self, **keys: Any) -> None:
        super().__init__(**keys, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        flags = self._option_string_actions
        typed = (word.partition("=")[0] for word in sys.argv[1:] if word.startswith("--"))
        near = nearest_match(next((word for word in typed if word not in flags), ""), flags)
        hint = f"; did you mean {near}?" if near else ""
        raise UserError(one_line(f"{message}{hint} ({self.prog} --help lists all)"))
