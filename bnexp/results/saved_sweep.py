"""The runs below a folder as a table, and the verdict over them."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from bnexp.errors import UserError
from bnexp.report.analysis.sweep_verdict import read_evidence
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.group_columns import group_columns
from bnexp.report.content.question import headline
from bnexp.report.content.run_columns import curve_columns, run_columns
from bnexp.report.content.sentences import all_sentences
from bnexp.report.content.supplements import supplements
from bnexp.report.render.markdown import render_markdown
from bnexp.results.columns import Columns
from bnexp.results.saved_run import SavedRun


class SavedSweep:
    """The runs below a folder that finished or diverged; the others are listed in ``problems``.

    Raises UserError where there is no such run.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: no such folder")
        self._evidence = read_evidence([self.folder])
        self.problems: list[str] = [str(problem) for problem in self._evidence.problems]
        if not self._evidence.runs:
            raise UserError(f"{self.folder}: no run to compare ({'; '.join(self.problems[:3])})")

    def __repr__(self) -> str:
        return f"<sweep {self.folder}: {len(self)} runs>"

    def __len__(self) -> int:
        return len(self._evidence.runs)

    @cached_property
    def runs(self) -> Columns:
        """One row a run: each key that differs, seed, final and best metrics, seconds, folder."""
        return Columns.of(run_columns(self._evidence.runs))

    @cached_property
    def curves(self) -> Columns:
        """One row for each run, epoch and metric: the keys that differ, seed, epoch, metric, value."""
        return Columns.of(curve_columns(self._evidence.runs))

    def run(self, index: int) -> SavedRun:
        """The run of a row of ``runs``."""
        return SavedRun(self._evidence.runs[index].folder)

    def verdict(
        self,
        *,
        by: str | None = None,
        metric: str = "test/accuracy",
        baseline: str | None = None,
        epoch: str | None = None,
        delta: float | None = None,
    ) -> SweepVerdict:
        """The verdict that bnexp-compare prints, whose arguments these are. It writes no file.

        Raises UserError for an unknown name and where there is nothing to compare.
        """
        is_incomplete = any(not problem.used for problem in self._evidence.problems)
        return SweepVerdict(
            self._evidence.verdict(
                by=by, metric=metric, baseline=baseline, epoch=epoch, delta=delta, is_interim=is_incomplete
            )
        )


class SweepVerdict:
    """A verdict: printed, it is the text of comparison.md, and a notebook shows it as such."""

    def __init__(self, verdict: Verdict) -> None:
        self._verdict = verdict
        self.answer: str = headline(verdict)  # the question and its answer
        self.sentences: list[str] = [*all_sentences(verdict), *supplements(verdict)]

    def __str__(self) -> str:
        return render_markdown(self._verdict)

    def __repr__(self) -> str:
        return f"<verdict: {self.answer}>"

    def _repr_markdown_(self) -> str:
        return str(self)

    @cached_property
    def groups(self) -> Columns:
        """One row a group, as in comparison.csv: settings, n, mean, sd, difference, interval, p, outcome."""
        return Columns.of(group_columns(self._verdict))

    def record(self) -> dict[str, Any]:
        """Everything, as in comparison.json."""
        from bnexp.report.render.json_export import comparison_record

        return comparison_record(self._verdict)
