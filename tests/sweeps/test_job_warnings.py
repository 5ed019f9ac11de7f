"""What the jobs of a sweep warn of is on the terminal once, with the number of jobs that have it."""

import logging
import re
from pathlib import Path

import pytest

from bnexp.runs.job import Job
from bnexp.runs.run_log import IN_VERDICT, log_to, warnings_of
from bnexp.sweeps.job_warnings import MAX_LINES, JobWarnings
from bnexp.sweeps.launchers.launcher import JobEnd

SMALL = (
    "dataset.val_size=0", "dataset.test_size=50", "tracking.tensorboard=false", "hydra.sweep.dir=sweep"
)  # fmt: skip
GOES_ON = "hydra.sweep.subdir='seed_${seed}'"  # without the hash: a job with more epochs has the same folder
EIGHT = "dataset.train_size=8: leaves no training image of 2 classes: 2, 8"
NINE = "dataset.train_size=9: leaves no training image of class 8"
NETWORK = """
from torch import nn

class Probabilities(nn.Sequential):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes), nn.Softmax(1))
"""


def job_end(*warnings: str, name: str = "mlp") -> JobEnd:
    return JobEnd(Job("/run", {"name": name}, "", [], {}, {}, {}, ""), 0, (), warnings)


def test_equal_warnings_of_several_jobs_are_one_line():
    warnings = JobWarnings()
    for end in (
        job_end("a.b=1: rare"),
        job_end("mlp: frequent", "mlp: frequent"),
        job_end("conv: frequent", name="conv"),
        job_end(),
    ):
        warnings.add(end)
    assert warnings.lines() == ["2 of 4 jobs: frequent", "1 of 4 jobs: a.b=1: rare"]


def test_after_eight_lines_comes_how_many_more_there_are():
    warnings = JobWarnings()
    warnings.add(job_end(*(f"message {number}" for number in range(MAX_LINES + 2))))
    lines = warnings.lines()
    assert lines[:MAX_LINES] == [f"1 of 1 jobs: message {number}" for number in range(MAX_LINES)]
    assert lines[MAX_LINES:] == ["2 more warnings, in each job's train.log"]


def test_only_warnings_of_bnexp_are_collected_each_for_its_run(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    log = logging.getLogger("bnexp.training")
    with log_to(tmp_path / "train.log") as warnings:
        logging.getLogger("other").warning("of another library")
        log.info("an information")
        log.error("an error, which the job's end has")
        log.warning("at chance", extra=IN_VERDICT)
        log.warning("of %s", "all")
        with warnings_of(first):
            log.warning("of the first")
    log.warning("after the block")
    assert (warnings.about(first), warnings.about(second)) == (("of all", "of the first"), ("of all",))
    assert "at chance" in (tmp_path / "train.log").read_text()


@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra.launcher.jobs=1", "hydra.launcher.fuse=1"],
        ["hydra.launcher.jobs=1", "hydra.launcher.fuse=2"],
        ["hydra.launcher.jobs=2", "hydra.launcher.fuse=1"],
    ],
    ids=["in this process", "fused", "two workers"],
)
def test_a_sweep_tells_each_warning_of_its_jobs_before_the_verdict(commands, launcher):
    sweep = ("-m", "epochs=1", *SMALL, *launcher)
    result = commands.bnexp(*sweep, "dataset.train_size=8,100", "seed=0,1")
    assert (result.code, result.err) == (0, f"2 of 4 jobs: {EIGHT}\n")
    again = commands.bnexp(*sweep, "dataset.train_size=8,9,100", "seed=0,1,2")
    lines = [f"3 of 5 jobs: {NINE}\n", f"1 of 5 jobs: {EIGHT}\n"]
    assert (again.code, again.err) == (0, "".join(lines))  # those of the jobs that were trained now


def test_a_run_at_chance_is_left_to_the_verdict(commands):
    result = commands.bnexp("-m", "epochs=1", *SMALL, "dataset.train_size=100", "optimizer.lr=0", "seed=0,1")
    logs = [(run / "train.log").read_text() for run in commands.runs()]
    assert all("WARNING" in text and "at chance" in text for text in logs)
    assert (result.code, result.err) == (0, "")


def test_a_warning_of_an_own_network_comes_from_its_own_process(commands):
    (commands.folder / "own.py").write_text(NETWORK)
    model = ("model=custom", "model._target_=own.Probabilities")
    result = commands.bnexp("-m", "epochs=1", *SMALL, "dataset.train_size=100", *model, "seed=0,1")
    assert result.code == 0, result.err
    assert result.err.startswith("2 of 2 jobs: model._target_=own.Probabilities: gives probabilities, but ")


def test_runs_that_early_stopping_ended_say_why_more_epochs_train_nothing(commands):
    sweep = ("dataset.val_size=10", "dataset.train_size=60", "dataset.test_size=40", "seed=0,1")
    early = ("optimizer.lr=0", "early_stopping.patience=2", "tracking.tensorboard=false")
    arguments = ("-m", *sweep, *early, "hydra.sweep.dir=sweep", GOES_ON)
    commands.bnexp(*arguments, "epochs=6")
    result = commands.bnexp(*arguments, "epochs=9")
    assert result.code == 0, result.err
    assert result.err.splitlines() == [
        "2 of 2 jobs: early stopping ended this run 2 epochs after its best one: nothing to train; a larger"
        " early_stopping.patience (or null) goes on"
    ]


def test_a_damaged_checkpoint_of_one_seed_is_no_warning_of_the_seeds_beside_it(commands):
    sweep = ("-m", *SMALL, "dataset.train_size=100", "seed=0,1", "hydra.launcher.jobs=1", GOES_ON)
    commands.bnexp(*sweep, "epochs=2")
    damaged = Path("sweep/seed_1/checkpoints/last.pt")
    damaged.write_bytes(b"no checkpoint")
    result = commands.bnexp(*sweep, "epochs=3")
    line, *_ = result.err.splitlines()
    assert re.match(
        r"1 of 2 jobs: \S*/seed_1/checkpoints/last.pt: .*: going back to the checkpoint before", line
    )
