"""How many more seeds would decide a comparison, and the commands that train them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bnexp.report.analysis.groups import Group
from bnexp.report.analysis.statistical_tests import Difference, seeds_to_decide, upper_sd
from bnexp.report.read.runs import PairKey
from bnexp.runs.identity import PAIRING_KEYS

ENOUGH_SEEDS = 5  # fewer give at most a provisional verdict
MAX_FORECAST = 50  # more seeds than this are not the remedy


@dataclass(frozen=True)
class SampleSizePlan:
    """From ``low`` to ``high`` more seeds probably decide. Equal numbers: they give a first verdict."""

    low: int
    high: int

    @property
    def is_forecast(self) -> bool:
        return self.high > self.low or self.low > ENOUGH_SEEDS

    @property
    def is_hopeless(self) -> bool:
        return self.low > MAX_FORECAST


def plan_sample_size(difference: Difference, delta: float | None, is_decided: bool) -> SampleSizePlan | None:
    """Seeds that decide with 80 % power: with the observed deviation, and with its upper 80 % limit.

    Below four pairs the deviation is hardly known: then there is no forecast, and the plan is a first
    verdict with 5. None where no more seeds are needed or no number of seeds suffices.
    """
    missing = max(ENOUGH_SEEDS - difference.n, 0)
    if is_decided or difference.n < 4 or math.isnan(difference.p):
        has_no_spread = difference.n > 2 and math.isnan(difference.p)
        return SampleSizePlan(missing, missing) if missing and not has_no_spread else None
    sds = (difference.sd, upper_sd(difference.sd, difference.df))
    low, high = (seeds_to_decide(difference.mean, sd, delta) - difference.n for sd in sds)
    if math.isinf(low):
        return None
    least = max(missing, 1)
    return SampleSizePlan(max(math.ceil(low), least), max(math.ceil(high), least))


def resume_command(groups: Sequence[Group], override: str) -> str | None:
    """``bnexp-resume SWEEP override`` for groups whose runs all lie in one sweep's folder; else None."""
    sweeps = {Path(run.folder).parent for group in groups for run in group.runs}
    if len(sweeps) != 1 or not ((sweep := sweeps.pop()) / "multirun.yaml").exists():
        return None
    return f"bnexp-resume {shlex.quote(str(sweep))} {shlex.quote(override)}"


def new_seeds(groups: Iterable[Group], count: int) -> str:
    """The override of ``count`` seeds that no group has used: ``seed=5,6`` or ``seed=range(5,20)``."""
    runs = [run for group in groups for run in group.runs]
    folds = {run.fold for run in runs if run.fold is not None}
    first = 1 + max(run.seed for run in runs)
    end = first + math.ceil(count / max(len(folds), 1))  # a seed gives one run a fold
    return f"seed={','.join(map(str, range(first, end))) if end - first <= 5 else f'range({first},{end})'}"


def sweep_commands(groups: Sequence[Group], seeds: str) -> tuple[str, ...]:
    """Commands that train ``seeds``, an override, of each group: one sweep where one override differs.

    Otherwise one command a group. Empty where the runs of a group were started with different overrides.
    """
    per_group = [overrides for group in groups if (overrides := shared_overrides(group)) is not None]
    if len(per_group) < len(groups):
        return ()
    folds = sorted({run.fold for group in groups for run in group.runs if run.fold is not None})
    repetitions = ({"dataset.fold": ",".join(map(str, folds))} if folds else {}) | {"seed": seeds[5:]}
    keys = dict.fromkeys(key for overrides in per_group for key in overrides)
    differing_keys = [key for key in keys if len({overrides.get(key) for overrides in per_group}) > 1]
    if len(differing_keys) == 1 and all(differing_keys[0] in overrides for overrides in per_group):
        (key,) = differing_keys
        values = ",".join(overrides[key] for overrides in per_group)
        return (_command(per_group[0] | {key: values} | repetitions),)
    return tuple(_command(overrides | repetitions) for overrides in per_group)


def missing_twins_command(group: Group, missing: Sequence[PairKey]) -> str | None:
    """The command that trains the seeds and folds of ``missing`` for one group; None if it is not known.

    A sweep that was cut short is resumed.
    """
    sweeps = {Path(run.folder).parent for run in group.runs}
    if len(sweeps) == 1 and ((sweep := sweeps.pop()) / "multirun.yaml").exists():
        return f"bnexp-resume {shlex.quote(str(sweep))}"
    overrides = shared_overrides(group)
    if overrides is None:
        return None
    for key, values in zip(PAIRING_KEYS, zip(*missing, strict=True), strict=True):
        if choices := list(dict.fromkeys(str(value) for value in values if value is not None)):
            overrides = overrides | {key: ",".join(choices)}
    return _command(overrides)


def shared_overrides(group: Group) -> dict[str, str] | None:
    """The overrides of a group's runs without seed and fold; None where the runs disagree."""
    overrides = [
        {key: value for key, value in run.overrides.items() if key not in PAIRING_KEYS} for run in group.runs
    ]
    return overrides[0] if overrides and all(other == overrides[0] for other in overrides) else None


def _command(overrides: dict[str, str]) -> str:
    return "bnexp -m " + " ".join(shlex.quote(f"{key}={value}") for key, value in overrides.items())
