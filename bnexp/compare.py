"""``bnexp-compare DIR...``: prints the verdict over any runs and sweeps and, with --output, writes it.

``bnexp-compare --diff RUN RUN`` prints the keys in which two runs differ.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from bnexp.cli import exit_codes
from bnexp.cli.argument_parser import ArgumentParser, named_folder, named_path
from bnexp.errors import UserError, bad_value
from bnexp.report.analysis.epoch_rule import RULES
from bnexp.report.analysis.group_summary import DEFAULT_METRIC
from bnexp.runs.summary import SUMMARY
from bnexp.sweeps.plan_file import is_sweep


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(
        prog="bnexp-compare",
        description="Which group of runs is better, by how much and how sure: over any runs and sweeps.",
    )
    parser.add_argument(
        "folders",
        nargs="+",
        type=named_folder,
        metavar="DIR",
        help="a run, a sweep, or any folder above",
    )
    parser.add_argument(
        "--by", metavar="KEY", help="the key to compare, as model.norm; default: what differs"
    )
    parser.add_argument("--metric", metavar="M", help=f"a final metric; default {DEFAULT_METRIC}")
    parser.add_argument(
        "--epoch",
        choices=RULES,
        help="whose accuracy to compare: best (the epoch that validation chose), mean (the last 30 %% of the"
        " epochs), final; default: the runs' own report.epoch",
    )
    parser.add_argument("--baseline", metavar="NAME", help="the group that the others are compared with")
    parser.add_argument(
        "--target", type=float, metavar="ACC", help="an accuracy, 0 to 1: report when each group reaches it"
    )
    parser.add_argument(
        "--delta",
        type=float,
        metavar="POINTS",
        help="the smallest difference that matters, in place of the runs' own dataset.delta",
    )
    parser.add_argument(
        "--published",
        type=float,
        metavar="VALUE",
        help="a published value, accuracies in percent: was it reproduced?",
    )
    parser.add_argument(
        "--output",
        type=named_path,
        metavar="DIR",
        help="write report.html, tables and pictures here",
    )
    parser.add_argument("--details", action="store_true", help="print every note as well")
    parser.add_argument(
        "--diff",
        action="store_true",
        help="only print the keys in which two runs differ: configuration, versions, device, data",
    )
    return parser.parse_args()


def run_command() -> None:
    args = parse_arguments()
    if args.diff:
        print_differences(args)
    else:
        compare_folders(args)


def print_differences(args: argparse.Namespace) -> None:
    """One line a key, ``key  A  B``; nothing where the runs agree."""
    options = {name: value for name, value in vars(args).items() if name not in ("diff", "folders")}
    others = [name for name, value in options.items() if value is not None and value is not False]
    if others:
        raise UserError(f"--diff: takes two runs and no other option; leave out --{others[0]}")
    if len(args.folders) != 2:
        raise UserError(f"--diff: takes two runs, not {len(args.folders)}: bnexp-compare --diff RUN RUN")

    from bnexp.report.content.run_differences import format_differences, run_differences

    for line in format_differences(run_differences(*args.folders)):
        print(line)


def compare_folders(args: argparse.Namespace) -> None:
    if args.target is not None and not 0 < args.target <= 1:
        raise UserError(f"--target={args.target:g}: must be above 0 and at most 1")
    if args.delta is not None and not 0 < args.delta <= 100:
        raise UserError(f"--delta={args.delta:g}: must be above 0 and at most 100 (percentage points)")

    from bnexp.report.analysis.sweep_verdict import read_evidence
    from bnexp.report.read.looks import save_looks
    from bnexp.report.read.runs import check_holds_runs
    from bnexp.report.render.terminal import print_verdict

    _check_published(args.published, args.metric or DEFAULT_METRIC)
    _check_output(args.output, args.folders)
    for folder in args.folders:
        check_holds_runs(folder)
    evidence = read_evidence(args.folders, look_folders=[args.output] if args.output else [])
    for problem in evidence.problems:
        print(f"bnexp: {problem}", file=sys.stderr)
    verdict = evidence.verdict(
        by=args.by,
        metric=args.metric or DEFAULT_METRIC,
        baseline=args.baseline,
        target=args.target,
        delta=args.delta,
        epoch=args.epoch,
        published=args.published,
        is_interim=any(not problem.used for problem in evidence.problems),  # the sweep is not complete
    )
    if len(verdict.looks) > len(evidence.looks):
        save_looks(args.folders, verdict.looks)
    for problem in verdict.problems[len(evidence.problems) :]:
        print(f"bnexp: {problem}", file=sys.stderr)
    page = None
    if args.output:
        from bnexp.report.write import write_report

        page = write_report(verdict, args.output)  # before printing, which may fail
    print_verdict(verdict, details=args.details)
    if page is not None:
        print(f"\n{page}")


def _check_published(value: float | None, metric: str) -> None:
    """Raises UserError for what no published result can be."""
    if value is None:
        return
    if not math.isfinite(value):
        raise bad_value("--published", value, "must be a finite number")
    if metric.endswith("/accuracy") and not 0 <= value <= 100:
        raise bad_value("--published", value, "must be an accuracy in percent, from 0 to 100")


def _check_output(output: Path | None, folders: list[Path]) -> None:
    """Raises UserError for a folder of a run or a sweep that is not compared, and for one inside of it."""
    if output is None:
        return
    compared, path = [folder.resolve() for folder in folders], output.resolve()
    for folder in (path, *path.parents):
        if folder in compared:
            return
        if kind := "sweep" if is_sweep(folder) else "run" if (folder / SUMMARY).is_file() else "":
            verb = "holds" if folder == path else "lies in"
            raise UserError(f"--output={output}: {verb} a {kind} that is not compared; choose another folder")


def main() -> None:
    sys.exit(exit_codes.printed_exit_code(run_command))


if __name__ == "__main__":
    main()
