"""Balanced accuracy beside accuracy, where the classes of the test set are uneven."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bnexp.report.analysis.group_comparison import measure_difference
from bnexp.report.analysis.group_summary import BALANCED_METRIC, DEFAULT_METRIC, GroupSummary, Metric
from bnexp.report.analysis.statistical_tests import Difference, mean_sd
from bnexp.report.analysis.verdict import Verdict

METRIC = Metric(BALANCED_METRIC)


@dataclass(frozen=True)
class BalancedAccuracy:
    """A group's mean and deviation in percent, and its difference from its baseline in points."""

    mean: float
    sd: float
    difference: Difference | None


def balanced_accuracy_of(summary: GroupSummary, verdict: Verdict) -> BalancedAccuracy | None:
    """At the compared epoch; at the final one where a mean of epochs is compared, which records none.

    None where the verdict is not on test accuracy, and where a usable run has none: the classes are even, or
    the run is an older one.
    """
    if verdict.metric.key != DEFAULT_METRIC:
        return None
    is_final = verdict.rule != "best"
    balanced = replace(summary, metric=METRIC)
    values = [*balanced.values_at("final" if is_final else "best").values()]
    if not values or any(map(math.isnan, values)):
        return None
    difference, c = None, verdict.comparison_of(summary)
    if c is not None and balanced_accuracy_of(c.baseline, verdict) is not None:
        baseline = replace(c.baseline, metric=METRIC)
        difference = measure_difference(balanced, baseline, c.is_paired, c.test, None, at_final=is_final)
    return BalancedAccuracy(*mean_sd(values), difference)
