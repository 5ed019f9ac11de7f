"""The verdict in sentences: what was seen, how sure, what fits. Never "same", "proves", "significant"."""

from __future__ import annotations

import math

from bnexp.report.statistics import ALPHA, sign_flip_needs, wilson
from bnexp.report.verdict import Compared, Comparison, Metric, Row

COVERS = (
    "The interval covers the mean over training seeds, on this train and test set, configuration and "
    "hardware; not new data. Intervals are pointwise 95 %: one may leave out 0 while the adjusted p is "
    "above .05."
)
STABILITY = "Stability is the main finding"


def sentences(one: Compared, comparison: Comparison) -> list[str]:
    """What can be said of one group against its baseline, the main finding first."""
    said = [divergence(one)] if _rate(one.ours) != _rate(one.theirs) else []
    said.append(_OUTCOMES[one.outcome](one, comparison.metric))
    if (
        one.plan
        and not math.isnan(one.plan.half_width)
        and one.outcome == "undecided"
        and not one.provisional
    ):
        said[-1] += f" About {one.plan.more} more seeds for ±{size(one.plan.half_width, comparison.metric)}."
    if one.found.method == "Welch" and one.found.n:
        said[-1] += " No shared seeds: Welch's test, unpaired."
    if one.confounders:
        by = comparison.grouping.by
        said.append(
            f"The groups also differ in {', '.join(one.confounders)}: the effect can't be laid to {by}."
        )
    block = one.ours.group.block
    return [f"{block}: {sentence}" if block else sentence for sentence in said]


def alone(comparison: Comparison) -> list[str]:
    """What to say of groups that nothing was compared with."""
    rows = comparison.rows
    if comparison.compared:
        return []
    if len(rows) > 1:
        return ["Several groups, but none to hold against a baseline: no verdict."]
    runs = len(rows[0].values)
    words = f"One group of {runs} runs" if runs != 1 else "A single run"
    return [f"{words}: nothing to compare it with, no verdict."]


def divergence(one: Compared) -> str:
    rows = sorted((one.ours, one.theirs), key=lambda row: -_rate(row))
    more, fewer = rows
    low, high = (round(100 * x) for x in wilson(len(more.diverged), more.started))
    n = len(one.twins)
    both = f"accuracy covers the {n} seeds where both finished" if n else "no seed finished in both"
    return (
        f"{more.group.value} diverged in {len(more.diverged)} of {more.started} runs ({low}-{high} %), "
        f"{fewer.group.value} in {len(fewer.diverged)} of {fewer.started}. "
        f"{STABILITY}; {both}."
    )


def exact(one: Compared, comparison: Comparison) -> str:
    """The sign-flip test beside the t test, or why it has nothing to say."""
    needs = sign_flip_needs(comparison.family)
    n = one.found.n
    if not one.twins or n < 3 or one.outcome in ("identical", "constant"):
        return ""
    if n < needs:
        return f"cannot reach .05 with {n} seeds (needs {needs})"
    return p_is(min(1.0, one.exact * comparison.family))


def looked(comparison: Comparison) -> str:
    """The looks before this one, because each adds a chance of a false alarm."""
    seen = [max(look["runs"].values(), default=0) for look in comparison.looks]  # type: ignore[attr-defined]
    if len(seen) < 2:
        return ""
    before = ", ".join(map(str, seen[:-1]))
    return (
        f"Look {len(seen)} at these groups (before: {before} runs a group). Testing again while seeds are "
        "added raises false alarms: .09 instead of .05 for looks at 3 and 5, .17 for every n from 3 to 10."
    )


def points(value: float, metric: Metric, signed: bool = True) -> str:
    """A difference: two decimals in points, four for a loss."""
    return f"{value:{'+' if signed else ''}.{2 if metric.is_accuracy else 4}f}"


def size(value: float, metric: Metric) -> str:
    return f"{points(abs(value), metric, signed=False)}{unit(metric)}"


def unit(metric: Metric) -> str:
    return " points" if metric.is_accuracy else ""


def level(value: float, metric: Metric) -> str:
    return f"{value:.2f} %" if metric.is_accuracy else f"{value:.4f}"


def p_value(p: float) -> str:
    """.031, two significant digits, no zero before the point."""
    if math.isnan(p):
        return ""
    if p < 1e-4:
        return "<.0001"
    digits = 4 if p < 0.001 else 3 if p < 0.1 else 2
    return f"{p:.{digits}f}".lstrip("0") if p < 0.995 else "1.0"


def p_is(p: float) -> str:
    """``p = .031`` or ``p < .0001``."""
    text = p_value(p)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def _rate(row: Row) -> float:
    return len(row.diverged) / max(row.started, 1)


def _names(one: Compared) -> tuple[str, str]:
    """The one ahead, the one behind."""
    names = one.ours.group.value, one.theirs.group.value
    return names if one.sign * one.found.mean >= 0 else names[::-1]


def _range(one: Compared, metric: Metric) -> str:
    """The interval as seen from the one ahead."""
    ends = sorted(_sign(one) * end for end in (one.found.low, one.found.high))
    signed = ends[0] < 0
    return " to ".join(points(end, metric, signed=signed) for end in ends)


def _sign(one: Compared) -> int:
    return 1 if one.found.mean >= 0 else -1


def _ahead(one: Compared) -> str:
    if not one.twins:
        return ""
    wins = one.ahead if one.sign * one.found.mean >= 0 else sum(one.sign * d < 0 for d in one.differences)
    return f", ahead in {wins} of {one.found.n} seeds"


def _fewer(one: Compared, metric: Metric) -> str:
    """The relative change of the error, over the runs that were compared."""
    if not metric.is_accuracy:
        return ""
    pairs = [(one.ours.values[t], one.theirs.values[t]) for t in one.twins]
    ours, theirs = (
        (sum(100 - p[i] for p in pairs) for i in (0, 1))
        if pairs
        else (100 - one.ours.mean, 100 - one.theirs.mean)
    )
    more, fewer = max(ours, theirs), min(ours, theirs)
    return f", {100 * (more - fewer) / more:.0f} % fewer errors" if more else ""


def _more(one: Compared, metric: Metric) -> str:
    if one.plan is None:
        return ""
    half = "" if math.isnan(one.plan.half_width) else f" for ±{size(one.plan.half_width, metric)}"
    return f"; about {one.plan.more} more seeds{half or ' for a verdict'}"


def _nothing(one: Compared, metric: Metric) -> str:
    return (
        f"{one.ours.group.value} and {one.theirs.group.value} have no finished runs to compare: no verdict."
    )


def _single(one: Compared, metric: Metric) -> str:
    values = [next(iter(row.values.values())) for row in (one.ours, one.theirs)]
    if one.twins:
        values = [row.values[one.twins[0]] for row in (one.ours, one.theirs)]
    chance = (
        "" if math.isnan(one.chance)
        else f" Two runs of one configuration would differ by about ±{size(one.chance, metric)} by chance:"
    )  # fmt: skip
    return (
        f"Single runs: {one.ours.group.value} {level(values[0], metric)}, "
        f"{one.theirs.group.value} {level(values[1], metric)}.{chance or ' One seed:'} no verdict."
    )


def _few(one: Compared, metric: Metric) -> str:
    shown = " and ".join(points(d, metric) for d in one.differences) or points(one.found.mean, metric)
    names = f"{one.ours.group.value} - {one.theirs.group.value}"
    return f"2 seeds: {names} is {shown}{unit(metric)}: no verdict{_more(one, metric)}."


def _identical(one: Compared, metric: Metric) -> str:
    return (
        f"{one.ours.group.value} and {one.theirs.group.value}: all twins identical: "
        f"does {one.by} reach the model?"
    )


def _constant(one: Compared, metric: Metric) -> str:
    ahead, behind = _names(one)
    return (
        f"{ahead} is ahead of {behind} by exactly {size(one.found.mean, metric)} in all {one.found.n} seeds: "
        "no spread, so no test."
    )


def _called(one: Compared, metric: Metric) -> str:
    ahead, behind = _names(one)
    d, interval = size(one.found.mean, metric), _range(one, metric)
    if one.provisional:
        wins = _ahead(one).removeprefix(", ahead in ") or f"{one.found.n} seeds a group"
        where = f"in {wins} " if one.twins else ""
        return (
            f"{ahead} was ahead of {behind} {where}by {d} ({interval}). "
            f"With {one.found.n} seeds this rests on the normality assumption."
        )
    adjusted = f", adjusted {p_is(one.p_adjusted)}"
    return f"{ahead} beats {behind} by {d} ({interval}){_fewer(one, metric)}{_ahead(one)}{adjusted}."


def _small(one: Compared, metric: Metric) -> str:
    ahead, behind = _names(one)
    by, delta = size(one.found.mean, metric), size(one.delta or 0, metric)
    return (
        f"{ahead} is detectably ahead of {behind}, by {by} ({_range(one, metric)}), "
        f"but by less than the {delta} that matter."
    ) + _rests(one)


def _equivalent(one: Compared, metric: Metric) -> str:
    low, high = (points(x, metric) for x in (one.found.low90, one.found.high90))
    delta = size(one.delta or 0, metric)
    return (
        f"{one.ours.group.value} and {one.theirs.group.value}: no difference beyond {delta}: "
        f"the 90 % interval {low} to {high} lies inside ±{delta}."
    ) + _rests(one)


def _undecided(one: Compared, metric: Metric) -> str:
    low, high = (points(x, metric) for x in (one.found.low, one.found.high))
    ours, theirs = one.ours.group.value, one.theirs.group.value
    mean = points(one.found.mean, metric)
    if one.p_adjusted <= ALPHA:
        return (
            f"{ours} vs {theirs}: not decided: the difference of {mean}{unit(metric)} is within "
            f"the ±{size(one.floor, metric)} that chance gives on a test set of this size."
        )
    if one.provisional:
        return (
            f"{ours} vs {theirs}, {one.found.n} seeds: difference {mean}{unit(metric)}, interval "
            f"{low} to {high}. Too wide to decide{_family(one)}{_more(one, metric)}."
        )
    return (
        f"{ours} vs {theirs}: not decided: anything from {low} to {high}{unit(metric)} fits{_family(one)}. "
        "This is not evidence of equality."
    )


def _family(one: Compared) -> str:
    """Why an interval without 0 decides nothing: it is pointwise, and several comparisons were made."""
    if one.found.low * one.found.high <= 0:
        return ""
    return f" ({p_is(one.p_adjusted)} once adjusted for all comparisons)"


def _rests(one: Compared) -> str:
    return f" With {one.found.n} seeds this rests on the normality assumption." if one.provisional else ""


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
    """Every sentence of a comparison, divergence before accuracy."""
    said = [sentence for one in comparison.compared for sentence in sentences(one, comparison)]
    said.sort(key=lambda sentence: STABILITY not in sentence)
    return [*alone(comparison), *dict.fromkeys(said)]
