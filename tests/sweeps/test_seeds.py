"""seed=auto: batches of seeds until every comparison is decided."""

from __future__ import annotations

import json
import shutil

import pytest

from bnexp.report.read.design import read_design

QUICK = ("epochs=2", "dataset.train_size=400", "dataset.test_size=300", "tracking.tensorboard=false")
SWEEP_FOLDER = "hydra.sweep.dir=sweep"
CLEAR = ("optimizer.lr=0.002,0.1", "seed=auto", *QUICK, SWEEP_FOLDER)  # 52 points, which five seeds show


def count_seeds(commands, override):
    """How many runs have the override."""
    summaries = [json.loads((path / "summary.json").read_text()) for path in commands.runs()]
    return sum(override in summary["overrides"] for summary in summaries)


def verdict_of(result):
    return result.out[result.out.index("Does optimizer.lr") :]


def test_a_clear_difference_needs_the_first_look_alone(commands):
    result = commands.bnexp("-m", *CLEAR)
    assert result.code == 0
    assert len(commands.runs()) == 10
    assert "5 of at most 40 seeds, decided" in result.out
    design = read_design(commands.folder / "sweep")
    assert (design.looks, design.reached) == ((5, 10, 20, 40), 5)
    assert design.arms == ("optimizer.lr=0.002", "optimizer.lr=0.1")
    assert "planned looks together (at 5, 10, 20, 40 seeds)" in result.out


def test_similar_arms_take_every_look_and_the_decided_arm_stops(commands):
    keys = ("optimizer.lr=0.1,0.099,0.002", "seed=auto", "sweep.looks=[5,20]", "dataset.delta=0.0001")
    result = commands.bnexp("-m", *keys, *QUICK, SWEEP_FOLDER, "hydra.launcher.jobs=2")
    assert result.code == 0
    lines = [line for line in result.out.splitlines() if "of at most 20 seeds" in line]
    clear, similar = ([line for line in lines if f"lr={lr} vs" in line] for lr in ("0.002", "0.099"))
    assert len(clear) == 1
    assert clear[0].endswith("5 of at most 20 seeds, decided: worse")
    assert [line.partition("points, ")[2] for line in similar] == [
        "5 of at most 20 seeds, undecided",
        "20 of at most 20 seeds, open",
    ]
    assert [count_seeds(commands, f"optimizer.lr={lr}") for lr in ("0.1", "0.099", "0.002")] == [20, 20, 5]
    text = " ".join(result.out.split())
    assert "optimizer.lr=0.099 vs optimizer.lr=0.1: open after 20 seeds: a difference beyond" in text
    assert "lacks" not in text  # the decided arm needs no further seeds


def test_the_same_command_and_resume_carry_on(commands):
    first = commands.bnexp("-m", *CLEAR)
    removed = [path for path in commands.runs() if "seed=3" in path.name]
    for path in removed:
        shutil.rmtree(path)
    second = commands.bnexp("-m", *CLEAR)
    assert (len(removed), second.code, len(commands.runs())) == (2, 0, 10)
    assert second.out.startswith("8 of 10 jobs ended before: skipped")
    assert verdict_of(first) == verdict_of(second)
    third = commands.resume("sweep")
    assert third.out.startswith("10 of 10 jobs ended before: skipped")
    assert verdict_of(third) == verdict_of(first)


def test_a_sweep_with_five_seeds_becomes_a_planned_one(commands):
    keys = ("optimizer.lr=0.002,0.1", *QUICK, SWEEP_FOLDER)
    assert commands.bnexp("-m", *keys, "seed=range(5)").code == 0
    result = commands.resume("sweep", "seed=auto")
    assert (result.code, len(commands.runs())) == (0, 10)
    assert result.out.startswith("10 of 10 jobs ended before: skipped")
    assert "planned looks together" in result.out
    assert commands.resume("sweep", "seed=7").code == 2  # its seeds are planned now


def test_a_comparison_of_a_complete_sweep_is_a_look(commands):
    keys = ("-m", "optimizer.lr=0.1,0.099", *QUICK, SWEEP_FOLDER)
    assert commands.bnexp(*keys, "seed=0,1,2").code == 0
    assert "unplanned" not in commands.compare("sweep").out
    assert commands.bnexp(*keys, "seed=0,1,2,3,4,5").code == 0
    text = " ".join(commands.compare("sweep").out.split())
    assert "Look 2, unplanned (before: 3 runs a group): p and interval hold at any look." in text
    looks = json.loads((commands.folder / "sweep" / "comparison.json").read_text())["looks"]
    assert [max(look["runs"].values()) for look in looks] == [3, 6]


def test_runs_between_two_looks_wait(commands):
    """A comparison of the folder alone uses the runs of the last planned look."""
    assert commands.bnexp("-m", *CLEAR).code == 0
    others = ("-m", "optimizer.lr=0.002,0.1", *QUICK, "hydra.sweep.dir=other")
    assert commands.bnexp(*others, "seed=5,50").code == 0
    for path in (commands.folder / "other").glob("optimizer*"):
        path.rename(commands.folder / "sweep" / path.name)
    result = commands.compare("sweep")
    assert "5 paired seeds" in result.out
    assert "seed 5 counts at the planned look at 10 seeds" in result.err
    assert "seed 50 is none of the plan; not compared" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("seed=auto",), "seed=auto: plans the seeds of a sweep; add -m and a list to compare"),
        (("-m", "seed=auto"), "seed=auto: nothing to compare; add a list, as in model.norm=none,batch"),
        (("-m", "seed=auto,1", "model.norm=none,batch"), "seed=auto,1: auto stands alone"),
        (
            ("-m", "seed=auto", "model.norm=none,batch", "dataset.folds=5", "dataset.fold=0,1"),
            "dataset.fold: folds are repetitions of their own",
        ),
        (
            ("-m", "seed=auto", "model.norm=none,batch", "sweep.looks=[5,5]"),
            "sweep.looks=[5, 5]: must be rising numbers of seeds of at least 3",
        ),
        (
            ("-m", "seed=auto", "model.norm=none,batch", "sweep.looks=[2,5]"),
            "sweep.looks=[2, 5]: must be rising",
        ),
        (("-m", "seed=auto", "model.norm=none,batch", "sweep.looks=[5,x]"), "sweep.looks"),
        (
            ("-m", "seed=auto", "model.norm=none,batch", "hydra/launcher=basic"),
            "seed=auto and intervals need hydra/launcher=local, slurm or ray",
        ),
    ],
)
def test_mistakes_end_with_one_line_and_no_folder(commands, arguments, message):
    result = commands.bnexp(*arguments, *QUICK)
    assert result.code == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert not commands.runs()
    assert not (commands.folder / "outputs").exists()


def test_a_folder_with_another_plan_is_refused(commands):
    assert commands.bnexp("-m", *CLEAR).code == 0
    others = CLEAR[1:]
    for changed in (
        (*CLEAR, "sweep.looks=[5,8]"),
        ("optimizer.lr=0.002,0.06", *others),
        (*CLEAR, "epochs=3"),
    ):
        result = commands.bnexp("-m", *changed)
        assert result.code == 2
        assert "holds a sweep with another plan (sweep.looks=[5, 10, 20, 40] for" in result.err
    result = commands.bnexp("-m", "optimizer.lr=0.002,0.1", "seed=0,1", *QUICK, SWEEP_FOLDER)
    assert result.code == 2
    assert "holds a sweep that plans its jobs; carry on with its own command" in result.err
    assert len(commands.runs()) == 10
