"""How many more seeds would decide a comparison, and the command that trains them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bnexp.report.analysis.groups import Group
from bnexp.report.analysis.statistical_tests import Difference, seeds_for, upper_sd

ENOUGH_SEEDS = 5  # fewer give at most a provisional verdict
PAIRING_KEYS = ("seed", "dataset.fold")


@dataclass(frozen=True)
class SampleSizePlan:
    """``seeds`` more give a 95 % interval of ± ``half_width``; nan: they give a first verdict."""

    seeds: int
    half_width: float


def plan_sample_size(difference: Difference, delta: float | None, is_decided: bool) -> SampleSizePlan | None:
    """Seeds for a half-width of max(delta, |mean|) / 2, planned with the upper 80 % limit of the deviation.

    At a half-width of delta / 2 every comparison is decided: the interval excludes 0 or lies within ± delta.
    At |mean| / 2 a difference as large as the observed one is clearly not 0. Unpaired groups are planned with
    the deviation sqrt(sd1^2 + sd2^2) (``Difference.sd``), because their half-width is t sqrt((sd1^2 + sd2^2)
    / n) at n runs in each. None where no more seeds are needed or no number of seeds suffices.
    """
    if is_decided and difference.n >= ENOUGH_SEEDS:
        return None
    if is_decided or difference.n < 3 or math.isnan(difference.p):
        seeds, half_width = ENOUGH_SEEDS - difference.n, math.nan
    else:
        half_width = max(delta or 0.0, abs(difference.mean)) / 2
        sd = upper_sd(difference.sd, difference.df)
        needed = seeds_for(half_width, sd) if half_width else None
        if needed is None:
            return None
        seeds = max(needed, ENOUGH_SEEDS) - difference.n
    return SampleSizePlan(seeds, half_width) if seeds > 0 else None


def sweep_commands(groups: Sequence[Group], seeds: int) -> tuple[str, ...]:
    """Commands that train ``seeds`` new seeds of each group: one sweep if the groups differ in one override.

    Otherwise one command a group. Empty where the runs of a group were started with different overrides.
    """
    per_group = [overrides for group in groups if (overrides := _shared_overrides(group)) is not None]
    if len(per_group) < len(groups):
        return ()
    new_seeds = _new_seeds(groups, seeds)
    keys = dict.fromkeys(key for overrides in per_group for key in overrides)
    differing_keys = [key for key in keys if len({overrides.get(key) for overrides in per_group}) > 1]
    if len(differing_keys) == 1 and all(differing_keys[0] in overrides for overrides in per_group):
        (key,) = differing_keys
        values = ",".join(overrides[key] for overrides in per_group)
        return (_command(per_group[0] | {key: values} | new_seeds),)
    return tuple(_command(overrides | new_seeds) for overrides in per_group)


def _new_seeds(groups: Sequence[Group], seeds: int) -> dict[str, str]:
    """The overrides of the new runs: folds, seeds, and the folder of the sweep that they join."""
    runs = [run for group in groups for run in group.runs]
    folds = sorted({run.fold for run in runs if run.fold is not None})
    first = 1 + max(run.seed for run in runs)
    end = first + math.ceil(seeds / max(len(folds), 1))  # a seed gives one run a fold
    choices = ",".join(map(str, range(first, end))) if end - first <= 5 else f"range({first},{end})"
    overrides = ({"dataset.fold": ",".join(map(str, folds))} if folds else {}) | {"seed": choices}
    sweeps = {Path(run.folder).parent for run in runs}
    if len(sweeps) == 1 and ((sweep := sweeps.pop()) / "multirun.yaml").exists():
        overrides["hydra.sweep.dir"] = str(sweep)  # its verdict then covers the old and the new runs
    return overrides


def _shared_overrides(group: Group) -> dict[str, str] | None:
    """The overrides of a group's runs without seed and fold; None where the runs disagree."""
    overrides = [
        {key: value for key, value in run.overrides.items() if key not in PAIRING_KEYS} for run in group.runs
    ]
    return overrides[0] if overrides and all(other == overrides[0] for other in overrides) else None


def _command(overrides: dict[str, str]) -> str:
    return "bnexp -m " + " ".join(shlex.quote(f"{key}={value}") for key, value in overrides.items())
