"""Curves of a sweep and, with --table TAG, the same epoch by epoch: python scripts/figures.py SWEEP --out PNG

Groups are what differs between the runs other than the seed; --table test/accuracy prints a row a group in
Markdown, mean ± sd over its finished seeds. bnexp-compare SWEEP --output DIR draws all there is to draw.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bnexp.cli import exit_code
from bnexp.errors import UserError
from bnexp.report.collect import collect
from bnexp.report.plots import pictures
from bnexp.report.statistics import mean_sd
from bnexp.report.verdict import Comparison, compare


def table(comparison: Comparison, tag: str) -> str:
    """A row a group: mean ± sd of ``tag`` over the seeds at each epoch that all of them logged."""
    rows = []
    for row in comparison.rows:
        curves = [run.curves[tag] for run in row.group.runs if run.curves.get(tag)]
        cells = ["{:.4f} ± {:.4f}".format(*mean_sd(values)) for values in zip(*curves, strict=False)]
        rows.append(f"| {row.group.name} | {len(curves)} | " + " | ".join(cells) + " |")
    epochs = range(1, 1 + max((row.count("±") for row in rows), default=0))
    head = [f"| {tag} | n | " + " | ".join(map(str, epochs)) + " |", "|---|---|" + "---|" * len(epochs)]
    return "\n".join(head + rows)


def draw(words: argparse.Namespace) -> None:
    comparison = compare(*collect([words.sweep]))
    for tag in words.table:
        print(table(comparison, tag), end="\n\n")
    if words.out:
        curves = next((one for one in pictures(comparison) if one.name == "curves"), None)
        if curves is None:
            raise UserError(f"{words.sweep}: no curves to draw")
        curves.figure.set_layout_engine("constrained")  # makes room for the title
        curves.figure.suptitle(words.title)
        with words.out.open("wb") as file:
            curves.write_png(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", action="append", default=[], metavar="TAG")
    parser.add_argument("--title", default="")
    words = parser.parse_args()
    sys.exit(exit_code(lambda: draw(words)))


if __name__ == "__main__":
    main()
