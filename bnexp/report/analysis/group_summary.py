"""What one group's runs achieved: values by seed, how many were lost, what they cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from bnexp.report.analysis.curves import TimeToTarget
from bnexp.report.analysis.epoch_rule import EpochRule, value_at
from bnexp.report.analysis.groups import Group
from bnexp.report.analysis.statistical_tests import mean_sd
from bnexp.report.read.runs import PairKey, Run
from bnexp.runs.chance import is_at_chance
from bnexp.runs.confusion import BALANCED_ACCURACY

DEFAULT_METRIC = "test/accuracy"
BALANCED_METRIC = f"test/{BALANCED_ACCURACY}"
SECONDARY_METRICS = ("val/accuracy", "val/loss", "test/accuracy", BALANCED_METRIC, "test/loss")


@dataclass(frozen=True)
class Metric:
    """A metric of a run: accuracies are shown in percent and points, losses as they are."""

    key: str

    @property
    def is_accuracy(self) -> bool:
        return self.key.endswith(("/accuracy", f"/{BALANCED_ACCURACY}"))

    @property
    def label(self) -> str:
        return self.key.replace("/", " ").replace(BALANCED_ACCURACY, "balanced accuracy")

    @property
    def name(self) -> str:
        """The label without its split."""
        return self.label.partition(" ")[2] or self.label

    @property
    def scale(self) -> float:
        return 100.0 if self.is_accuracy else 1.0

    @property
    def sign(self) -> int:
        """+1 where a higher value is better, -1 where a lower one is."""
        return -1 if self.key.endswith("loss") else 1


@dataclass(frozen=True)
class GroupSummary:
    """One group: its values by seed and fold, in the metric's unit, and what its runs cost.

    A run is lost if its loss was not finite or its network is at chance. A lost run has no value.
    """

    group: Group
    metric: Metric
    rule: EpochRule
    split: str  # whose curves are shown: val, or test where nothing was held out
    target: TimeToTarget | None

    @cached_property
    def usable_runs(self) -> list[Run]:
        """The runs that were not lost."""
        return [run for run in self.group.runs if is_usable(run, self.rule)]

    @cached_property
    def values(self) -> dict[PairKey, float]:
        return self.values_at(self.rule)

    def values_at(self, rule: EpochRule) -> dict[PairKey, float]:
        """The values of the usable runs by another rule."""
        key, scale = self.metric.key, self.metric.scale
        return {run.pair_key: scale * value_at(run, key, rule) for run in self.usable_runs}

    @cached_property
    def lost_runs(self) -> tuple[Run, ...]:
        return tuple(run for run in self.group.runs if run.pair_key not in self.values)

    @property
    def lost_keys(self) -> set[PairKey]:
        return {run.pair_key for run in self.lost_runs}

    @cached_property
    def lost_values(self) -> tuple[float, ...]:
        """What the lost runs reached all the same, where it is a number."""
        values = [
            self.metric.scale * value_at(run, self.metric.key, self.rule)
            for run in self.lost_runs
            if not has_nonfinite_loss(run)
        ]
        return tuple(value for value in values if math.isfinite(value))

    @property
    def ended_early(self) -> list[Run]:
        """The runs that early stopping ended before their last epoch."""
        return [run for run in self.group.runs if run.ended_early]

    @property
    def failure_kind(self) -> str:
        """How the lost runs ended: "diverged", "at chance" or "diverged or at chance"."""
        at_chance = [not has_nonfinite_loss(run) for run in self.lost_runs]
        kinds = ("diverged" if not all(at_chance) else "", "at chance" if any(at_chance) else "")
        return " or ".join(kind for kind in kinds if kind)

    @cached_property
    def attempted(self) -> set[PairKey]:
        return {run.pair_key for run in self.group.runs}

    @property
    def lost_rate(self) -> float:
        return len(self.lost_runs) / len(self.group.runs)

    @cached_property
    def mean(self) -> float:
        return mean_sd([*self.values.values()])[0]

    @cached_property
    def sd(self) -> float:
        return mean_sd([*self.values.values()])[1]

    @cached_property
    def secondary(self) -> dict[str, tuple[int, float, float]]:
        """n, mean and sd of each metric, at the final and at the best epoch."""
        spreads = {}
        for epoch in ("final", "best"):
            for key in SECONDARY_METRICS:
                metrics = [run.final if epoch == "final" else run.best for run in self.usable_runs]
                if values := [Metric(key).scale * numbers[key] for numbers in metrics if key in numbers]:
                    spreads[f"{epoch} {key}"] = (len(values), *mean_sd(values))
        return spreads

    @property
    def images_per_s(self) -> float:
        return mean_sd([run.images_per_s for run in self.usable_runs])[0]

    @property
    def parameters(self) -> float:
        return next((run.parameters for run in self.group.runs if run.parameters > 0), math.nan)


def is_usable(run: Run, rule: EpochRule) -> bool:
    """False for a run that is lost: its loss was not finite, or its network is at chance."""
    return not has_nonfinite_loss(run) and not _is_at_chance(run, rule)


def has_nonfinite_loss(run: Run) -> bool:
    """The run stopped at a loss that was nan or infinite, or one of its final metrics is."""
    return run.diverged or not all(map(math.isfinite, run.final.values()))


def _is_at_chance(run: Run, rule: EpochRule) -> bool:
    """Whether the compared network learned nothing, by its test accuracy and its own predictions."""
    accuracy = value_at(run, DEFAULT_METRIC, rule)
    if math.isnan(accuracy):
        accuracy, rule = run.final.get(DEFAULT_METRIC, math.nan), "final"
    predictions = run.predictions.get("best" if rule == "best" else "final", ())
    return is_at_chance(accuracy, run.majority, predictions)
