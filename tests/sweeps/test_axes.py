"""Axes that advance together, and a sample of a grid, as bnexp-plan lists them."""

from __future__ import annotations

import re

import pytest


def planned(commands, *arguments):
    """The overrides of each listed job, without those of the sweep itself."""
    result = commands.plan(*arguments)
    assert result.code == 0
    jobs = [line.split("] ")[1].split(" | ")[0].split() for line in result.out.splitlines() if line[0] == "["]
    return [" ".join(text for text in job if not text.startswith("sweep.")) for job in jobs]


def test_axes_advance_together(commands):
    keys = (
        "model.norm=none,batch",
        "optimizer.lr=0.1,0.5",
        "epochs=1,2",
        "sweep.together=[model.norm,optimizer.lr]",
    )
    assert planned(commands, *keys) == [
        "model.norm=none optimizer.lr=0.1 epochs=1",
        "model.norm=none optimizer.lr=0.1 epochs=2",
        "model.norm=batch optimizer.lr=0.5 epochs=1",
        "model.norm=batch optimizer.lr=0.5 epochs=2",
    ]


def test_a_sample_has_all_seeds_of_its_combinations(commands):
    keys = ("model.norm=none,batch,layer", "optimizer.lr=0.1,0.2,0.3", "seed=0,1", "sweep.sample=4")
    jobs = planned(commands, *keys)
    assert jobs == planned(commands, *keys)  # always the same
    combinations = [re.sub(r" ?seed=\d", "", job) for job in jobs]
    assert (len(jobs), len(set(combinations))) == (8, 4)
    assert all(combinations.count(combination) == 2 for combination in combinations)
    assert len(planned(commands, *keys[:3], "sweep.sample=50")) == 18


@pytest.mark.parametrize(
    ("together", "message"),
    [
        ("[model.nrm,optimizer.lr]", "sweep.together=model.nrm: must be one of model.norm"),
        ("[model.norm,optimizer.lr]", "sweep.together: the axes need equally many values; model.norm has 2"),
    ],
)
def test_axes_that_cannot_advance_together(commands, together, message):
    keys = ("model.norm=none,batch", "optimizer.lr=0.1,0.2,0.3", f"sweep.together={together}")
    for command in (commands.plan, lambda *arguments: commands.bnexp("-m", *arguments)):
        result = command(*keys)
        assert (result.code, len(result.err.splitlines())) == (2, 1)
        assert message in result.err


def test_plan_of_seeds_and_of_intervals(commands):
    result = commands.plan("model.norm=none,batch", "optimizer.lr=interval(0.01,1)", "seed=auto")
    assert "0 done, 64 to run" in result.out
    assert result.out.splitlines()[-1] == "seed=auto: at least 10 jobs (5 seeds), at most 80 (40 seeds)"
    assert "then as many trials again where a best optimizer.lr lies at an edge" in result.out
    fixed = commands.plan("model.norm=none,batch", "optimizer.lr=interval(0.01,1)", "seed=0,1,2")
    assert fixed.out.splitlines()[-1] == "6 jobs"
