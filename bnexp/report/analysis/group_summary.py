"""What the runs of one group came to: values by twin, how many diverged, what they cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from bnexp.report.analysis import statistical_tests as st
from bnexp.report.analysis.curves import TimeToTarget
from bnexp.report.analysis.groups import Group
from bnexp.report.read.runs import Run, Twin

METRIC = "test/accuracy"
SECONDARY = tuple(f"{split}/{name}" for split in ("val", "test") for name in ("accuracy", "loss"))


@dataclass(frozen=True)
class Metric:
    """A final metric: accuracies in per cent and points, losses as they are."""

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
        """+1 where more is better."""
        return -1 if self.key.endswith("loss") else 1


@dataclass(frozen=True)
class GroupSummary:
    """One group: its values by twin, in the metric's units, and what its runs cost."""

    group: Group
    metric: Metric
    split: str  # whose curves are shown: val, or test where nothing was held out
    target: TimeToTarget | None

    @cached_property
    def usable_runs(self) -> list[Run]:
        """The runs whose accuracy counts: those that did not diverge."""
        return [run for run in self.group.runs if not is_lost(run)]

    @cached_property
    def values(self) -> dict[Twin, float]:
        return {run.twin: self.metric.scale * run.final[self.metric.key] for run in self.usable_runs}

    @cached_property
    def best(self) -> dict[Twin, float]:
        """The metric at the epoch that val chose."""
        key = self.metric.key
        return {run.twin: self.metric.scale * run.best[key] for run in self.usable_runs if key in run.best}

    @cached_property
    def diverged(self) -> tuple[Twin, ...]:
        return tuple(run.twin for run in self.group.runs if run.twin not in self.values)

    @property
    def failure_kind(self) -> str:
        """What became of those: a loss that was not finite, an accuracy no better than chance, or either."""
        lost = [run for run in self.group.runs if run.twin not in self.values]
        ways = {"diverged": not_finite, "ended at chance": at_chance}
        return " or ".join(way for way, true in ways.items() if any(map(true, lost)))

    @cached_property
    def attempted(self) -> set[Twin]:
        return {run.twin for run in self.group.runs}

    @property
    def divergence_rate(self) -> float:
        """The share that diverged."""
        return len(self.diverged) / len(self.group.runs)

    @cached_property
    def mean(self) -> float:
        return st.mean_sd([*self.values.values()])[0]

    @cached_property
    def sd(self) -> float:
        return st.mean_sd([*self.values.values()])[1]

    @cached_property
    def secondary(self) -> dict[str, tuple[int, float, float]]:
        """n, mean and sd of every metric, at the final and at the best epoch."""
        found = {}
        for where in ("final", "best"):
            for key in SECONDARY:
                held = [getattr(run, where) for run in self.usable_runs]
                if values := [Metric(key).scale * metrics[key] for metrics in held if key in metrics]:
                    found[f"{where} {key}"] = (len(values), *st.mean_sd(values))
        return found

    @property
    def images_per_s(self) -> float:
        return st.mean_sd([run.images_per_s for run in self.usable_runs])[0]

    @property
    def parameters(self) -> float:
        return next((run.parameters for run in self.group.runs if run.parameters > 0), math.nan)


def is_lost(run: Run) -> bool:
    """Diverged in the wide sense, by the declared rule: a loss that was not finite, or chance at the end."""
    return not_finite(run) or at_chance(run)


def not_finite(run: Run) -> bool:
    return run.diverged or not all(map(math.isfinite, run.final.values()))


def at_chance(run: Run) -> bool:
    """A test accuracy of at most q + 3 sqrt(q (1 - q) / N) on N images, q the share of the largest class.

    Always naming that class gets q; it is 1/c of c classes where it is not known.
    """
    if run.largest is None or "test" not in run.images:
        return False
    bound = run.largest + 3 * math.sqrt(run.largest * (1 - run.largest) / run.images["test"])
    return run.final.get(METRIC, math.nan) <= bound
