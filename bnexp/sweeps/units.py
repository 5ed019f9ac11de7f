"""Which jobs of a sweep are trained together, and in which order the units are trained."""

from __future__ import annotations

from collections.abc import Sequence

from bnexp.config.schema import parse
from bnexp.runs.job import Job
from bnexp.sweeps.launchers.launcher import Unit
from bnexp.training.fused.obstacles import reason_not_to_fuse

# More seeds in one step gain little on a CPU, and a stop or a lost worker costs all of a unit.
DEFAULT_FUSE = 8


def make_units(jobs: Sequence[Job], fuse: int | None, workers: int) -> list[Unit]:
    """Units of at most ``fuse`` seeds of one recipe, in parts of nearly the same size.

    Where ``fuse`` is None the units are small enough to give each of the ``workers`` one.

    The first units of all recipes come first, then the second ones: the arms of a comparison keep pace, and a
    sweep that is cut short compares what it has.
    """
    recipes: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        recipes.setdefault(recipe_of(job), []).append(job)
    size = fuse or min(DEFAULT_FUSE, max(1, len(jobs) // workers))
    parts = [_parts(recipe, size) for recipe in recipes.values()]
    most = max(map(len, parts), default=0)
    return [units[number] for number in range(most) for units in parts if number < len(units)]


def recipe_of(job: Job) -> tuple[str, ...]:
    """Its overrides without the seed: the seeds of one recipe differ in nothing else."""
    return tuple(override for override in job.overrides if not override.startswith("seed="))


def _parts(jobs: list[Job], fuse: int) -> list[Unit]:
    if fuse == 1 or len(jobs) == 1 or reason_not_to_fuse(parse(jobs[0].values)) is not None:
        return [Unit((job,)) for job in jobs]
    count = -(-len(jobs) // fuse)
    return [
        Unit(tuple(jobs[part * len(jobs) // count : (part + 1) * len(jobs) // count]))
        for part in range(count)
    ]
