"""The end of a sweep: its verdict, and a line for everything that is missing in it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bnexp.cli.exit_codes import Failure
from bnexp.errors import UserError, WriteError
from bnexp.runs.job import Job
from bnexp.runs.summary import SUMMARY, load_summary

if TYPE_CHECKING:
    from bnexp.report.analysis.verdict import Verdict

MAX_MISSING = 10  # jobs without a run that are listed one by one


def finish_sweep(folder: Path, planned: Sequence[Job], failure: Failure, messages: Sequence[str] = ()) -> int:
    """Prints and writes the verdict over a sweep's folder, then lists what failed and what is missing.

    ``failure`` is how the training of the jobs ended; ``messages`` has a line for each worker that died.
    Returns the exit code: that of ``failure``, or 1 if it is 0 and a job failed.
    """
    from bnexp.report.analysis.sweep_verdict import read_evidence

    folder = Path(os.path.relpath(folder))
    for line in failure.lines:
        print(line, file=sys.stderr)
    is_interrupted = failure.code >= 128
    evidence = read_evidence([folder])
    runs, problems = evidence.runs, evidence.problems
    failed = [f"diverged: {run.folder}: {run.error}" for run in runs if run.diverged]
    if runs or problems:
        try:
            verdict = evidence.verdict(is_interim=is_interrupted)
        except UserError as error:
            failed.append(str(error))
        else:
            failed += _report(verdict, folder)
    missing = [] if is_interrupted else _missing_jobs(folder, planned)
    for line in [*failed, *map(str, problems), *messages, *missing]:
        print(line, file=sys.stderr)
    if is_interrupted:
        print(f"carry on: bnexp-resume {shlex.quote(str(folder))}")
    is_incomplete = failed or messages or missing or any(not problem.used for problem in problems)
    return failure.code or (1 if is_incomplete else 0)


def _missing_jobs(folder: Path, planned: Sequence[Job]) -> list[str]:
    """One line for each planned job without a run in the sweep's folder, and their number."""
    hashes: set[str] = set()
    for path in folder.rglob(SUMMARY):
        with suppress(UserError):
            hashes.add(str(load_summary(path.parent).get("config_hash")))
    missing = [job for job in planned if job.config_hash not in hashes]
    if not missing:
        return []
    lines = [f"not run: {' '.join(job.overrides)}" for job in missing[:MAX_MISSING]]
    return [*lines, f"not run: {len(missing)} of {len(planned)} jobs"]


def _report(verdict: Verdict, folder: Path) -> list[str]:
    """Writes the verdict's files, then prints it. Returns what went wrong, in one line or none."""
    from bnexp.report.render.terminal import print_verdict
    from bnexp.report.write import write_report

    problems, last_line = [], ""
    try:
        last_line = f"\n{write_report(verdict, folder)}"  # first: printing may fail
    except (UserError, WriteError) as error:
        problems.append(str(error))
    print()
    print_verdict(verdict)
    if last_line:
        print(last_line)
    return problems
