"""Draws a verdict as in a terminal: python scripts/verdict_picture.py SWEEP docs/images/verdict.svg"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from bnexp.cli.exit_codes import exit_code
from bnexp.files import write_text
from bnexp.report.analysis.sweep_verdict import read_evidence
from bnexp.report.render.terminal import styled_lines

WIDTH = 82


def draw(sweep: Path, picture: Path, command: str) -> None:
    console = Console(record=True, width=WIDTH + 2, file=io.StringIO(), force_terminal=True, highlight=False)
    if command:
        console.print(Text(f"$ {command}", style="bold"), soft_wrap=True)
        console.print()
    for text, style in styled_lines(read_evidence([sweep]).verdict(), WIDTH):
        console.print(Text(text, style=style), soft_wrap=True)
    write_text(picture, console.export_svg(title="bnexp"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--command", default="", help="the command line above the verdict")
    args = parser.parse_args()
    sys.exit(exit_code(lambda: draw(args.sweep, args.picture, args.command)))


if __name__ == "__main__":
    main()
