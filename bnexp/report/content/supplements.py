"""Sentences beside the comparisons: the best rate, the final epoch, early stopping, groups still learning."""

from __future__ import annotations

import math

from bnexp.report.analysis.balanced import METRIC as BALANCED
from bnexp.report.analysis.balanced import balanced_accuracy_of
from bnexp.report.analysis.best_blocks import BestBlockComparison
from bnexp.report.analysis.group_comparison import GroupComparison, Outcome, notable_gain
from bnexp.report.analysis.verdict import MIN_TESTED, Verdict
from bnexp.report.content.numbers import level, p_is, points, size, unit
from bnexp.report.content.published import published_sentences
from bnexp.report.content.tuning import tuning_sentences
from bnexp.report.measurements.collect import measurements

MAX_FINAL = 6  # more groups are not listed in one sentence
CLAIMED: tuple[Outcome, ...] = ("better", "worse", "leaning", "small", "constant")
FINAL_OUTCOMES: dict[Outcome, str] = {
    "better": "better",
    "worse": "worse",
    "small": "a difference smaller than what matters",
    "equivalent": "no difference that matters",
    "undecided": "not decided",
    "identical": "identical",
    "constant": "no spread",
}


def supplements(verdict: Verdict) -> list[str]:
    """The sentences that follow those of the comparisons."""
    return [
        *measurement_sentences(verdict),
        *published_sentences(verdict),
        *tuning_sentences(verdict),
        *balanced_accuracy_sentences(verdict),
        *best_block_sentences(verdict),
        *final_epoch_sentences(verdict),
        *early_stopping_sentences(verdict),
        *gain_sentences(verdict),
    ]


def measurement_sentences(verdict: Verdict) -> list[str]:
    """What the probes show."""
    return [sentence for measurement in measurements(verdict) for sentence in measurement.sentences]


def balanced_accuracy_sentences(verdict: Verdict) -> list[str]:
    """Balanced accuracy of each group and its difference from the baseline, for uneven classes."""
    texts = []
    for summary in verdict.summaries:
        if (balanced := balanced_accuracy_of(summary, verdict)) is None:
            continue
        text = f"{summary.group.full_label or 'all runs'} {level(balanced.mean, BALANCED)}"
        if (difference := balanced.difference) is not None and difference.n >= MIN_TESTED:
            low, high = (points(end, BALANCED) for end in (difference.low, difference.high))
            interval = "" if math.isnan(difference.low) else f" ({low} to {high})"
            text += f", {points(difference.mean, BALANCED)} points{interval}"
        texts.append(text)
    if not texts or len(texts) > MAX_FINAL:
        return []
    epoch = " at the final epoch" if verdict.rule == "mean" else ""
    return [f"Balanced accuracy{epoch}, the mean recall of the uneven classes: {'; '.join(texts)}."]


def best_block_sentences(verdict: Verdict) -> list[str]:
    """Each group at the learning rate, or another number, that validation prefers for it."""
    return [_best_block(best, verdict) for best in verdict.best_blocks]


def _best_block(best: BestBlockComparison, verdict: Verdict) -> str:
    candidate, baseline, difference = best.candidate, best.baseline, best.difference
    names = [summary.group.full_label for summary in (candidate, baseline)]
    if verdict.metric.sign * difference.mean < 0:
        names.reverse()
    low, high = sorted((difference.low, difference.high), key=abs)
    size_text, sign = size(difference.mean, verdict.metric), math.copysign(1, difference.mean)
    interval = " to ".join(points(sign * end, verdict.metric, signed=low * high < 0) for end in (low, high))
    edge = f" A best {verdict.grouping.block_keys[0]} lies at the edge of the grid." if best.at_edge else ""
    head = f"Each at its best {verdict.grouping.block_keys[0]} by validation:"
    if difference.n < MIN_TESTED or math.isnan(difference.p):
        return f"{head} {names[0]} is ahead of {names[1]} by {size_text}; too few seeds for a test.{edge}"
    verb = {"better": "beats", "worse": "beats", "small": "is ahead of", "equivalent": "is no better than"}
    decided = best.outcome in verb
    text = f"{head} {names[0]} {verb.get(best.outcome, 'is ahead of')} {names[1]} by {size_text} ({interval})"
    return f"{text}, {p_is(difference.p)}{'' if decided else ', not decided'}.{edge}"


def final_epoch_sentences(verdict: Verdict) -> list[str]:
    """The differences at the final epoch, where another one is compared, and where they say otherwise."""
    texts = [text for c in verdict.comparisons if (text := _final_epoch(c))]
    if not texts or len(texts) > MAX_FINAL:
        return []
    return [f"Final epoch, which is not the one that counts: {'; '.join(texts)}."]


def _final_epoch(c: GroupComparison) -> str:
    if c.final is None or c.final_outcome is None or c.final.n < 3 or c.is_confounded:
        return ""
    if c.final == c.difference:  # the mean of a single epoch
        return ""
    low, high = (points(end, c.metric) for end in (c.final.low, c.final.high))
    interval = "" if math.isnan(c.final.low) else f" ({low} to {high})"
    agrees = c.final_outcome == c.outcome or (
        c.outcome == "leaning" and c.final_outcome in ("better", "worse")
    )
    word = FINAL_OUTCOMES[c.final_outcome]
    ending = f"also {word}" if agrees else f"which alone would say: {word}"
    name = c.candidate.group.full_label
    return f"{name} {points(c.final.mean, c.metric)}{unit(c.metric)}{interval}, {ending}"


def early_stopping_sentences(verdict: Verdict) -> list[str]:
    """Whether early stopping ended runs, where ``epochs`` differs: it then says little of their length."""
    ended = [run for summary in verdict.summaries for run in summary.ended_early]
    if not ended or len({run.epochs for run in verdict.runs}) < 2:
        return []
    return [
        f"early_stopping.patience ended {len(ended)} of {len(verdict.runs)} runs before their last epoch: "
        "more epochs alone do not change them."
    ]


def gain_sentences(verdict: Verdict) -> list[str]:
    """Which groups were still learning when training ended, and whether that can change the answer."""
    deltas = {id(s): c.delta for c in verdict.comparisons for s in (c.candidate, c.baseline)}
    gains = {id(s): gain for s in verdict.summaries if (gain := notable_gain(s, deltas.get(id(s))))}
    if not gains or len(verdict.summaries) < 2:
        return []
    groups = [s.group for s in verdict.summaries if id(s) in gains]
    names = [group.full_assignment for group in groups][:MAX_FINAL]
    rates = list(dict.fromkeys(f"{gain:.1f}" for gain in gains.values()))[:MAX_FINAL]
    verb = "was" if len(gains) == 1 else "were"
    text = f"{_enumerate(names)} {verb} still gaining {_enumerate(rates)} points an epoch"
    if any(id(c.behind) in gains for c in verdict.comparisons if c.outcome in CLAIMED):
        text += ": this compares speed of learning, not where it ends"
    return [f"{text}."]


def _enumerate(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
