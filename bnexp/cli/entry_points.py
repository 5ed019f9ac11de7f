"""Where the commands come in: Ctrl-C is one line from their first import on. Imports nothing by itself."""

from __future__ import annotations

import importlib
import sys


def _open(room: str) -> None:
    try:
        main = importlib.import_module(f"bnexp.{room}").main
    except KeyboardInterrupt:
        print("bnexp: interrupted (SIGINT)", file=sys.stderr)
        sys.exit(130)
    main()


def train() -> None:
    _open("train")


def evaluate() -> None:
    _open("evaluate")


def compare() -> None:
    _open("compare")


def plan() -> None:
    _open("plan")


def resume() -> None:
    _open("resume")
