"""The verdict in sentences: what was observed and how certain it is. Never "same", "proves", "significant".

``c`` is the comparison of one group with its baseline in every function of this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from bnexp.report.analysis.group_comparison import GroupComparison, Outcome
from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.repeated_looks import PlannedLooks
from bnexp.report.analysis.sample_size import MAX_FORECAST, SampleSizePlan
from bnexp.report.analysis.statistical_tests import ALPHA
from bnexp.report.analysis.sweep_verdict import is_open
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.numbers import agree, level, p_is, points, singular, size, span, unit
from bnexp.report.content.standings import resolution

OFTEN = 0.1  # chance gives a p above this often


def all_sentences(verdict: Verdict) -> list[str]:
    """Every sentence below the headline: what forbids a comparison, then group after group."""
    sentences = [text for c in verdict.comparisons for text in comparison_sentences(c)]
    caveats = [text for c in verdict.comparisons for text in _caveats(c)]
    others = [verdict.not_compared] if verdict.not_compared else []
    return [*dict.fromkeys(caveats), *_without_comparison(verdict), *dict.fromkeys(sentences), *others]


def comparison_sentences(c: GroupComparison) -> list[str]:
    """What can be stated about one group against its baseline, the main finding first."""
    sentences = [_OUTCOMES[c.outcome](c) + _seeds_to_decide(c) + _unpaired(c) + _means_of_pairs(c)]
    if c.outcome == "nothing" and (c.candidate.lost_keys or c.baseline.lost_keys):
        sentences = []
    if stability := _stability(c):
        sentences.insert(0 if c.differs_in_stability else len(sentences), stability)
    return [_with_block(c, sentence) for sentence in sentences]


def _caveats(c: GroupComparison) -> list[str]:
    """What forbids to attribute the difference to the compared key."""
    if not c.confounders:
        return []
    keys = ", ".join(c.confounders)
    text = f"The groups also differ in {keys}: the difference cannot be attributed to {c.by}."
    return [_with_block(c, text)]


def _with_block(c: GroupComparison, sentence: str) -> str:
    block = c.candidate.group.block
    return f"{block}: {sentence}" if block else sentence


def _without_comparison(verdict: Verdict) -> list[str]:
    """The sentence for groups of which none was compared."""
    if verdict.comparisons:
        return []
    if len(verdict.summaries) > 1:
        return []  # ``not_compared`` names them
    runs = len(verdict.summaries[0].values)
    subject = f"One group of {runs} runs" if runs != 1 else "A single run"
    return [f"{subject}: nothing to compare it with, no verdict."]


def _stability(c: GroupComparison) -> str:
    """How many runs trained in each group, and whether chance gives that."""
    if not c.candidate.lost_keys and not c.baseline.lost_keys:
        return ""
    candidate, baseline = c.candidate, c.baseline
    text = (
        f"{candidate.group.label} trained in {_trained(candidate, ' runs')}, "
        f"{baseline.group.assignment} in {_trained(baseline)}"
    )
    if c.differs_in_stability:
        fewer = "fewer" if c.is_more_stable else "more"
        text += f": {candidate.group.label} loses {fewer} runs, adjusted {p_is(c.stability_p_adjusted)}"
    elif candidate.lost_rate == baseline.lost_rate:
        text += ": no difference in lost runs"
    elif c.leans_in_stability:
        adjusted = f"{p_is(c.stability_p_adjusted)} once adjusted for all tests"
        text += f". This leans to a difference ({p_is(c.stability.p)}) but does not decide it ({adjusted})"
    else:
        chance = "chance gives often" if c.stability_p_adjusted > OFTEN else "chance can give"
        text += f", which {chance} (adjusted {p_is(c.stability_p_adjusted)})"
    return f"{text}{_finished(c)}."


def _trained(summary: GroupSummary, noun: str = "") -> str:
    """``0 of 3 (at chance: 10.00 %)``: the accuracies are those of the lost runs."""
    text = f"{len(summary.values)} of {len(summary.attempted)}{noun}"
    if not summary.lost_keys:
        return text
    values = list(dict.fromkeys(level(value, summary.metric) for value in sorted(summary.lost_values)))
    reached = "" if not values else f": {values[0]}" if len(values) == 1 else f": {values[0]} to {values[-1]}"
    return f"{text} ({summary.failure_kind}{reached})"


def _finished(c: GroupComparison) -> str:
    """Which runs the accuracy covers, where some were lost."""
    if not c.difference.n or _means_of_pairs(c):
        return ""
    if not c.is_paired:
        return "; accuracy covers the runs that trained"
    return f"; accuracy covers the {len(c.pairs)} {agree(len(c.pairs), c.noun)} where both trained"


def _means_of_pairs(c: GroupComparison) -> str:
    """The means over the compared pairs, where the table's rows cover more runs."""
    if len(c.pairs) < 2 or len(c.pairs) == len(c.candidate.values) == len(c.baseline.values):
        return ""
    summaries = (c.candidate, c.baseline)
    means = [sum(s.values[key] for key in c.pairs) / len(c.pairs) for s in summaries]
    texts = [f"{s.group.label} {level(x, c.metric)}" for s, x in zip(summaries, means, strict=True)]
    return f" On the {len(c.pairs)} shared {agree(len(c.pairs), c.noun)}: {', '.join(texts)}."


def _nothing(c: GroupComparison) -> str:
    names = f"{c.candidate.group.label} and {c.baseline.group.label}"
    return f"{names} have no finished runs to compare: no verdict."


def _single(c: GroupComparison) -> str:
    summaries = (c.candidate, c.baseline)
    values = [s.values[c.pairs[0]] if c.is_paired else next(iter(s.values.values())) for s in summaries]
    texts = [f"{s.group.label} {level(x, c.metric)}" for s, x in zip(summaries, values, strict=True)]
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
    names = f"{c.candidate.group.label} - {c.baseline.group.label}"
    return f"2 {c.noun}: {names} is {texts}{unit(c.metric)}: no verdict{_seeds_needed(c)}."


def _identical(c: GroupComparison) -> str:
    names = f"{c.candidate.group.label} and {c.baseline.group.label}"
    runs = (*c.candidate.usable_runs, *c.baseline.usable_runs)
    if c.by == "epochs" and all(run.ended_early for run in runs):
        return f"{names}: all twins identical: early_stopping.patience ended them before their last epoch."
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
    if c.is_confounded:
        return f"{ahead} is ahead of {behind} by {difference}, adjusted {p_is(c.p_adjusted)}."
    wins = f", ahead in {_wins(c)}" if c.is_paired else ""
    errors, p = _fewer_errors(c), p_is(c.p_adjusted)
    return f"{ahead} beats {behind} by {difference}{errors}{wins}, adjusted {p}."


def _leaning(c: GroupComparison) -> str:
    ahead, behind = _ahead_and_behind(c)
    difference = f"{size(c.difference.mean, c.metric)} ({_interval(c)})"
    return (
        f"This leans to {ahead} over {behind}, by {difference}, adjusted {p_is(c.p_adjusted)}. It is no "
        f"verdict yet: {c.doubt}, and then a t test claims too much with fewer than 20 {c.noun}."
    )


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
        f"{c.candidate.group.label} and {c.baseline.group.label}: no difference beyond {delta}: "
        f"the 90 % interval {low} to {high} lies inside ±{delta}.{_assumption(c)}"
    )


def _undecided(c: GroupComparison) -> str:
    low, high = (points(end, c.metric) for end in (c.difference.low, c.difference.high))
    names = f"{c.candidate.group.label} vs {c.baseline.group.label}"
    mean = f"{points(c.difference.mean, c.metric)}{unit(c.metric)}"
    if isinstance(c.test, PlannedLooks):
        return f"{names}: {_planned(c, c.test)}"
    if c.p_adjusted <= ALPHA:
        return (
            f"{names}: not decided: the difference of {mean} is within "
            f"the ±{size(c.noise_floor, c.metric)} that chance gives on a test set of this size."
        )
    if c.is_provisional:
        interval = f", interval {low} to {high}" if math.isfinite(c.difference.low) else ""
        return (
            f"{names}, {c.difference.n} {c.noun}: difference {mean}{interval}. "
            f"Too wide to decide{_adjustment(c)}{_seeds_needed(c)}."
        )
    return (
        f"{names}: not decided: {span(c.difference.low, c.difference.high, c.metric)} fits{_adjustment(c)}. "
        "This is not evidence of equality."
    )


def _planned(c: GroupComparison, test: PlannedLooks) -> str:
    """Why a sweep that chooses its seeds has no answer: it is not over, it was of no use, or it is over."""
    low, high = (points(end, c.metric) for end in (c.difference.low, c.difference.high))
    if is_open(c):
        text = f"not decided yet, {c.difference.n} of at most {test.last_seeds} {c.noun}: anything from"
        return f"{text} {low} to {high}{unit(c.metric)} fits."
    if test.reached >= test.last_seeds:
        excluded = f"a difference beyond {low} to {high}{unit(c.metric)} is excluded"
        return f"open after {c.difference.n} {c.noun}: {excluded}, which of the rest is true is not known."
    limit = f"they show differences of {size(resolution(c), c.metric)} or more"
    return (
        f"given up after {c.difference.n} {c.noun}: {test.last_seeds} could hardly decide it ({limit}). "
        f"Anything from {low} to {high}{unit(c.metric)} fits; this is not evidence of equality."
    )


_OUTCOMES: dict[Outcome, Callable[[GroupComparison], str]] = {
    "nothing": _nothing,
    "single": _single,
    "few": _few,
    "identical": _identical,
    "constant": _constant,
    "better": _better_or_worse,
    "worse": _better_or_worse,
    "leaning": _leaning,
    "small": _small,
    "equivalent": _equivalent,
    "undecided": _undecided,
}


def _ahead_and_behind(c: GroupComparison) -> tuple[str, str]:
    names = c.candidate.group.label, c.baseline.group.label
    return names if c.metric.sign * c.difference.mean >= 0 else names[::-1]


def _interval(c: GroupComparison) -> str:
    """The interval as seen from the group that is ahead."""
    sign = math.copysign(1, c.difference.mean)
    ends = sorted(sign * end for end in (c.difference.low, c.difference.high))
    return " to ".join(points(end, c.metric, signed=ends[0] < 0) for end in ends)


def _wins(c: GroupComparison) -> str:
    """``4 of 5 seeds``: in how many pairs the group that is ahead is the better one."""
    wins = sum(difference * c.difference.mean > 0 for difference in c.differences)
    ties = f" with {c.ties} {agree(c.ties, 'ties')}" if c.ties else ""
    return f"{wins} of {c.difference.n} {c.noun}{ties}"


def _fewer_errors(c: GroupComparison) -> str:
    """The relative change of the error rate, over the runs that were compared."""
    if c.metric.name != "accuracy":
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
    """How many more seeds, where a verdict needs them: a first one, or one by the forecast."""
    if c.plan is None or c.plan.is_forecast:
        return ""
    return f"; {c.plan.low} more {agree(c.plan.low, c.further_noun)} for a verdict"


def _seeds_to_decide(c: GroupComparison) -> str:
    if c.plan is None or c.outcome != "undecided" or not c.plan.is_forecast:
        return ""
    if c.plan.is_hopeless:
        return f" More {c.noun} are not the way: {_remedies(c)} makes it clearer."
    return f" With {forecast(c.plan)} more {c.further_noun} it would probably be decided."


def _remedies(c: GroupComparison) -> str:
    if c.candidate.rule == "best":
        return "a learning-rate schedule or more epochs"
    return "a learning-rate schedule, more epochs or a validation-chosen epoch"


def forecast(plan: SampleSizePlan) -> str:
    """``about 20 to 45``; more than 50 are not forecast."""
    if plan.high > MAX_FORECAST:
        return f"at least {plan.low}"
    return f"about {plan.low} to {plan.high}" if plan.high > plan.low else f"about {plan.low}"


def _unpaired(c: GroupComparison) -> str:
    if c.is_paired or not c.difference.n:
        return ""
    shared = c.candidate.attempted & c.baseline.attempted
    reason = "No twins" if c.is_confounded else f"Few shared {c.noun}" if shared else f"No shared {c.noun}"
    return f" {reason}: Welch's test over all runs, unpaired."
