"""The curves of a sweep as Markdown tables: python scripts/figures.py SWEEP --table test/accuracy

One row for each group: mean ± standard deviation over its runs, epoch by epoch. Runs of one group differ in
nothing but the seed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bnexp.cli.exit_codes import exit_code
from bnexp.report.analysis.statistical_tests import mean_sd
from bnexp.report.analysis.verdict import Verdict, compare
from bnexp.report.read.runs import read_runs


def curve_table(verdict: Verdict, tag: str) -> str:
    """Mean ± sd of ``tag`` in each group, at the epochs that all of the group's runs have logged."""
    rows = []
    for summary in verdict.summaries:
        curves = [run.curves[tag] for run in summary.group.runs if run.curves.get(tag)]
        cells = ["{:.4f} ± {:.4f}".format(*mean_sd(values)) for values in zip(*curves, strict=False)]
        rows.append(f"| {summary.group.name} | {len(curves)} | " + " | ".join(cells) + " |")
    epochs = range(1, 1 + max((row.count("±") for row in rows), default=0))
    head = [f"| {tag} | n | " + " | ".join(map(str, epochs)) + " |", "|---|---|" + "---|" * len(epochs)]
    return "\n".join(head + rows)


def print_tables(sweep: Path, tags: list[str]) -> None:
    verdict = compare(*read_runs([sweep]))
    for tag in tags:
        print(curve_table(verdict, tag), end="\n\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--table", action="append", required=True, metavar="TAG")
    args = parser.parse_args()
    sys.exit(exit_code(lambda: print_tables(args.sweep, args.table)))


if __name__ == "__main__":
    main()
