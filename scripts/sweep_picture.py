"""Draws the picture of a sweep that runs: python scripts/sweep_picture.py SWEEP docs/images/sweep.svg

The picture is one look of the live view: the newest ended jobs, the running ones and the counts.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from rich.console import Console

from bnexp.cli.exit_codes import exit_code
from bnexp.files import write_text
from bnexp.sweeps.progress.status import SweepReader
from bnexp.sweeps.progress.view import ended_line, render_status

WIDTH, HEIGHT, ENDED_LINES = 84, 24, 8


def draw(sweep: Path, picture: Path) -> None:
    status = SweepReader(sweep).read()
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
    ended = sorted((job for job in status.jobs if job.has_ended), key=lambda job: job.changed)
    for job in ended[-ENDED_LINES:]:
        console.print(ended_line(job))
    console.print(render_status(status, WIDTH - 1, HEIGHT))
    write_text(picture, console.export_svg(title="bnexp-watch"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    sys.exit(exit_code(lambda: draw(args.sweep, args.picture)))


if __name__ == "__main__":
    main()
