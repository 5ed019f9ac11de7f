"""How many more seeds would decide, and the command that trains them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bnexp.report.analysis.groups import Group
from bnexp.report.analysis.statistical_tests import Difference, seeds_for, upper_sd

ENOUGH_SEEDS = 5  # twins from which a verdict is one
PAIRING = ("seed", "dataset.fold")


@dataclass(frozen=True)
class SampleSizePlan:
    """``more`` seeds for a 95 % interval of ± ``half_width`` (nan: for a first verdict)."""

    more: int
    half_width: float


def plan_sample_size(found: Difference, delta: float | None, decided: bool) -> SampleSizePlan | None:
    """Seeds to the half-width max(delta, |mean|) / 2, planned with the upper 80 % limit of the deviation.

    At delta / 2 every difference is decided: the interval leaves 0 out or lies within ± delta. A difference
    as large as the one seen is clear of 0 at half its size already. None where nothing is left to decide.
    """
    if decided and found.n >= ENOUGH_SEEDS:
        return None
    if decided or found.n < 3 or math.isnan(found.p):
        more, half = ENOUGH_SEEDS - found.n, math.nan
    else:
        half = max(delta or 0.0, abs(found.mean)) / 2
        wanted = seeds_for(half, upper_sd(found.sd, found.df)) if half else None
        if wanted is None:
            return None
        more = max(wanted, ENOUGH_SEEDS) - found.n
    return SampleSizePlan(more, half) if more > 0 else None


def commands(groups: Sequence[Group], more: int) -> tuple[str, ...]:
    """The groups with new seeds: one sweep where they differ in one override, else one for each.

    Empty where the runs of a group were not all started with the same words.
    """
    words = [found for group in groups if (found := _words(group)) is not None]
    if len(words) < len(groups):
        return ()
    runs = [run for group in groups for run in group.runs]
    first = 1 + max(run.seed for run in runs)
    folds = sorted({run.fold for run in runs if run.fold is not None})
    last = first + math.ceil(more / max(len(folds), 1))  # each seed brings a twin a fold
    seeds = ",".join(map(str, range(first, last))) if last - first <= 5 else f"range({first},{last})"
    folders = {Path(run.folder).parent for run in runs}
    sweep = folders.pop() if len(folders) == 1 else None
    tail = ({"dataset.fold": ",".join(map(str, folds))} if folds else {}) | {"seed": seeds}
    if sweep and (sweep / "multirun.yaml").exists():  # the new runs join the old, and the verdict is on both
        tail["hydra.sweep.dir"] = str(sweep)
    keys = list(dict.fromkeys(key for one in words for key in one))
    unlike = [key for key in keys if len({one.get(key) for one in words}) > 1]
    if len(unlike) == 1 and all(unlike[0] in one for one in words):
        joined = words[0] | {unlike[0]: ",".join(one[unlike[0]] for one in words)}
        return (_command(joined | tail),)
    return tuple(_command(one | tail) for one in words)


def _words(group: Group) -> dict[str, str] | None:
    """The overrides that all runs of a group share, or None where they disagree."""
    found = [{k: v for k, v in run.overrides.items() if k not in PAIRING} for run in group.runs]
    return found[0] if found and all(words == found[0] for words in found) else None


def _command(words: dict[str, str]) -> str:
    return "bnexp -m " + " ".join(shlex.quote(f"{key}={value}") for key, value in words.items())
