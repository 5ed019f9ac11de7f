"""The parts of a measurement: arms, numbers with intervals, curves and panels."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bnexp.report.analysis.statistical_tests import mean_sd
from bnexp.report.read.probe_tables import ProbeTable
from bnexp.report.read.runs import PairKey

MIN_SEEDS = 3  # for an interval
PerSeed = Mapping[PairKey, float]
Claim = Literal["smaller", "greater", "not smaller", ""]


@dataclass(frozen=True)
class Arm:
    """A group of runs and the tables of one probe, by seed and fold.

    An arm is compared with the baseline of its ``block``, as in the verdict. ``index`` tells the arms apart
    in a picture.
    """

    name: str
    index: int
    block: str
    is_baseline: bool
    settings: Mapping[str, Any]
    tables: Mapping[PairKey, ProbeTable]

    def per_seed(self, number: Callable[[ProbeTable], float]) -> dict[PairKey, float]:
        """The number of each run, where it is finite."""
        values = {key: number(table) for key, table in self.tables.items()}
        return {key: value for key, value in values.items() if math.isfinite(value)}

    def estimate(self, number: Callable[[ProbeTable], float]) -> Estimate:
        """The number's mean and interval over the runs in which it is finite."""
        return estimate([*self.per_seed(number).values()])


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % t interval; low and high are nan for fewer than three seeds."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        seeds = f"{self.n} seed{'s' * (self.n != 1)}"
        if math.isnan(self.low):
            return f"{self.mean:.4g} ({seeds})"
        digits = _digits(self.high - self.low)
        numbers = [self._text(value, digits) for value in (self.mean, self.low, self.high)]
        return f"{numbers[0]} ({numbers[1]} to {numbers[2]}, {seeds})"

    def _text(self, value: float, digits: int) -> str:
        return f"{value:.{digits}f}"


class Ratio(Estimate):
    """A geometric mean of positive numbers, each end of whose interval shows two digits at least."""

    def _text(self, value: float, digits: int) -> str:
        return f"{value:.{max(digits, _digits(value))}f}" if value >= 1e-4 else f"{value:.1e}"


@dataclass(frozen=True)
class Number:
    """A measured number of one arm, and the theory's or the published value where there is one."""

    name: str
    arm: str
    estimate: Estimate
    expected: float | None = None
    source: str = ""


@dataclass(frozen=True)
class Curve:
    """A line of one arm: the mean over seeds, and the least and greatest seed as its band."""

    label: str
    arm: int
    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Panel:
    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    x_scale: Literal["linear", "log"] = "linear"
    y_scale: Literal["linear", "log"] = "linear"
    lines: Sequence[tuple[float, str]] = ()  # horizontal lines of a theory, with their labels


@dataclass(frozen=True)
class Measurement:
    """What one probe shows."""

    probe: str
    title: str  # the question that the picture answers
    sentences: Sequence[str]
    numbers: Sequence[Number]
    panels: Sequence[Panel]
    caption: str


def measured_numbers(arms: Sequence[Arm], name: str, number: Callable[[ProbeTable], float]) -> list[Number]:
    """The number of each arm that has it in a run."""
    estimates = [(arm.name, arm.estimate(number)) for arm in arms]
    return [Number(name, arm, value) for arm, value in estimates if value.n]


def comparisons(arms: Sequence[Arm]) -> list[tuple[Arm, Arm]]:
    """Each arm with the baseline of its block."""
    baselines = {arm.block: arm for arm in arms if arm.is_baseline}
    return [(arm, baselines[arm.block]) for arm in arms if not arm.is_baseline and arm.block in baselines]


def has_batch_norm(arm: Arm) -> bool:
    return str(arm.settings.get("model.norm")) in ("batch", "batch_manual")


def is_batch_norm_against_other(arm: Arm, baseline: Arm) -> bool:
    """Whether what a paper claims of batch norm is about this pair."""
    return has_batch_norm(arm) and not has_batch_norm(baseline)


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95 % t interval of independent values."""
    n = len(values)
    mean, sd = mean_sd(list(values))
    if n < MIN_SEEDS:
        return Estimate(mean, math.nan, math.nan, n)
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)


def ratio(candidate: PerSeed, baseline: PerSeed) -> Ratio:
    """The geometric mean over seeds of candidate / baseline, with the interval of its logarithm.

    The runs are paired by seed. Only positive numbers count.
    """
    keys = [key for key in candidate if baseline.get(key, 0) > 0 and candidate[key] > 0]
    logs = estimate([math.log(candidate[key] / baseline[key]) for key in keys])
    mean, low, high = (math.exp(value) for value in (logs.mean, logs.low, logs.high))
    return Ratio(mean, low, high, logs.n)


def compare_sentences(
    quantity: str,
    number: Callable[[ProbeTable], float],
    pair: tuple[Arm, Arm],
    *,
    claim: Claim,
    source: str = "",
) -> list[str]:
    """A sentence on ``number`` of the candidate / that of the baseline, held against what a source claims.

    It says plainly where the claim does not show. There is none without a seed that has both numbers.
    """
    candidate, baseline = pair
    quotient = ratio(candidate.per_seed(number), baseline.per_seed(number))
    if not quotient.n:
        return []
    text = f"{quantity}: with {candidate.name} {quotient} times that with {baseline.name}"
    return [_against_claim(text, quotient, claim, source)]


def _against_claim(text: str, quotient: Estimate, claim: str, source: str) -> str:
    if not claim:
        return f"{text}."
    if math.isnan(quotient.low):
        return f"{text}; too few seeds to hold against {source}, who report{_agreement(source)} it {claim}."
    is_undecided = quotient.low <= 1 <= quotient.high
    if claim == "not smaller" and quotient.high >= 1:
        finding = "not decided" if is_undecided else "greater"
        return f"{text}: {finding}. {source} report{_agreement(source)} it not smaller; this agrees."
    if is_undecided:
        return (
            f"{text}: not decided. {source} report{_agreement(source)} it {claim}; that does not show here."
        )
    direction = "smaller" if quotient.high < 1 else "greater"
    if direction == claim:
        return f"{text}: {claim}, as {source} report{_agreement(source)}."
    return f"{text}: {direction}. {source} report{_agreement(source)} it {claim}; that does not show here."


def _agreement(source: str) -> str:
    """The end of the verb: several authors report, a single work reports."""
    return "" if "et al." in source or "&" in source else "s"


def curve_over_seeds(
    arm: Arm, points: Callable[[ProbeTable], Mapping[float, float]], label: str = ""
) -> Curve:
    """A line of one arm: ``points`` gives y by x for one run. An x that some run lacks is left out."""
    lines = [points(table) for table in arm.tables.values()]
    shared = sorted(set.intersection(*(set(line) for line in lines))) if lines else []
    columns = {x: [line[x] for line in lines] for x in shared}
    finite = [x for x in shared if all(map(math.isfinite, columns[x]))]
    return Curve(
        label or arm.name, arm.index, finite,
        [statistics.fmean(columns[x]) for x in finite],
        [min(columns[x]) for x in finite], [max(columns[x]) for x in finite],
    )  # fmt: skip


def _digits(width: float) -> int:
    """Decimal places that show two digits of an interval's width."""
    return max(0, 1 - math.floor(math.log10(width))) if width > 0 else 3
