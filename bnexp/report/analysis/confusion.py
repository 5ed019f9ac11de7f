"""The mean confusion matrix of a group: which classes its networks take for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.runs.confusion import class_sizes

Pair = tuple[str, str]  # the true and the predicted class


@dataclass(frozen=True)
class MeanConfusion:
    """``shares``: percent of the true class's test images, the mean over ``n`` runs; no entry means 0."""

    classes: tuple[str, ...]
    shares: Mapping[Pair, float]
    n: int

    @property
    def mistakes(self) -> dict[Pair, float]:
        """The shares off the diagonal."""
        return {pair: share for pair, share in self.shares.items() if pair[0] != pair[1]}


def mean_confusion(summary: GroupSummary) -> MeanConfusion | None:
    """Of the usable runs, at the compared epoch; None where none of them has recorded it."""
    epoch = compared_epoch(summary)
    confusions = [run.confusion[epoch] for run in summary.usable_runs if run.confusion.get(epoch)]
    if not confusions:
        return None
    images: Counter[Pair] = Counter()
    for confusion in confusions:
        images.update(confusion)
    sizes = class_sizes(images)
    classes = dict.fromkeys([*sizes, *(prediction for _, prediction in images)])
    shares = {pair: 100 * count / sizes[pair[0]] for pair, count in images.items()}
    return MeanConfusion(tuple(classes), shares, len(confusions))


def compared_epoch(summary: GroupSummary) -> str:
    """The recorded epoch that the verdict's rule is nearest to: the best one, or the final one."""
    return "best" if summary.rule == "best" else "final"


def largest_confusions(confusions: Sequence[MeanConfusion], count: int) -> list[Pair]:
    """The pairs of classes that some group confuses most often, the most frequent first."""
    largest: dict[Pair, float] = {}
    for confusion in confusions:
        for pair, share in confusion.mistakes.items():
            largest[pair] = max(share, largest.get(pair, 0.0))
    return sorted(largest, key=lambda pair: -largest[pair])[:count]
