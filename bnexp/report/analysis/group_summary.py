"""What one group's runs achieved: values by seed, how many diverged, what they cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from bnexp.report.analysis.curves import TimeToTarget
from bnexp.report.analysis.groups import Group
from bnexp.report.analysis.statistical_tests import mean_sd
from bnexp.report.read.runs import PairKey, Run

DEFAULT_METRIC = "test/accuracy"
SECONDARY_METRICS = tuple(f"{split}/{name}" for split in ("val", "test") for name in ("accuracy", "loss"))


@dataclass(frozen=True)
class Metric:
    """A final metric: accuracies are shown in percent and points, losses as they are."""

    key: str

    @property
    def is_accuracy(self) -> bool:
        return self.key.endswith("/accuracy")

    @property
    def label(self) -> str:
        return self.key.replace("/", " ")

    @property
    def scale(self) -> float:
        return 100.0 if self.is_accuracy else 1.0

    @property
    def sign(self) -> int:
        """+1 where a higher value is better, -1 where a lower one is."""
        return -1 if self.key.endswith("loss") else 1


@dataclass(frozen=True)
class GroupSummary:
    """One group: its values by seed and fold, in the metric's unit, and what its runs cost."""

    group: Group
    metric: Metric
    split: str  # whose curves are shown: val, or test where nothing was held out
    target: TimeToTarget | None

    @cached_property
    def usable_runs(self) -> list[Run]:
        """The runs whose metrics count: those that did not diverge."""
        return [run for run in self.group.runs if is_usable(run)]

    @cached_property
    def values(self) -> dict[PairKey, float]:
        return {run.pair_key: self.metric.scale * run.final[self.metric.key] for run in self.usable_runs}

    @cached_property
    def values_at_best_val(self) -> dict[PairKey, float]:
        """The metric at the epoch with the best validation value."""
        key, runs = self.metric.key, self.usable_runs
        return {run.pair_key: self.metric.scale * run.best[key] for run in runs if key in run.best}

    @cached_property
    def diverged(self) -> tuple[PairKey, ...]:
        return tuple(run.pair_key for run in self.group.runs if run.pair_key not in self.values)

    @property
    def failure_kind(self) -> str:
        """How the diverged runs ended: "diverged", "ended at chance" or "diverged or ended at chance"."""
        failures = [run for run in self.group.runs if run.pair_key not in self.values]
        tests = {"diverged": has_nonfinite_loss, "ended at chance": is_at_chance}
        return " or ".join(kind for kind, test in tests.items() if any(map(test, failures)))

    @cached_property
    def attempted(self) -> set[PairKey]:
        return {run.pair_key for run in self.group.runs}

    @property
    def divergence_rate(self) -> float:
        return len(self.diverged) / len(self.group.runs)

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


def is_usable(run: Run) -> bool:
    """False for a run that counts as diverged: its loss was not finite, or it ended at chance."""
    return not has_nonfinite_loss(run) and not is_at_chance(run)


def has_nonfinite_loss(run: Run) -> bool:
    """The run stopped at a loss that was nan or infinite, or one of its final metrics is."""
    return run.diverged or not all(map(math.isfinite, run.final.values()))


def is_at_chance(run: Run) -> bool:
    """Test accuracy at most q + 3 sqrt(q (1 - q) / N) on N test images, q the largest class's share of them.

    A run that always predicts the largest class reaches q.
    """
    if run.majority is None or "test" not in run.images:
        return False
    q = run.majority
    return run.final.get(DEFAULT_METRIC, math.nan) <= q + 3 * math.sqrt(q * (1 - q) / run.images["test"])
