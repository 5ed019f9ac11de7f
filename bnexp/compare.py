"""``bnexp-compare DIR...``: the verdict over any runs and sweeps, printed and, with --output, written."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from bnexp.cli import argument_parser, exit_codes
from bnexp.errors import UserError
from bnexp.report.analysis.group_summary import METRIC


def arguments() -> argparse.Namespace:
    parser = argument_parser.ArgumentParser(
        prog="bnexp-compare",
        description="Which group of runs is better, by how much and how sure: over any runs and sweeps.",
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="DIR", help="a run, a sweep, or any folder above"
    )
    parser.add_argument(
        "--by", metavar="KEY", help="the key to compare, as model.norm; default: what differs"
    )
    parser.add_argument("--metric", default=METRIC, metavar="M", help=f"a final metric; default {METRIC}")
    parser.add_argument("--baseline", metavar="NAME", help="the group that the others are held against")
    parser.add_argument("--target", type=float, metavar="ACC", help="accuracy, 0 to 1, to time the way to")
    parser.add_argument(
        "--delta",
        type=float,
        metavar="POINTS",
        help="the smallest difference that matters, in place of the runs' own dataset.delta",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="write report.html, tables and pictures here"
    )
    return parser.parse_args()


def compare() -> None:
    words = arguments()
    if words.target is not None and not 0 < words.target <= 1:
        raise UserError(f"--target={words.target:g}: must be above 0 and at most 1")
    if words.delta is not None and not words.delta > 0:
        raise UserError(f"--delta={words.delta:g}: must be above 0")

    from bnexp.report.analysis.verdict import compare
    from bnexp.report.read.looks import earlier_looks
    from bnexp.report.read.runs import read_runs
    from bnexp.report.render.terminal import print_comparison

    runs, problems = read_runs(words.folders)
    for problem in problems:
        print(f"bnexp: {problem}", file=sys.stderr)
    found = compare(
        runs, problems, by=words.by, metric=words.metric, baseline=words.baseline, target=words.target,
        delta=words.delta,
        looks=earlier_looks([*words.folders, *([words.output] if words.output else [])]),
    )  # fmt: skip
    for problem in found.problems[len(problems) :]:
        print(f"bnexp: {problem}", file=sys.stderr)
    try:
        print_comparison(found)
        sys.stdout.flush()
    except BrokenPipeError:  # piped into head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if words.output:
        from bnexp.report.write import write_report

        print(f"\n{write_report(found, words.output)}")


def main() -> None:
    sys.exit(exit_codes.exit_code(compare))


if __name__ == "__main__":
    main()
