"""Notes on how far a comparison can be trusted: what differs, what is left out, what is not known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from bnexp.report.analysis.group_comparison import GroupComparison
from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.groups import Grouping
from bnexp.report.analysis.sample_size import ENOUGH_SEEDS

MAX_GROUPS = 8  # of more groups, the notes give no numbers of each


def collect_notes(
    grouping: Grouping,
    summaries: Sequence[GroupSummary],
    comparisons: Sequence[GroupComparison],
    delta: float | None,
) -> tuple[str, ...]:
    """Each note once; ``delta``: the smallest difference of interest given by the user."""
    notes = [*grouping.notes]
    if delta is None:
        notes += _different_deltas(comparisons)
    notes += _different_threads(grouping, summaries)
    notes += _ended_early(summaries)
    if any(run.fold is not None for summary in summaries for run in summary.group.runs):
        notes.append(
            "folds share training images, so intervals over them are too narrow (Nadeau and Bengio 2003)"
        )
    if any(math.isnan(c.single_run_noise) and 2 < c.difference.n < ENOUGH_SEEDS for c in comparisons):
        notes.append(
            "the noise of the test set is not known for this metric or data, so no difference is compared "
            "with it"
        )
    return tuple(dict.fromkeys(notes))


def describe_not_compared(
    grouping: Grouping, summaries: Sequence[GroupSummary], comparisons: Sequence[GroupComparison]
) -> str:
    """The groups without a comparison, and why; "" where there are none."""
    compared = {id(summary) for c in comparisons for summary in (c.candidate, c.baseline)}
    names = [summary.group.name for summary in summaries if id(summary) not in compared]
    if not names or len(summaries) < 2:
        return ""
    reason = "no baseline agrees with them in every other key"
    if not grouping.by:
        reason = "nothing but the data set differs"
    return f"Not compared ({reason}): {', '.join(names)}."


def _different_deltas(comparisons: Sequence[GroupComparison]) -> Iterable[str]:
    for comparison in comparisons:
        runs = (*comparison.candidate.group.runs, *comparison.baseline.group.runs)
        deltas = sorted({run.delta for run in runs if run.delta})
        if len(deltas) > 1 and comparison.delta is not None:
            values = ", ".join(f"{delta:g}" for delta in deltas)
            yield f"runs disagree on dataset.delta ({values}): the least is used"


def _ended_early(summaries: Sequence[GroupSummary]) -> Iterable[str]:
    """How many runs had fewer epochs than ``epochs`` says."""
    counts = [(len(summary.ended_early), len(summary.group.runs)) for summary in summaries]
    ended, runs = map(sum, zip(*counts, strict=True))
    if not ended:
        return
    names = [summary.group.name for summary in summaries]
    texts = [
        f"{name} {count} of {total}" for name, (count, total) in zip(names, counts, strict=True) if count
    ]
    details = f" ({', '.join(texts)})" if ended < runs and len(texts) <= MAX_GROUPS else ""
    yield f"early_stopping.patience ended {ended} of {runs} runs before their last epoch{details}"


def _different_threads(grouping: Grouping, summaries: Sequence[GroupSummary]) -> Iterable[str]:
    """Groups of one block that ran on different numbers of CPU threads: their times are not comparable."""
    for block in grouping.blocks:
        threads = {
            summary.group.name: sorted({run.threads for run in summary.group.runs if run.threads})
            for summary in summaries
            if summary.group.block == block
        }
        if len({number for numbers in threads.values() for number in numbers}) > 1:
            texts = [f"{name} {', '.join(map(str, numbers))}" for name, numbers in threads.items() if numbers]
            yield (
                f"runs differ in CPU threads ({'; '.join(texts)}): their times are not comparable, "
                "and the last bits may differ"
            )
