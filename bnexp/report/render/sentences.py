"""The verdict in sentences: what was seen, how sure, what fits. Never "same", "proves", "significant"."""

from __future__ import annotations

import math

from bnexp.report.analysis.statistical_tests import ALPHA, sign_flip_needs, wilson
from bnexp.report.analysis.verdict import Comparison, GroupComparison, repetition_noun
from bnexp.report.render.numbers import level, p_is, points, size, unit
from bnexp.report.render.overview import overview

COVERS = (
    "The interval covers the mean over training seeds, on this train and test set, configuration and "
    "hardware; not new data. Intervals are pointwise 95 %: one may leave out 0 while the adjusted p is "
    "above .05."
)
STABILITY = "Stability is the main finding"


def sentences(one: GroupComparison, comparison: Comparison) -> list[str]:
    """What can be said of one group against its baseline, the main finding first."""
    unstable = one.candidate.divergence_rate != one.baseline.divergence_rate
    said = [divergence(one)] if unstable else []
    if one.outcome != "nothing" or not unstable:
        said.append(_OUTCOMES[one.outcome](one) + _seeds_to_go(one) + _unpaired(one))
    if one.confounders:
        differ, by = ", ".join(one.confounders), comparison.grouping.by
        said.append(f"The groups also differ in {differ}: the effect can't be laid to {by}.")
    block = one.candidate.group.block
    return [f"{block}: {sentence}" if block else sentence for sentence in said]


def alone(comparison: Comparison) -> list[str]:
    """What to say of groups that nothing was compared with."""
    rows = comparison.summaries
    if comparison.comparisons:
        return []
    if len(rows) > 1:
        return ["Several groups, but none to hold against a baseline: no verdict."]
    runs = len(rows[0].values)
    words = f"One group of {runs} runs" if runs != 1 else "A single run"
    return [f"{words}: nothing to compare it with, no verdict."]


def divergence(one: GroupComparison) -> str:
    more, fewer = sorted((one.candidate, one.baseline), key=lambda row: -row.divergence_rate)
    low, high = (round(100 * x) for x in wilson(len(more.diverged), len(more.attempted)))
    noun = one.noun if len(one.twins) != 1 else one.noun.removesuffix("s")
    covers = f"accuracy covers the {len(one.twins)} {noun} where both finished"
    if not one.paired:
        covers = "accuracy covers the runs that finished"
    elif not one.twins:
        covers = f"no {one.noun.removesuffix('s')} finished in both"
    lost = f"{more.failure_kind} in {len(more.diverged)} of {len(more.attempted)} runs ({low}-{high} %)"
    return (
        f"{more.group.value} {lost}, {fewer.group.value} in {len(fewer.diverged)} of {len(fewer.attempted)}. "
        f"{STABILITY}; {covers}."
    )


def exact_test_note(one: GroupComparison, comparison: Comparison) -> str:
    """The sign-flip test beside the t test, or why it has nothing to say."""
    needs = sign_flip_needs(comparison.family)
    n = one.difference.n
    if not one.paired or n < 3 or one.outcome in ("identical", "constant"):
        return ""
    if n < needs:
        return f"cannot reach .05 with {n} {one.noun} (needs {needs})"
    return p_is(min(1.0, one.exact * comparison.family))


def looks_note(comparison: Comparison) -> str:
    """The looks at these very groups before this one, because each adds a chance of a false alarm."""
    names = {row.group.name for row in comparison.summaries}
    both = [[runs for name, runs in look["runs"].items() if name in names] for look in comparison.looks]
    seen = [max(runs) for runs in both if len(runs) > 1]
    if len(seen) < 2:
        return ""
    before = ", ".join(map(str, seen[:-1]))
    return (
        f"Look {len(seen)} at these groups (before: {before} runs a group). Testing again while seeds are "
        "added raises false alarms: .09 instead of .05 for looks at 3 and 5, .17 for every n from 3 to 10."
    )


def _names(one: GroupComparison) -> tuple[str, str]:
    """The one ahead, the one behind."""
    names = one.candidate.group.value, one.baseline.group.value
    return names if one.metric.sign * one.difference.mean >= 0 else names[::-1]


def _range(one: GroupComparison) -> str:
    """The interval as seen from the one ahead."""
    ends = sorted(
        math.copysign(1, one.difference.mean) * end for end in (one.difference.low, one.difference.high)
    )
    return " to ".join(points(end, one.metric, signed=ends[0] < 0) for end in ends)


def _ahead(one: GroupComparison) -> str:
    if not one.paired:
        return ""
    wins = sum(difference * one.difference.mean > 0 for difference in one.differences)
    return f", ahead in {wins} of {one.difference.n} {one.noun}"


def _fewer(one: GroupComparison) -> str:
    """The relative change of the error, over the runs that were compared."""
    if not one.metric.is_accuracy:
        return ""
    pairs = [(one.candidate.values[t], one.baseline.values[t]) for t in one.twins]
    ours, theirs = (
        (sum(100 - p[i] for p in pairs) for i in (0, 1))
        if pairs
        else (100 - one.candidate.mean, 100 - one.baseline.mean)
    )
    more, fewer = max(ours, theirs), min(ours, theirs)
    return f", {100 * (more - fewer) / more:.0f} % fewer errors" if more else ""


def _seeds_to_go(one: GroupComparison) -> str:
    if one.plan is None or one.outcome != "undecided" or one.provisional:
        return ""
    return f" About {one.plan.more} more {further_noun(one)} for ±{size(one.plan.half_width, one.metric)}."


def further_noun(one: GroupComparison) -> str:
    """What a further one is called: another fold of the same seed there is not."""
    return one.noun if one.noun != "folds" else "seed-fold pairs"


def scope_note(comparison: Comparison) -> str:
    """What an interval is about."""
    runs = [run for row in comparison.summaries for run in row.group.runs]
    return (
        COVERS
        if repetition_noun(runs) == "seeds"
        else COVERS.replace("training seeds", repetition_noun(runs))
    )


def _unpaired(one: GroupComparison) -> str:
    return "" if one.paired or not one.difference.n else " No shared seeds: Welch's test, unpaired."


def _more(one: GroupComparison) -> str:
    if one.plan is None:
        return ""
    half = "" if math.isnan(one.plan.half_width) else f" for ±{size(one.plan.half_width, one.metric)}"
    return f"; about {one.plan.more} more {further_noun(one)}{half or ' for a verdict'}"


def _nothing(one: GroupComparison) -> str:
    names = f"{one.candidate.group.value} and {one.baseline.group.value}"
    if one.candidate.divergence_rate == one.baseline.divergence_rate == 1:
        ways = " or ".join(dict.fromkeys((one.candidate.failure_kind, one.baseline.failure_kind)))
        return f"{names} {ways} in every run: no verdict."
    return f"{names} have no finished runs to compare: no verdict."


def _single(one: GroupComparison) -> str:
    rows = (one.candidate, one.baseline)
    values = [row.values[one.twins[0]] if one.paired else next(iter(row.values.values())) for row in rows]
    shown = ", ".join(
        f"{row.group.value} {level(x, one.metric)}" for row, x in zip(rows, values, strict=True)
    )
    if max(len(row.attempted) for row in rows) > 1:
        return f"One seed finished in both: {shown}: no verdict."
    if math.isnan(one.chance):
        return f"Single runs: {shown}. One seed: no verdict."
    return (
        f"Single runs: {shown}. Two runs of one configuration would differ by about "
        f"±{size(one.chance, one.metric)} by chance: no verdict."
    )


def _few(one: GroupComparison) -> str:
    shown = " and ".join(points(d, one.metric) for d in one.differences) or points(
        one.difference.mean, one.metric
    )
    names = f"{one.candidate.group.value} - {one.baseline.group.value}"
    return f"2 {one.noun}: {names} is {shown}{unit(one.metric)}: no verdict{_more(one)}."


def _identical(one: GroupComparison) -> str:
    return (
        f"{one.candidate.group.value} and {one.baseline.group.value}: all twins identical: "
        f"does {one.by} reach the model?"
    )


def _constant(one: GroupComparison) -> str:
    ahead, behind = _names(one)
    return (
        f"{ahead} is ahead of {behind} by exactly {size(one.difference.mean, one.metric)} "
        f"in all {one.difference.n} {one.noun}: no spread, so no test."
    )


def _called(one: GroupComparison) -> str:
    ahead, behind = _names(one)
    d, interval = size(one.difference.mean, one.metric), _range(one)
    if one.provisional:
        wins = _ahead(one).removeprefix(", ahead in ") or f"{one.difference.n} {one.noun} a group"
        where = f"in {wins} " if one.paired else ""
        return (
            f"{ahead} was ahead of {behind} {where}by {d} ({interval}). "
            f"With {one.difference.n} {one.noun} this rests on the normality assumption."
        )
    adjusted = f", adjusted {p_is(one.p_adjusted)}"
    return f"{ahead} beats {behind} by {d} ({interval}){_fewer(one)}{_ahead(one)}{adjusted}."


def _small(one: GroupComparison) -> str:
    ahead, behind = _names(one)
    by, delta = size(one.difference.mean, one.metric), size(one.delta or 0, one.metric)
    return (
        f"{ahead} is detectably ahead of {behind}, by {by} ({_range(one)}), "
        f"but by less than the {delta} that matter."
    ) + _rests(one)


def _equivalent(one: GroupComparison) -> str:
    low, high = (points(x, one.metric) for x in (one.difference.low90, one.difference.high90))
    delta = size(one.delta or 0, one.metric)
    return (
        f"{one.candidate.group.value} and {one.baseline.group.value}: no difference beyond {delta}: "
        f"the 90 % interval {low} to {high} lies inside ±{delta}."
    ) + _rests(one)


def _undecided(one: GroupComparison) -> str:
    low, high = (points(x, one.metric) for x in (one.difference.low, one.difference.high))
    ours, theirs = one.candidate.group.value, one.baseline.group.value
    mean = points(one.difference.mean, one.metric)
    if one.p_adjusted <= ALPHA:
        return (
            f"{ours} vs {theirs}: not decided: the difference of {mean}{unit(one.metric)} is within "
            f"the ±{size(one.floor, one.metric)} that chance gives on a test set of this size."
        )
    if one.provisional:
        return (
            f"{ours} vs {theirs}, {one.difference.n} {one.noun}: difference {mean}{unit(one.metric)}, "
            f"interval {low} to {high}. Too wide to decide{_family(one)}{_more(one)}."
        )
    return (
        f"{ours} vs {theirs}: not decided: anything from {low} to {high}{unit(one.metric)} "
        f"fits{_family(one)}. This is not evidence of equality."
    )


def _family(one: GroupComparison) -> str:
    """Why an interval without 0 decides nothing: it is pointwise, and several comparisons were made."""
    if one.difference.low * one.difference.high <= 0:
        return ""
    return f" ({p_is(one.p_adjusted)} once adjusted for all comparisons)"


def _rests(one: GroupComparison) -> str:
    return (
        f" With {one.difference.n} {one.noun} this rests on the normality assumption."
        if one.provisional
        else ""
    )


_OUTCOMES = {
    "nothing": _nothing,
    "single": _single,
    "few": _few,
    "identical": _identical,
    "constant": _constant,
    "better": _called,
    "worse": _called,
    "small": _small,
    "equivalent": _equivalent,
    "undecided": _undecided,
}


def all_sentences(comparison: Comparison) -> list[str]:
    """Every sentence of a comparison: the overview, then divergence before accuracy."""
    said = [sentence for one in comparison.comparisons for sentence in sentences(one, comparison)]
    said.sort(key=lambda sentence: STABILITY not in sentence)
    return [*alone(comparison), *overview(comparison), *dict.fromkeys(said)]
