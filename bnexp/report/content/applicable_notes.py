"""Notes and methods that apply to one verdict. What it does not use is not explained."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bnexp.report.analysis.group_comparison import repetition_noun
from bnexp.report.analysis.repeated_looks import AnyLooks, PlannedLooks
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.footnotes import METHODS, looks_note, sign_flip_result, table_notes
from bnexp.report.content.table import mark_legend


def legend_notes(verdict: Verdict) -> list[str]:
    """The notes that belong under the table: its marks and columns, earlier looks, what limits it."""
    notes = [mark_legend(verdict), looks_note(verdict), *verdict.notes]
    return [note for note in notes if note]


def check_notes(verdict: Verdict) -> list[str]:
    """The other notes: the checks of the verdict, and what its intervals cover."""
    shown = legend_notes(verdict)
    return [*(note for note in table_notes(verdict) if note not in shown), interval_note(verdict)]


def all_notes(verdict: Verdict) -> list[str]:
    """All notes in the order in which they are printed."""
    return [*table_notes(verdict), interval_note(verdict)]


def interval_note(verdict: Verdict) -> str:
    """What the intervals cover. The adjusted p is explained only where several tests are adjusted."""
    noun = repetition_noun(verdict.runs)
    runs = "training seeds" if noun == "seeds" else noun
    note = (
        f"The interval covers the mean over {runs}, on this train and test set, configuration and hardware; "
        "not new data."
    )
    if verdict.family < 2:
        return note
    return f"{note} Intervals are pointwise 95 %: one may leave out 0 while the adjusted p is above .05."


def applicable_methods(verdict: Verdict) -> dict[str, str]:
    """The methods that this verdict uses, by name."""
    names = set(_method_names(verdict))
    return {name: text for name, text in METHODS.items() if name in names}


def _method_names(verdict: Verdict) -> Iterator[str]:
    if verdict.family > 1:
        yield "family"
    if isinstance(verdict.test, PlannedLooks):
        yield "planned looks"
    if isinstance(verdict.test, AnyLooks):
        yield "other looks"
    if any(summary.lost_runs for summary in verdict.summaries):
        yield "lost"
    for c in verdict.comparisons:
        if c.difference.n:
            yield "paired" if c.is_paired else "unpaired"
        if not math.isnan(c.stability.p):
            yield "stability"
        if sign_flip_result(c, verdict.family):
            yield "sign flips"
        if not math.isnan(c.noise_floor):
            yield "noise floor"
        if c.outcome == "leaning":
            yield "leaning"
        if c.delta is not None:
            yield "equivalence"
        if c.plan is not None:
            yield "seeds to go"
        if not math.isnan(c.difference.standardised):
            yield "standardised"
