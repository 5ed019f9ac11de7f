"""Notes and methods that apply to one verdict. What it does not use is not explained."""

from __future__ import annotations

import math

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
    """The methods that this verdict uses, by name; one without a condition here is always shown."""
    applies = _conditions(verdict)
    return {name: text for name, text in METHODS.items() if applies.get(name, True)}


def _conditions(verdict: Verdict) -> dict[str, bool]:
    """For each method, whether a number of this verdict comes from it."""
    comparisons = verdict.comparisons
    tested = [c for c in comparisons if c.difference.n]
    return {
        "paired": any(c.is_paired for c in tested),
        "unpaired": any(not c.is_paired for c in tested),
        "stability": any(not math.isnan(c.stability.p) for c in comparisons),
        "sign flips": any(sign_flip_result(c, verdict.family) for c in comparisons),
        "family": verdict.family > 1,
        "planned looks": isinstance(verdict.test, PlannedLooks),
        "other looks": isinstance(verdict.test, AnyLooks),
        "noise floor": any(not math.isnan(c.noise_floor) for c in comparisons),
        "balanced accuracy": any(
            "balanced_accuracy" in name for s in verdict.summaries for name in s.secondary
        ),
        "leaning": any(c.outcome == "leaning" for c in comparisons),
        "equivalence": any(c.delta is not None for c in comparisons),
        "published value": verdict.published is not None,
        "lost": any(summary.lost_runs for summary in verdict.summaries),
        "seeds to go": any(c.plan is not None for c in comparisons),
        "standardised": any(not math.isnan(c.difference.standardised) for c in comparisons),
    }
