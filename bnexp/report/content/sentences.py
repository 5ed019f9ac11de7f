"""The verdict in sentences: what was observed and how certain it is. Never "same", "proves", "significant".

``c`` is the comparison of one group with its baseline in every function of this file.
"""

from __future__ import annotations

import math

from bnexp.report.analysis.group_comparison import GroupComparison
from bnexp.report.analysis.statistical_tests import ALPHA, wilson_interval
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.numbers import agree, level, p_is, points, singular, size, unit
from bnexp.report.content.overview import overview

STABILITY = "Stability is the main finding"


def all_sentences(verdict: Verdict) -> list[str]:
    """Every sentence of a comparison: the overview first, divergence before accuracy."""
    sentences = [text for c in verdict.comparisons for text in comparison_sentences(c)]
    sentences.sort(key=lambda text: STABILITY not in text)
    return [*_without_comparison(verdict), *overview(verdict), *dict.fromkeys(sentences)]


def comparison_sentences(c: GroupComparison) -> list[str]:
    """What can be stated about one group against its baseline, the main finding first."""
    is_unstable = c.candidate.divergence_rate != c.baseline.divergence_rate
    sentences = [_divergence(c)] if is_unstable else []
    if c.outcome != "nothing" or not is_unstable:
        sentences.append(_OUTCOMES[c.outcome](c) + _seeds_to_decide(c) + _unpaired(c))
    if c.confounders:
        keys = ", ".join(c.confounders)
        sentences.append(f"The groups also differ in {keys}: the difference cannot be attributed to {c.by}.")
    block = c.candidate.group.block
    return [f"{block}: {sentence}" if block else sentence for sentence in sentences]


def _without_comparison(verdict: Verdict) -> list[str]:
    """The sentence for groups of which none was compared."""
    if verdict.comparisons:
        return []
    if len(verdict.summaries) > 1:
        return ["Several groups, but none can be compared with a baseline: no verdict."]
    runs = len(verdict.summaries[0].values)
    subject = f"One group of {runs} runs" if runs != 1 else "A single run"
    return [f"{subject}: nothing to compare it with, no verdict."]


def _divergence(c: GroupComparison) -> str:
    """Which group diverged more often, and which runs the accuracy is about."""
    summaries = (c.candidate, c.baseline)
    unstable, stable = sorted(summaries, key=lambda summary: -summary.divergence_rate)
    low, high = (round(100 * x) for x in wilson_interval(len(unstable.diverged), len(unstable.attempted)))
    if not c.is_paired:
        scope = "accuracy covers the runs that finished"
    elif not c.pairs:
        scope = f"no {singular(c.noun)} finished in both"
    else:
        scope = f"accuracy covers the {len(c.pairs)} {agree(len(c.pairs), c.noun)} where both finished"
    return (
        f"{unstable.group.value} {unstable.failure_kind} in {len(unstable.diverged)} of "
        f"{len(unstable.attempted)} runs ({low}-{high} %), "
        f"{stable.group.value} in {len(stable.diverged)} of {len(stable.attempted)}. "
        f"{STABILITY}; {scope}."
    )


def _nothing(c: GroupComparison) -> str:
    names = f"{c.candidate.group.value} and {c.baseline.group.value}"
    if c.candidate.divergence_rate == c.baseline.divergence_rate == 1:
        kinds = " or ".join(dict.fromkeys((c.candidate.failure_kind, c.baseline.failure_kind)))
        return f"{names} {kinds} in every run: no verdict."
    return f"{names} have no finished runs to compare: no verdict."


def _single(c: GroupComparison) -> str:
    summaries = (c.candidate, c.baseline)
    values = [s.values[c.pairs[0]] if c.is_paired else next(iter(s.values.values())) for s in summaries]
    texts = [f"{s.group.value} {level(x, c.metric)}" for s, x in zip(summaries, values, strict=True)]
    runs, noun = ", ".join(texts), singular(c.noun)
    if max(len(summary.attempted) for summary in summaries) > 1:
        return f"One {noun} finished in both: {runs}: no verdict."
    if math.isnan(c.single_run_noise):
        return f"Single runs: {runs}. One {noun}: no verdict."
    return (
        f"Single runs: {runs}. Two runs of one configuration would differ by about "
        f"±{size(c.single_run_noise, c.metric)} by chance: no verdict."
    )


def _few(c: GroupComparison) -> str:
    differences = c.differences or (c.difference.mean,)
    texts = " and ".join(points(difference, c.metric) for difference in differences)
    names = f"{c.candidate.group.value} - {c.baseline.group.value}"
    return f"2 {c.noun}: {names} is {texts}{unit(c.metric)}: no verdict{_seeds_needed(c)}."


def _identical(c: GroupComparison) -> str:
    names = f"{c.candidate.group.value} and {c.baseline.group.value}"
    return f"{names}: all twins identical: does {c.by} reach the model?"


def _constant(c: GroupComparison) -> str:
    ahead, behind = _ahead_and_behind(c)
    return (
        f"{ahead} is ahead of {behind} by exactly {size(c.difference.mean, c.metric)} "
        f"in all {c.difference.n} {c.noun}: no spread, so no test."
    )


def _better_or_worse(c: GroupComparison) -> str:
    ahead, behind = _ahead_and_behind(c)
    difference = f"{size(c.difference.mean, c.metric)} ({_interval(c)})"
    if c.is_provisional:
        wins = f"in {_wins(c)} " if c.is_paired else ""
        return f"{ahead} was ahead of {behind} {wins}by {difference}.{_assumption(c)}"
    wins = f", ahead in {_wins(c)}" if c.is_paired else ""
    errors, p = _fewer_errors(c), p_is(c.p_adjusted)
    return f"{ahead} beats {behind} by {difference}{errors}{wins}, adjusted {p}."


def _small(c: GroupComparison) -> str:
    ahead, behind = _ahead_and_behind(c)
    difference, delta = size(c.difference.mean, c.metric), size(c.delta or 0, c.metric)
    return (
        f"{ahead} is detectably ahead of {behind}, by {difference} ({_interval(c)}), "
        f"but by less than the {delta} that matter.{_assumption(c)}"
    )


def _equivalent(c: GroupComparison) -> str:
    low, high = (points(end, c.metric) for end in (c.difference.low90, c.difference.high90))
    delta = size(c.delta or 0, c.metric)
    return (
        f"{c.candidate.group.value} and {c.baseline.group.value}: no difference beyond {delta}: "
        f"the 90 % interval {low} to {high} lies inside ±{delta}.{_assumption(c)}"
    )


def _undecided(c: GroupComparison) -> str:
    low, high = (points(end, c.metric) for end in (c.difference.low, c.difference.high))
    names = f"{c.candidate.group.value} vs {c.baseline.group.value}"
    mean = f"{points(c.difference.mean, c.metric)}{unit(c.metric)}"
    if c.p_adjusted <= ALPHA:
        return (
            f"{names}: not decided: the difference of {mean} is within "
            f"the ±{size(c.noise_floor, c.metric)} that chance gives on a test set of this size."
        )
    if c.is_provisional:
        return (
            f"{names}, {c.difference.n} {c.noun}: difference {mean}, interval {low} to {high}. "
            f"Too wide to decide{_adjustment(c)}{_seeds_needed(c)}."
        )
    return (
        f"{names}: not decided: anything from {low} to {high}{unit(c.metric)} fits{_adjustment(c)}. "
        "This is not evidence of equality."
    )


_OUTCOMES = {
    "nothing": _nothing,
    "single": _single,
    "few": _few,
    "identical": _identical,
    "constant": _constant,
    "better": _better_or_worse,
    "worse": _better_or_worse,
    "small": _small,
    "equivalent": _equivalent,
    "undecided": _undecided,
}


def _ahead_and_behind(c: GroupComparison) -> tuple[str, str]:
    names = c.candidate.group.value, c.baseline.group.value
    return names if c.metric.sign * c.difference.mean >= 0 else names[::-1]


def _interval(c: GroupComparison) -> str:
    """The interval as seen from the group that is ahead."""
    sign = math.copysign(1, c.difference.mean)
    ends = sorted(sign * end for end in (c.difference.low, c.difference.high))
    return " to ".join(points(end, c.metric, signed=ends[0] < 0) for end in ends)


def _wins(c: GroupComparison) -> str:
    """``4 of 5 seeds``: in how many pairs the group that is ahead is the better one."""
    wins = sum(difference * c.difference.mean > 0 for difference in c.differences)
    return f"{wins} of {c.difference.n} {c.noun}"


def _fewer_errors(c: GroupComparison) -> str:
    """The relative change of the error rate, over the runs that were compared."""
    if not c.metric.is_accuracy:
        return ""
    errors = [100 - c.candidate.mean, 100 - c.baseline.mean]
    if c.pairs:
        errors = [sum(100 - s.values[key] for key in c.pairs) for s in (c.candidate, c.baseline)]
    lower, higher = sorted(errors)
    return f", {100 * (higher - lower) / higher:.0f} % fewer errors" if higher else ""


def _adjustment(c: GroupComparison) -> str:
    """Why an interval without 0 decides nothing: it covers one comparison, and several were made."""
    if c.difference.low * c.difference.high <= 0:
        return ""
    return f" ({p_is(c.p_adjusted)} once adjusted for all comparisons)"


def _assumption(c: GroupComparison) -> str:
    text = f" With {c.difference.n} {c.noun} this rests on the normality assumption."
    return text if c.is_provisional else ""


def _seeds_needed(c: GroupComparison) -> str:
    if c.plan is None:
        return ""
    half_width = c.plan.half_width
    aim = "a verdict" if math.isnan(half_width) else f"±{size(half_width, c.metric)}"
    return f"; about {c.plan.seeds} more {c.further_noun} for {aim}"


def _seeds_to_decide(c: GroupComparison) -> str:
    if c.plan is None or c.outcome != "undecided" or c.is_provisional:
        return ""
    return f" About {c.plan.seeds} more {c.further_noun} for ±{size(c.plan.half_width, c.metric)}."


def _unpaired(c: GroupComparison) -> str:
    return "" if c.is_paired or not c.difference.n else f" No shared {c.noun}: Welch's test, unpaired."
