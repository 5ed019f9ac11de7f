"""What was tried to tune each group: sentences, and a table with one row for each group."""

from __future__ import annotations

from bnexp.report.analysis.settings import short_key
from bnexp.report.analysis.tuning import NEARLY_BEST, ArmTuning
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.numbers import agree


def tuned_keys(verdict: Verdict) -> str:
    """``lr``, or ``lr and weight_decay``; "" where nothing was tuned."""
    if not verdict.tuning:
        return ""
    return " and ".join(short_key(interval.name) for interval in verdict.tuning[0][1].intervals)


def tuning_sentences(verdict: Verdict) -> list[str]:
    """What every group tried, and which group's best lies at the edge of it."""
    if not verdict.tuning:
        return []
    results = [result for _, result in verdict.tuning]
    trials = sorted({len(result.trials) for result in results})
    seeds = len(results[0].trials[0].scores)
    counts = "-".join(map(str, dict.fromkeys((trials[0], trials[-1]))))
    sentences = [
        f"Each at its best {tuned_keys(verdict)}: {counts} values with {seeds} {agree(seeds, 'seeds')} each "
        "were tried on validation images; the verdict has other seeds."
    ]
    narrow = [f"{s.group.value or 'all'} ({_edges(result)})" for s, result in verdict.tuning if result.edges]
    if narrow:
        sentences.append(f"Range too narrow for {', '.join(narrow)}: a better value may lie beyond it.")
    return sentences


def _edges(result: ArmTuning) -> str:
    return ", ".join(f"{short_key(key.lstrip('+'))} at its {side} end" for key, side in result.edges)


def tuning_table(verdict: Verdict) -> tuple[list[str], list[list[str]]]:
    """The column titles; each group's chosen values, score, trials, lost runs, cost and plateau."""
    if not verdict.tuning:
        return [], []
    first = verdict.tuning[0][1].intervals[0]
    width = (
        f"{'decades' if first.is_log else 'width'} of {short_key(first.name)} within {NEARLY_BEST:g} points"
    )
    titles = ["group", f"best {tuned_keys(verdict)}", "val acc %", "trials", "runs lost", "minutes", width]
    return titles, [[summary.group.value or "all", *_cells(result)] for summary, result in verdict.tuning]


def _cells(result: ArmTuning) -> list[str]:
    return [
        ", ".join(f"{value:g}" for value in result.best.values),
        f"{result.best.score:.2f}",
        f"{len(result.trials)} x {len(result.trials[0].scores)}",
        f"{100 * result.lost_share:.0f} %",
        f"{result.seconds / 60:.1f}",
        f"{result.nearly_best_span:.2g}",
    ]
