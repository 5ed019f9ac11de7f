"""One descent, or several with their ranking: run, printed, and written into their folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bnexp.descent.outcome import judge
from bnexp.descent.path import Descent, DescentPath
from bnexp.descent.ranking import Arm, rank, ranking_lines, seconds_per_epoch
from bnexp.descent.record import by_hand_difference, write_descent, write_failure, write_ranking
from bnexp.descent.regression import Regression
from bnexp.descent.settings import parse
from bnexp.errors import UserError
from bnexp.runs.job import Job
from bnexp.signals import StopSignal

MAX_COORDINATES = 3  # a point with more is printed without them


def prepare(jobs: Sequence[Job]) -> list[Descent]:
    """The descents, ready to start. Raises UserError for the first mistake in a configuration."""
    return [Descent(parse(job.values)) for job in jobs]


def descend_one(job: Job, descent: Descent, stop: StopSignal) -> None:
    """Raises UserError where a step cannot be taken; there is no folder then."""
    path = descent.run(stop)
    arm = Arm(job.values["name"], descent.config, path, judge(path, descent.config.tolerance))
    write_descent(job, arm)
    for line in describe(arm):
        print(line)
    print(os.path.relpath(job.path / "path.png"))


def descend_and_rank(
    jobs: Sequence[Job], descents: Sequence[Descent], folder: Path, stop: StopSignal
) -> list[str]:
    """Returns a line for each descent that could not take its steps. Raises UserError if none could."""
    arms: dict[str, Arm] = {}  # by the job's folder
    failures: dict[str, str] = {}
    for job, descent in zip(jobs, descents, strict=True):
        if stop.received is not None:
            break
        try:
            path = descent.run(stop)
        except UserError as error:
            failures[job.folder] = str(error)
            continue
        outcome = judge(path, descent.config.tolerance)
        arms[job.folder] = Arm(short_label(job), descent.config, path, outcome, job.path.name)
    if not arms:
        raise UserError(next(iter(failures.values()))) if failures else stop.interrupted()
    for job in jobs:
        if job.folder in arms:
            write_descent(job, arms[job.folder])
        elif job.folder in failures:
            write_failure(job, failures[job.folder])
    lines = [_failure_line(job, failures[job.folder]) for job in jobs if job.folder in failures]
    write_ranking(folder, list(arms.values()), lines, stop.received is not None)
    _print_ranking(list(arms.values()))
    for line in lines:
        print(f"bnexp: {line}", file=sys.stderr)
    for picture in sorted(folder.glob("paths*.png")):
        print(os.path.relpath(picture))
    return lines


def _print_ranking(arms: Sequence[Arm]) -> None:
    for function, group in rank(arms).items():
        for line in ranking_lines(function, group, group[0].config.tolerance):
            print(line)


def _failure_line(job: Job, error: str) -> str:
    label = short_label(job)
    return f"{label}: {error.removeprefix(f'{label}: ')}"


def short_label(job: Job) -> str:
    """The settings that distinguish a descent, without those of the function, which stands above them."""
    settings = [
        f"{key.rpartition('.')[2]}={value}"
        for key, value in job.hparams.items()
        if key.partition(".")[0] != "function"
    ]
    return " ".join(settings) or str(job.values["name"])


def describe(arm: Arm) -> list[str]:
    """The result of one descent in a few lines."""
    path, outcome, last = arm.path, arm.outcome, arm.path.last
    names = path.objective.variables
    coordinates = ", ".join(f"{name}={x:.5g}" for name, x in zip(names, last.point, strict=True))
    place = coordinates if len(names) <= MAX_COORDINATES else f"{len(names)} variables"
    parts = [
        f"{place} after {last.step} steps",
        f"value {last.value:.5g}",
        f"gradient {last.gradient_norm:.3g}",
    ]
    if outcome.distance is not None:
        parts.append(f"{outcome.distance:.3g} from the minimum")
    lines = [f"{arm.label}: {' | '.join(parts)}", outcome.sentence]
    if isinstance(path.objective, Regression):
        lines.append(f"{seconds_per_epoch(path):.2g} s an epoch{_by_hand_note(path)}")
    return lines


def _by_hand_note(path: DescentPath) -> str:
    difference = by_hand_difference(path)
    if difference is None or path.by_hand is None:
        return ""
    seconds = path.by_hand.seconds / path.rows[-1].epoch
    return (
        f"; by hand, with numpy, {seconds:.2g} s and the same weights (largest difference {difference:.1g})"
    )
