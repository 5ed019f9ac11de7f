"""A sweep epoch by epoch, in Markdown: python scripts/figures.py SWEEP --table test/accuracy

Groups are what differs between the runs other than the seed; a row each, mean ± sd over seeds that finished.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bnexp.cli.exit_codes import exit_code
from bnexp.report.analysis.statistical_tests import mean_sd
from bnexp.report.analysis.verdict import Comparison, compare
from bnexp.report.read.runs import read_runs


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


def show(words: argparse.Namespace) -> None:
    comparison = compare(*read_runs([words.sweep]))
    for tag in words.table:
        print(table(comparison, tag), end="\n\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--table", action="append", required=True, metavar="TAG")
    words = parser.parse_args()
    sys.exit(exit_code(lambda: show(words)))


if __name__ == "__main__":
    main()
