"""The verdict over folders: with the planned looks of a sweep with ``seed=auto``, or without a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bnexp.report.analysis.group_comparison import DECIDED, GroupComparison
from bnexp.report.analysis.repeated_looks import AnyLooks, PairedTest, PlannedLooks
from bnexp.report.analysis.tuning import Arm, ArmTuning, tune
from bnexp.report.analysis.verdict import Verdict, compare
from bnexp.report.read.design import Design, read_design
from bnexp.report.read.looks import Look, earlier_looks
from bnexp.report.read.runs import TUNING_FOLDER, Problem, Run, read_runs


@dataclass(frozen=True)
class Evidence:
    """The runs below some folders, and all that is known of how they came about."""

    runs: list[Run]  # those that count
    problems: list[Problem]
    looks: list[Look]
    test: PairedTest | None  # None: ``compare`` chooses it
    tuning: Mapping[Arm, ArmTuning]  # what was tried for each arm

    def verdict(self, **options: Any) -> Verdict:
        """``compare`` with these ``options``. Raises UserError where there is nothing to compare."""
        return compare(
            self.runs, self.problems, looks=self.looks, test=self.test, tuning=self.tuning, **options
        )


def read_evidence(folders: Sequence[Path], *, look_folders: Sequence[Path] = ()) -> Evidence:
    """Reads every run below ``folders``; ``look_folders`` are further folders with records of looks.

    A sweep with ``seed=auto`` alone is tested by its plan. Together with other runs it is not: then its looks
    count as looks that nobody planned.
    """
    runs, problems = read_runs(folders)
    designs = [design for folder in folders if (design := read_design(folder)) is not None]
    test: PairedTest | None = None
    tuning: Mapping[Arm, ArmTuning] = {}
    if len(folders) == 1 and designs:
        (design,) = designs
        tuning = _read_tuning(folders[0], design)
        if design.reached:
            test, counting_runs = planned_test(design), design.counting_runs(runs)
            problems += [_left_out(run, design) for run in runs if run not in counting_runs]
            runs = counting_runs
    if test is None and any(design.looks for design in designs):
        test = AnyLooks()
    return Evidence(runs, problems, earlier_looks([*folders, *look_folders]), test, tuning)


def _read_tuning(sweep: Path, design: Design) -> dict[Arm, ArmTuning]:
    if design.tuning is None:
        return {}
    return tune(read_runs([sweep / TUNING_FOLDER])[0], design.tuning)


def planned_test(design: Design) -> PlannedLooks:
    return PlannedLooks(design.looks, design.reached)


def _left_out(run: Run, design: Design) -> Problem:
    if run.seed >= design.looks[-1]:
        return Problem(run.folder, f"seed {run.seed} is none of the plan")
    look = next(look for look in design.looks if look > run.seed)
    return Problem(run.folder, f"seed {run.seed} counts at the planned look at {look} seeds", used=True)


def is_open(c: GroupComparison) -> bool:
    """Whether more seeds of the plan can decide a comparison."""
    test = c.test
    if not isinstance(test, PlannedLooks) or test.reached >= test.last_seeds:
        return False
    if c.is_confounded or c.differs_in_stability or c.outcome in DECIDED:
        return False
    if c.candidate.lost_rate == c.baseline.lost_rate == 1:
        return False
    return not test.is_futile(c.difference, c.delta)


def look_at(folders: Sequence[Path], design: Design, look: int) -> tuple[Verdict, list[GroupComparison]]:
    """The verdict at a planned look, and the comparisons that need more seeds.

    Raises UserError where there is nothing to compare.
    """
    at_look = replace(design, reached=look)
    runs, problems = read_runs(folders)
    verdict = compare(
        at_look.counting_runs(runs),
        problems,
        test=planned_test(at_look),
        tuning={arm: result for folder in folders for arm, result in _read_tuning(folder, design).items()},
        is_interim=True,
    )
    return verdict, [c for c in verdict.comparisons if is_open(c)]
