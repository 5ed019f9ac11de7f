"""Which jobs of a sweep are trained together."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_module

from bnexp.cli.composed_config import resolve_config
from bnexp.runs.job import Job
from bnexp.sweeps.units import make_units


def jobs(seeds: int, *recipes: str) -> list[Job]:
    """The jobs of these overrides, the seeds outermost."""
    with initialize_config_module("bnexp.conf", version_base="1.3"):
        values = {
            recipe: resolve_config(compose("config", overrides=[*recipe.split(), "name=x"]))
            for recipe in recipes
        }
    return [
        Job(
            f"/{recipe}/{seed}", values[recipe] | {"seed": seed}, "", [f"seed={seed}", *recipe.split()],
            {}, {}, {}, "",
        )
        for seed in range(seeds)
        for recipe in recipes
    ]  # fmt: skip


def sizes(seeds: int, *recipes: str, fuse: int | None = None, workers: int = 1) -> list[tuple[str, int]]:
    """The recipe and the number of seeds of each unit."""
    units = make_units(jobs(seeds, *recipes), fuse, workers)
    return [(unit.jobs[0].folder.split("/")[1], len(unit.jobs)) for unit in units]


def test_seeds_are_divided_evenly_and_the_arms_keep_pace():
    assert sizes(10, "model=mlp", "model=conv") == [
        ("model=mlp", 5), ("model=conv", 5), ("model=mlp", 5), ("model=conv", 5)
    ]  # fmt: skip
    assert sizes(3, "model=mlp", "model=conv", fuse=2) == [
        ("model=mlp", 1), ("model=conv", 1), ("model=mlp", 2), ("model=conv", 2)
    ]  # fmt: skip


@pytest.mark.parametrize(("workers", "expected"), [(1, [8, 8]), (2, [8, 8]), (4, [4] * 4), (16, [1] * 16)])
def test_every_worker_has_a_unit(workers, expected):
    assert [size for _, size in sizes(8, "model=mlp", "model=conv", workers=workers)] == expected


@pytest.mark.parametrize(
    "recipe",
    [
        "model=mlp model.dropout=0.5",
        "scheduler=plateau",
        "early_stopping.patience=2",
        "device.precision=bf16",
    ],
)
def test_what_has_no_common_step_is_trained_alone(recipe):
    assert sizes(3, recipe) == [(recipe, 1)] * 3


def test_fuse_1_trains_each_seed_alone():
    assert sizes(3, "model=mlp", fuse=1) == [("model=mlp", 1)] * 3
