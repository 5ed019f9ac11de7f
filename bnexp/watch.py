"""``bnexp-watch DIR``: the live view of a sweep, from any terminal and whatever launcher runs its jobs."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from bnexp.cli import argument_parser, exit_codes
from bnexp.errors import UserError
from bnexp.runs.latest import LATEST
from bnexp.signals import interruptible
from bnexp.sweeps.plan_file import is_sweep, read_plan
from bnexp.sweeps.progress.status import read_answer
from bnexp.sweeps.progress.view import SweepView, counts_text

POLL_S = 0.1
OUTPUTS = Path("outputs")


def watch_sweep(folder: Path) -> None:
    """Shows the sweep until it has ended; then its counts and, where it is written, its answer.

    Raises UserError where the folder holds no sweep.
    """
    read_plan(folder)
    with SweepView(folder) as view:
        while view.status is None or not view.status.has_ended:
            if not folder.is_dir():
                raise UserError(f"{folder}: this folder was removed")
            time.sleep(POLL_S)
    if view.is_live:
        print(counts_text(view.status))
        if answer := read_answer(folder):
            print(answer)


def newest_sweep() -> Path:
    """``outputs/latest`` where it is a sweep, else the newest sweep below ``outputs``."""
    latest = OUTPUTS / LATEST
    if is_sweep(latest):
        return Path(os.path.relpath(latest.resolve()))
    sweeps = [path for path in OUTPUTS.glob("multirun/*/*") if is_sweep(path)]
    if not sweeps:
        raise UserError(f"{OUTPUTS}: no sweep in this folder; name one: bnexp-watch DIR")
    return max(sweeps, key=lambda path: path.stat().st_mtime)


def arguments() -> argparse.Namespace:
    parser = argument_parser.ArgumentParser(
        prog="bnexp-watch",
        description="Shows how a sweep goes, until it has ended. Ctrl-C ends the watch, not the sweep.",
    )
    parser.add_argument(
        "folder", nargs="?", type=argument_parser.named_folder, metavar="DIR",
        help="a sweep's folder; default: the newest sweep",
    )  # fmt: skip
    return parser.parse_args()


def main() -> None:
    def watch() -> None:
        folder = arguments().folder or newest_sweep()
        with interruptible():
            watch_sweep(folder)

    sys.exit(exit_codes.printed_exit_code(watch))


if __name__ == "__main__":
    main()
