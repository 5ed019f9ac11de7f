"""Intervals in a sweep: what is trained, what is refused, and that an interruption changes nothing."""

from __future__ import annotations

import json
import shutil

import pytest

from bnexp.report.read.design import Interval, read_design
from bnexp.sweeps.tuning import FIRST_TUNING_SEED, sobol_points

QUICK = ("epochs=2", "dataset.train_size=400", "dataset.test_size=300", "tracking.tensorboard=false")
SWEEP_FOLDER = "hydra.sweep.dir=sweep"
TUNED = (
    "model.norm=none,batch", "optimizer.lr=interval(0.001,100)", "sweep.trials=4", "seed=0,1,2", *QUICK,
    SWEEP_FOLDER,
)  # fmt: skip


def rates(commands, norm, seed):
    """The rates that a norm was trained with, for one seed."""
    summaries = [json.loads((path / "summary.json").read_text()) for path in commands.runs()]
    values = [
        dict(text.split("=") for text in s["overrides"])["optimizer.lr"]
        for s in summaries
        if s["seed"] == seed and f"model.norm={norm}" in s["overrides"]
    ]
    return sorted(values, key=float)


def test_every_group_tries_the_same_values_and_the_verdict_has_other_seeds(commands):
    result = commands.bnexp("-m", *TUNED)
    assert result.code == 0
    trials = [
        rates(commands, norm, seed)
        for norm in ("none", "batch")
        for seed in (FIRST_TUNING_SEED, FIRST_TUNING_SEED + 1)
    ]
    assert all(values == trials[0] for values in trials)
    assert len(trials[0]) in (4, 8)  # 8 where a best value lay at an edge
    best = {norm: rates(commands, norm, 0) for norm in ("none", "batch")}
    assert all(len(values) == 1 and values[0] in trials[0] for values in best.values())
    assert best["batch"] == rates(commands, "batch", 2)
    assert f"batch at lr={best['batch'][0]}" in " ".join(result.out.split()).replace("lr=1.0", "lr=1")
    assert read_design(commands.folder / "sweep").tuning.trials == 4
    table = [line for line in result.out.splitlines() if line.startswith(("none *", "batch   "))]
    assert len(table) == 2  # one row for each group, whatever its rate


def test_an_interrupted_search_goes_on_with_the_same_values(commands):
    first = commands.bnexp("-m", *TUNED)
    names = {path.name for path in commands.runs()}
    for path in [*commands.runs()][::3]:
        shutil.rmtree(path)
    second = commands.bnexp("-m", *TUNED)
    assert (first.code, second.code) == (0, 0)
    assert {path.name for path in commands.runs()} == names
    assert first.out[first.out.index("Does batch") :] == second.out[second.out.index("Does batch") :]


def test_tree_search_gives_every_group_the_same_number_of_trials(commands):
    pytest.importorskip("optuna")
    keys = ("optimizer.lr=interval(0.001,0.1)", "sweep.search=tpe", "sweep.trials=4", "sweep.tuning_seeds=1")
    assert commands.bnexp("-m", "model.norm=none,batch", *keys, "seed=0", *QUICK, SWEEP_FOLDER).code == 0
    none, batch = (rates(commands, norm, FIRST_TUNING_SEED) for norm in ("none", "batch"))
    assert len(none) == len(batch) >= 4
    names = {path.name for path in commands.runs()}
    again = commands.bnexp("-m", "model.norm=none,batch", *keys, "seed=0", *QUICK, SWEEP_FOLDER)
    assert again.code == 0
    assert {path.name for path in commands.runs()} == names  # it asks for the same points


def test_sobol_points_cover_both_keys():
    intervals = (
        Interval("optimizer.lr", 0.001, 10, is_log=True),
        Interval("+model.width", 8, 64, False, True),
    )
    points = sobol_points(intervals, 16)
    assert points == sobol_points(intervals, 16)
    widths = [int(width.partition("=")[2]) for _, width in points]
    assert all(text.startswith("+model.width=") for _, text in points)
    assert sum(width < 36 for width in widths) == 8  # evenly spread, also over halves
    assert sum(float(lr.partition("=")[2]) < 0.1 for lr, _ in points) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("optimizer.lr=interval(0.01,1)",), "optimizer.lr=interval(0.01,1)"),
        (("-m", "optimizer.lr=interval(1,1)"), "optimizer.lr=interval(1,1): must go from a number to a"),
        (("-m", "optimizer.lr=interval(1,0.1)"), "optimizer.lr=interval(1,0.1): must go from a number to a"),
        (("-m", "optimizer.lr=interval(0,1)"), "optimizer.lr=interval(0,1): a logarithmic scale starts"),
        (("-m", "l1=tag(log,interval(0,1))"), "l1=interval(0,1): a logarithmic scale starts above 0"),
        (("-m", "optimizer.lr=interval(0.1,inf)"), "must go from a number to a larger one"),
        (("-m", "optimizer.lr=tag(cubic,interval(0.1,1))"), "tag(cubic): must be log or linear"),
        (("-m", "model.norm=interval(0,1)"), "model.norm=interval(0,1): model.norm=none is no number"),
        (("-m", "optimizer.rate=interval(0.1,1)"), "optimizer.rate"),
        (
            ("-m", *(f"{key}=interval(1,3)" for key in ("l1", "optimizer.lr", "batch_size", "grad_clip"))),
            "at most 3 intervals are tuned together",
        ),
        (
            ("-m", "optimizer.lr=interval(0.1,1)", "dataset.val_size=0"),
            "dataset.val_size=0: an interval is tuned on validation images; it must be above 0",
        ),
        (("-m", "optimizer.lr=interval(0.1,1)", "sweep.trials=1"), "sweep.trials=1: must be"),
        (("-m", "optimizer.lr=interval(0.1,1)", "sweep.search=grid"), "sweep.search=grid"),
        (("-m", "optimizer.lr=interval(0.1,1)", "hydra/launcher=basic"), "launcher=local, slurm or ray"),
    ],
)  # fmt: skip
def test_mistakes_end_with_one_line_and_no_folder(commands, arguments, message):
    result = commands.bnexp(*arguments, *QUICK)
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert message in result.err
    assert not (commands.folder / "outputs").exists()


def test_a_search_of_which_every_run_is_lost_ends_with_one_line(commands):
    keys = ("optimizer.lr=interval(1000000,10000000)", "sweep.trials=2", "sweep.tuning_seeds=1")
    result = commands.bnexp("-m", "model.norm=none,batch", *keys, "seed=0", *QUICK, SWEEP_FOLDER)
    assert result.code == 2
    assert "model.norm=none" in result.err
    assert "every trial diverged or stayed at chance; choose another interval" in result.err


def test_an_interval_of_whole_numbers_tries_each_once(commands):
    arguments = ("-m", "epochs=interval(1,2)", "sweep.trials=2", "sweep.tuning_seeds=1", "seed=0,1")
    result = commands.bnexp(*arguments, *QUICK[1:], "hydra.sweep.dir=sweep")
    assert result.code == 0, result.err


def test_an_interval_of_seeds_is_refused(commands):
    result = commands.bnexp("-m", "seed=interval(0,5)", *QUICK, "hydra.sweep.dir=sweep")
    assert result.code == 2
    assert result.err == "bnexp: seed=interval(...): repeats a run and is not tuned; give a list or a range\n"
    assert not (commands.folder / "sweep").exists()
