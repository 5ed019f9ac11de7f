"""Which epoch's network is compared: the one that validation chose, the mean of the last ones, or the final.

The final epoch at a constant learning rate is mostly noise. The network that a user keeps is the one that
validation chose, and its accuracy varies two to five times less between seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

from bnexp.errors import UserError, bad_choice
from bnexp.report.read.runs import Run

EpochRule = Literal["best", "mean", "final"]
RULES: tuple[EpochRule, ...] = ("best", "mean", "final")
LAST_SHARE = 0.3  # of the epochs, for the mean
DESCRIPTIONS = {
    "best": "epoch chosen by validation",
    "mean": "mean of the last epochs",
    "final": "final epoch",
}


def value_at(run: Run, key: str, rule: EpochRule) -> float:
    """A run's metric by the rule; nan where the run did not record it."""
    if rule == "best":
        return run.best.get(key, math.nan)
    if rule == "final":
        return run.final.get(key, math.nan)
    logged = run.curves.get(key, ())
    last = logged[len(logged) - max(1, int(LAST_SHARE * len(logged))) :]
    return statistics.fmean(last) if last else math.nan


def choose_epoch_rule(runs: Sequence[Run], key: str, requested: str | None) -> EpochRule:
    """The rule that ``--epoch`` requests, else the recorded ``report.epoch`` of all runs, else the default.

    The default is "best" where every run has the metric at its best epoch, "mean" where every run logged the
    metric each epoch, and "final" otherwise. Raises UserError for a requested rule that a run cannot follow.
    """
    if requested is not None and requested not in RULES:
        raise bad_choice("--epoch", requested, RULES)
    complete = [run for run in runs if not run.diverged]
    possible = [rule for rule in RULES if not any(math.isnan(value_at(run, key, rule)) for run in complete)]
    recorded = {run.epoch_rule for run in runs}
    rule = requested or (recorded.pop() if len(recorded) == 1 else "auto")
    if rule in possible:
        return next(name for name in RULES if name == rule)
    if requested:
        without = next(run for run in complete if math.isnan(value_at(run, key, rule)))  # type: ignore[arg-type]
        raise UserError(
            f"--epoch={rule}: {without.folder} has no {key} for it ({DESCRIPTIONS[rule]}); "
            f"must be one of {', '.join(possible)}"
        )
    return possible[0] if possible else "final"
