"""The first line of every report: the question that the runs ask, and its answer in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bnexp.report.analysis.group_comparison import GroupComparison, notable_gain
from bnexp.report.analysis.settings import TARGET_SUFFIX
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.numbers import agree, points, size, span, unit
from bnexp.report.content.overview import overview
from bnexp.report.content.tuning import tuned_keys

NORM = "model.norm"
NORMS = {
    "none": "no norm",
    "batch": "batch norm",
    "batch_manual": "hand-written batch norm",
    "layer": "layer norm",
    "group": "group norm",
    "instance": "instance norm",
    "batch_noise": "noisy batch norm",
}
MODELS = {
    "bnexp.models.MLP": "an MLP",
    "bnexp.models.ConvNet": "a convolutional net",
    "bnexp.models.LeNet": "LeNet",
    "bnexp.models.ResNet": "a ResNet",
    "bnexp.models.DenseNet": "a DenseNet",
}
DATASETS = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "digits": "the digits",
    "image_folder": "a folder of images",
}
BEST_STANDINGS = (
    "more stable",
    "better",
    "provisionally better",
    "leaning to better",
    "leaning to more stable",
)


def headline(verdict: Verdict) -> str:
    """``Does batch norm help an MLP on MNIST? Yes: +0.59 points (+0.24 to +0.94), 12 seeds.``"""
    return f"{question_of(verdict)} {answer_of(verdict)}"


def question_of(verdict: Verdict) -> str:
    """``Does batch norm help an MLP on MNIST?``"""
    subject, place = _subject(verdict)
    values = list(dict.fromkeys(c.candidate.group.value for c in verdict.comparisons))
    if not values:
        return f"How good is {subject or 'this network'}{place}?"
    target = f"{subject or 'the network'}{place}{_blocks(verdict)}"
    if keys := tuned_keys(verdict):
        target += f", each at its best {keys}"
    if _only_norm_differs(verdict):
        norms = {c.candidate.group.value: _norm(c.candidate.group.settings) for c in verdict.comparisons}
        baseline = _norm(verdict.comparisons[0].baseline.group.settings)
        if len(values) > 1:
            return f"Which norm beats {baseline} for {target}?"
        if baseline == NORMS["none"]:
            return f"Does {norms[values[0]]} help {target}?"
        return f"Does {norms[values[0]]} beat {baseline} for {target}?"
    first = verdict.comparisons[0]
    if len(values) > 1:
        return f"Which {verdict.grouping.title} beats {first.baseline.group.value} for {target}?"
    names = [_assignment(verdict, value) for value in (values[0], first.baseline.group.value)]
    return f"Does {names[0]} beat {names[1]} for {target}?"


def _subject(verdict: Verdict) -> tuple[str, str]:
    """The network and the data set, as far as all runs share them: ``an MLP`` and `` on MNIST``."""
    constants, grouping = verdict.grouping.constants, verdict.grouping
    target, dataset = constants.get(f"model{TARGET_SUFFIX}"), constants.get("dataset.name")
    model = MODELS.get(target or "")
    if target and model is None:
        model = grouping.display_value(f"model{TARGET_SUFFIX}", target)
    dataset = DATASETS.get((dataset or "").partition(" ")[0], dataset)  # a folder has its fingerprint
    return model or "", f" on {dataset}" if dataset else ""


def _blocks(verdict: Verdict) -> str:
    blocks, keys = verdict.blocks, verdict.grouping.block_keys
    if len(blocks) < 2:
        return ""
    return f", at {len(blocks)} values of {keys[0]}" if len(keys) == 1 else f", in {len(blocks)} settings"


def _only_norm_differs(verdict: Verdict) -> bool:
    by, implied = verdict.grouping.by, verdict.grouping.implied_keys
    return by == NORM or (by == "model" and implied == (NORM,))


def _norm(settings: Mapping[str, str]) -> str:
    return NORMS.get(settings[NORM], settings[NORM])


def _assignment(verdict: Verdict, value: str) -> str:
    return f"{verdict.grouping.by}={value}"


def answer_of(verdict: Verdict) -> str:
    """``Yes: +0.59 points (+0.24 to +0.94), 12 seeds.``"""
    comparisons = verdict.comparisons
    if not comparisons:
        return "Nothing to compare it with: no verdict."
    if len(comparisons) == 1:
        text = _single_answer(comparisons[0])
        return text[0].upper() + text[1:] + _still_learning(comparisons[0]) + "."
    if sentences := overview(verdict):
        return " ".join(sentences)
    if any(c.is_confounded for c in comparisons):
        return "Not all groups can be compared: see below."
    return _several_answers(comparisons)


def _still_learning(c: GroupComparison) -> str:
    """Why the answer may change with more epochs: the group that is behind was still learning."""
    if c.is_confounded or c.outcome not in ("better", "worse", "leaning", "small"):
        return ""
    return f"; {c.behind.group.assignment} was still learning" if notable_gain(c.behind, c.delta) else ""


def _single_answer(c: GroupComparison) -> str:
    if c.is_confounded:
        return f"cannot be told: the groups also differ in {', '.join(c.confounders)}"
    if c.differs_in_stability:
        return f"{'yes' if c.is_more_stable else 'no'}: {_trained(c)}"
    n = f"{c.difference.n} {agree(c.difference.n, c.noun)}"
    delta = size(c.delta or 0, c.metric)
    sign = "yes" if c.metric.sign * c.difference.mean > 0 else "no"
    answers = {
        "nothing": f"not decided: {_trained(c)}",
        "single": f"no verdict from one {c.noun.removesuffix('s')}",
        "few": f"no verdict from 2 {c.noun}",
        "identical": "it changes nothing: all twins are identical",
        "constant": f"{sign}, by exactly {points(c.difference.mean, c.metric)} in all {n}",
        "better": f"yes: {_effect(c)}, {n}",
        "worse": f"no, it is worse: {_effect(c)}, {n}",
        "leaning": f"it leans to {sign}: {_effect(c)}, {n}",
        "small": f"{sign}, but by less than the {delta} that matter: {_effect(c)}, {n}",
        "equivalent": f"no difference that matters (none beyond {delta}), {n}",
        "undecided": f"not decided: {span(c.difference.low, c.difference.high, c.metric)} fits, {n}",
    }
    prefix = "provisionally " if c.is_provisional and c.outcome in ("better", "worse", "small") else ""
    return prefix + answers[c.outcome]


def _trained(c: GroupComparison) -> str:
    counts = [f"{len(s.values)} of {len(s.attempted)} runs" for s in (c.candidate, c.baseline)]
    return f"{c.candidate.group.label} trained in {counts[0]}, {c.baseline.group.assignment} in {counts[1]}"


def _effect(c: GroupComparison) -> str:
    """``+0.59 points (+0.24 to +0.94)``."""
    return f"{points(c.difference.mean, c.metric)}{unit(c.metric)} ({_interval(c)})"


def _interval(c: GroupComparison) -> str:
    return " to ".join(points(end, c.metric) for end in (c.difference.low, c.difference.high))


def _several_answers(comparisons: Sequence[GroupComparison]) -> str:
    """One clause for the groups with equal standing, the decided ones first."""
    clauses: dict[str, list[str]] = {}
    for c in comparisons:
        clauses.setdefault(_standing(c), []).append(_name_with_effect(c))
    order = [*(standing for standing in BEST_STANDINGS if standing in clauses), *clauses]
    text = "; ".join(f"{standing}: {', '.join(clauses[standing])}" for standing in dict.fromkeys(order))
    if not set(BEST_STANDINGS) & set(clauses):
        return f"None so far; {text}."
    return text[0].upper() + text[1:] + "."


def _standing(c: GroupComparison) -> str:
    if c.differs_in_stability:
        return "more stable" if c.is_more_stable else "less stable"
    if c.leans_in_stability and c.outcome == "nothing":
        return f"leaning to {'more' if c.is_more_stable else 'less'} stable"
    better = "better" if c.metric.sign * c.difference.mean > 0 else "worse"
    standings = {
        "better": better,
        "worse": better,
        "leaning": f"leaning to {better}",
        "constant": better,
        "small": "a difference smaller than what matters",
        "equivalent": "no difference that matters",
        "identical": "identical",
        "undecided": "not decided",
    }
    prefix = "provisionally " if c.is_provisional and c.outcome in ("better", "worse") else ""
    return prefix + standings.get(c.outcome, "no verdict")


def _name_with_effect(c: GroupComparison) -> str:
    if c.outcome in ("better", "worse", "leaning") and not c.differs_in_stability:
        return f"{c.candidate.group.label} ({points(c.difference.mean, c.metric)})"
    return c.candidate.group.label
