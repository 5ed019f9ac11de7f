"""What a reader must know besides the sentences: legend, checks, looks, scope of the intervals, methods."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bnexp.report.analysis.group_comparison import MIN_CORRELATED, GroupComparison
from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.notes import MAX_GROUPS
from bnexp.report.analysis.repeated_looks import AnyLooks, PlannedLooks
from bnexp.report.analysis.statistical_tests import sign_flip_min_n
from bnexp.report.analysis.verdict import MIN_TESTED, Verdict
from bnexp.report.content.numbers import p_is
from bnexp.report.content.table import mark_legend
from bnexp.report.read.looks import looks_at

METHODS = {
    "paired": "paired t test on differences by seed and fold, two-sided",
    "unpaired": "Welch's t test over all runs, where less than half of the seeds are shared",
    "stability": "mid-p McNemar test on twins (Fagerland et al. 2013), Fisher's exact test on unpaired runs",
    "sign flips": "all 2^n sign patterns, above 20 pairs a sample of 20,000; p times the number of tests",
    "family": "Holm (1979) over all tests of this table, alpha 0.05; what cannot be tested does not count",
    "planned looks": (
        "seed=auto: paired t test at each planned number of seeds; p is the probability, without a "
        "difference, that the smallest p of all looks is as small; the interval holds at all looks at once "
        "(Jennison and Turnbull 2000, chapter 9)"
    ),
    "other looks": (
        "seeds added after a look: anytime-valid t test, mixture with g = 1 (Wang and Ramdas 2025); lost "
        "runs by a mixture e-value"
    ),
    "noise floor": (
        "below 5 runs: 1.96 sqrt((err_A + err_B) / (2 N)) sqrt(1 - r) / sqrt(n) with N test images "
        "(Jordan 2023) and twins that correlate by r"
    ),
    "balanced accuracy": (
        "the mean over the classes of the share of their test images that are recognised (recall); given "
        "where the largest class has at least 1.5 times the images of the smallest; in its noise floor N is "
        "K^2 / sum(1 / n_k) for K classes of n_k images"
    ),
    "leaning": (
        "below 20 runs: accuracy jumps from epoch to epoch by 2.5 times what it differs between runs (by 4.3 "
        "times for a mean of epochs, 10 times for a validation-chosen one), or one run is an outlier "
        "(Grubbs 1950, .001)"
    ),
    "equivalence": "two one-sided tests (90 % interval within delta), Holm over all groups",
    "lost": (
        "loss not finite; or at chance: no better than the largest class, or almost one class predicted "
        "(other classes at most 5 % as often as they occur)"
    ),
    "published value": "one-sample t test; reproduced: 90 % interval within delta of it",
    "seeds to go": "80 % power, with the observed deviation and with its upper 80 % limit",
    "standardised": (
        "mean / sd of the differences; unpaired: mean / sqrt((sd_A^2 + sd_B^2) / 2) (Cohen 1988); JSON only"
    ),
}


def table_notes(verdict: Verdict) -> list[str]:
    """The notes about the rows of the table and about this data."""
    notes = [
        mark_legend(verdict),
        _correlation_note(verdict),
        _sign_flip_note(verdict),
        *_target_notes(verdict),
        looks_note(verdict),
        *verdict.notes,
    ]
    return [note for note in notes if note]


def sign_flip_result(c: GroupComparison, family: int) -> str:
    """p of the sign-flip test, adjusted for all comparisons, or why it cannot reach .05; "" if not tested."""
    n, needed = c.difference.n, sign_flip_min_n(family)
    if not c.is_paired or n < MIN_TESTED or c.outcome in ("identical", "constant"):
        return ""
    if n < needed:
        return f"cannot reach .05 with {n} {c.noun} (needs {needed})"
    return p_is(min(1.0, c.sign_flip_p * family))


def looks_note(verdict: Verdict) -> str:
    """The planned looks, or the earlier ones at these very groups: each adds a chance of a false alarm."""
    if isinstance(verdict.test, PlannedLooks):
        planned = ", ".join(map(str, verdict.test.looks))
        return f"p and interval hold at all planned looks together (at {planned} seeds)."
    looks = looks_at(verdict.looks, {summary.group.name for summary in verdict.summaries})
    if not isinstance(verdict.test, AnyLooks):
        return ""
    if len(looks) < 2:
        return "Not at a planned look: p and interval are those that hold at any look."
    earlier = ", ".join(map(str, looks[:-1]))
    return f"Look {len(looks)}, unplanned (before: {earlier} runs a group): p and interval hold at any look."


def _correlation_note(verdict: Verdict) -> str:
    """How far the twins correlate, from 8 pairs on: only then is pairing worth fewer seeds."""
    texts = [
        f"{c.candidate.group.name} {c.correlation:.2f} ({low:.2f} to {high:.2f})"
        for c in verdict.comparisons
        if len(c.pairs) >= MIN_CORRELATED and not math.isnan(c.correlation)
        for low, high in [c.correlation_interval]
    ]
    if not texts or len(verdict.summaries) > MAX_GROUPS:
        return ""
    return f"correlation of the twins, 95 % interval: {', '.join(texts)}"


def _sign_flip_note(verdict: Verdict) -> str:
    """The sign-flip p of each group; where too few seeds leave none, the reason of the smallest group."""
    results = [
        (c.candidate.group.name, result)
        for c in verdict.comparisons
        if (result := sign_flip_result(c, verdict.family))
    ]
    texts = [f"{name} {result}" for name, result in results if result.startswith("p ")]
    if results and not texts:
        texts = [results[0][1]]
    return f"check by sign flips: {', '.join(texts)}" if texts and len(texts) <= MAX_GROUPS else ""


def _target_notes(verdict: Verdict) -> Iterator[str]:
    """For each block, how many runs of each group reached the target accuracy, and when."""
    if len(verdict.summaries) > MAX_GROUPS:
        return
    for block, summaries in verdict.blocks.items():
        texts = [text for summary in summaries if (text := _target_text(summary, verdict))]
        target = next((summary.target for summary in summaries if summary.target), None)
        if target:
            prefix = f"{block}: " if block else ""
            goal = f"{target.split} accuracy {100 * target.accuracy:.1f} %"
            yield f"{prefix}{goal} reached (in training time): {'; '.join(texts)}"


def _target_text(summary: GroupSummary, verdict: Verdict) -> str:
    target = summary.target
    if target is None:
        return ""
    value = summary.group.value or "all"
    # The key stands before a value such as 0.1, which would read as one of the numbers behind it.
    name = f"{verdict.grouping.title}={value}" if value[0].isdigit() else value
    if math.isinf(target.epochs):
        time = f">{max(run.epochs for run in summary.group.runs)} epochs"
    else:
        seconds = "" if math.isnan(target.seconds) else f", {target.seconds:.1f} s"
        time = f"epoch {target.epochs:g}{seconds}"
    return f"{name} {target.count} of {target.runs}, {time}"
