"""Entry points of the console commands.

This file imports nothing of bnexp at its top, so that Ctrl-C during the imports of a command is one line too.
"""

from __future__ import annotations

import importlib
import os
import sys


def _fix_hashes() -> None:
    """Starts Python once more, with the same hashes of texts as every other process of bnexp.

    Python draws them at its start. The order of a set of names follows from them, and where a user's own
    network makes its layers in this order, so do its weights. Windows cannot replace a process.
    """
    if os.name == "posix" and "PYTHONHASHSEED" not in os.environ:
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _run_command(module: str, *, runs_own_code: bool = False) -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        print("bnexp: the current folder has been deleted; change to another one", file=sys.stderr)
        sys.exit(2)
    if runs_own_code:
        _fix_hashes()
    try:
        main = importlib.import_module(f"bnexp.{module}").main
    except KeyboardInterrupt:
        print("bnexp: interrupted (SIGINT)", file=sys.stderr)
        sys.exit(130)
    main()


def train() -> None:
    _run_command("train", runs_own_code=True)


def evaluate() -> None:
    _run_command("evaluate", runs_own_code=True)


def compare() -> None:
    _run_command("compare")


def plan() -> None:
    _run_command("plan")


def resume() -> None:
    _run_command("resume", runs_own_code=True)


def watch() -> None:
    _run_command("watch")


def list_results() -> None:
    _run_command("list_results")


def descend() -> None:
    _run_command("descend")
