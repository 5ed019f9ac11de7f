"""A run that is interrupted and resumed ends in the same bits as a run that is not interrupted."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bnexp.config.overrides import quote_value
from bnexp.runs.lock import lock_folder
from bnexp.training.trainer import Trainer
from helpers.records import record

SMALL = ("dataset.train_size=300", "dataset.test_size=100", "batch_size=50", "device.threads=1")
EVERYTHING = (
    "model=mlp_bn", "model.dropout=0.2", "dataset.augment=[crop]", "optimizer=adam", "scheduler=plateau",
    "scheduler.patience=0", "epochs=4", "tracking.every=4", "tracking.histograms=true", *SMALL,
)  # fmt: skip
STEPS = 6  # in an epoch: 270 of the 300 images are training images


# A process that kills itself in one of its training steps, counted from 1.
KILLED_IN_STEP = """
import os, signal
from bnexp.train import main
from bnexp.training.trainer import Trainer

original_step, calls = Trainer.step, []

def step(self, *batch):
    calls.append(None)
    if len(calls) == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original_step(self, *batch)

Trainer.step = step
main()
"""


def call_in_step(monkeypatch, number: int, action) -> None:
    """Calls ``action`` inside step ``number`` of the next run, counted from 1 where that run starts."""
    original_step, calls = Trainer.step, []

    def counting_step(self, *batch):
        calls.append(None)
        if len(calls) == number:
            monkeypatch.setattr(Trainer, "step", original_step)
            action()
        return original_step(self, *batch)

    monkeypatch.setattr(Trainer, "step", counting_step)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def train(commands, folder: str, *overrides: str):
    return commands.bnexp(*overrides, f"hydra.run.dir={folder}")


@pytest.fixture(scope="module")
def uninterrupted_record() -> dict[str, Any]:
    """Empty until the first test that needs it: ``uninterrupted`` trains once for all tests."""
    return {}


@pytest.fixture
def uninterrupted(commands, uninterrupted_record) -> dict[str, Any]:
    """The record of a run with EVERYTHING that nothing interrupted."""
    if not uninterrupted_record:
        assert train(commands, "uninterrupted", *EVERYTHING).code == 0
        uninterrupted_record |= record(Path("uninterrupted"))
    return uninterrupted_record


@pytest.mark.parametrize(
    ("step", "next_command"),
    [
        *((step, "resume") for step in (1, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS + 3, 4 * STEPS)),
        (2 * STEPS + 3, "train"),
        (4 * STEPS, "train"),
    ],
)
def test_a_terminated_run_resumes_to_the_same_bits(commands, uninterrupted, monkeypatch, step, next_command):
    call_in_step(monkeypatch, step, terminate)
    assert train(commands, "resumed", *EVERYTHING).code == 143
    status = json.loads(Path("resumed/summary.json").read_text())["status"]
    assert status == ("finished" if step == 4 * STEPS else "interrupted")
    if next_command == "resume":
        assert commands.resume("resumed").code == 0
    else:
        assert train(commands, "resumed", *EVERYTHING).code == 0
    assert record(Path("resumed")) == uninterrupted


def test_a_run_that_is_interrupted_five_times_ends_in_the_same_bits(commands, uninterrupted, monkeypatch):
    for step in (2, 3, 1, 7, 5):
        call_in_step(monkeypatch, step, terminate)
        assert train(commands, "resumed", *EVERYTHING).code == 143
    assert commands.resume("resumed").code == 0
    assert record(Path("resumed")) == uninterrupted


SETTINGS = {
    "conv sgd step": ("model=conv_bn", "scheduler=step", "scheduler.step_size=1"),
    "momentum cosine": ("optimizer=momentum", "scheduler=cosine"),
    "adamw onecycle": ("optimizer=adamw", "scheduler=onecycle", "scheduler.max_lr=0.1"),
    "resnet": ("model=resnet", "model.stem=small", "model.widths=[4]", "model.depths=[1]"),
    "group norm, hinge, l1": ("model=lenet", "model.norm=group", "loss=hinge", "l1=0.001"),
    "no val": ("model=mlp_bn", "dataset.val_size=0"),
    "clipped": ("grad_clip=0.1", "optimizer=nesterov"),
    "noisy batch norm": ("model=mlp", "model.norm=batch_noise"),
    "ghost batches, fixup": (
        "model=mlp", "model.norm=batch", "model.norm_images=4", "model.residual=fixup", "model.depth=2",
    ),
    "batch by hand": ("model=mlp", "model.norm=batch_manual", "optimizer=adam"),
    "few checkpoints": ("model=mlp_bn", "checkpoint.every=2", "checkpoint.keep=1"),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_every_kind_of_state_is_restored(commands, monkeypatch, name):
    overrides = (*SETTINGS[name], "epochs=3", *SMALL)
    assert train(commands, "uninterrupted", *overrides).code == 0
    call_in_step(monkeypatch, 9, terminate)
    assert train(commands, "resumed", *overrides).code == 143
    assert commands.resume("resumed").code == 0
    assert record(Path("resumed")) == record(Path("uninterrupted"))


@pytest.mark.parametrize("step", [1, STEPS + 1, 3 * STEPS])
def test_a_killed_run_resumes_from_its_last_complete_epoch(commands, uninterrupted, step):
    command = [sys.executable, "-c", KILLED_IN_STEP.format(step=step), *EVERYTHING, "hydra.run.dir=resumed"]
    assert subprocess.run(command, capture_output=True, timeout=240).returncode == -signal.SIGKILL
    assert json.loads(Path("resumed/summary.json").read_text())["status"] == "running"
    assert commands.resume("resumed").code == 0
    assert record(Path("resumed")) == uninterrupted


@pytest.mark.parametrize(
    "scheduler", [(), ("scheduler=step", "scheduler.step_size=2"), ("scheduler=plateau",)]
)
def test_a_run_with_more_epochs_equals_one_that_had_them_from_the_start(commands, scheduler):
    overrides = ("model=mlp_bn", *scheduler, *SMALL)
    assert train(commands, "uninterrupted", *overrides, "epochs=5").code == 0
    assert train(commands, "resumed", *overrides, "epochs=2").code == 0
    result = commands.resume("resumed", "epochs=5")
    assert result.code == 0
    assert "goes on after epoch 2" in result.out
    assert record(Path("resumed")) == record(Path("uninterrupted"))
    assert commands.summary()["epochs"] == 5


def test_a_schedule_that_follows_epochs_allows_no_more_epochs(commands):
    overrides = ("scheduler=cosine", *SMALL)
    train(commands, "run", *overrides, "epochs=2")
    old_record = record(Path("run"))
    result = commands.resume("run", "epochs=4")
    assert result.code == 2
    assert result.err == (
        "bnexp: epochs=4: the learning rates of this run were planned for 2 epochs (scheduler.T_max=null"
        " takes its value from epochs); start a new run in another folder\n"
    )
    assert record(Path("run")) == old_record


def test_a_finished_run_is_not_changed(commands):
    train(commands, "run", "epochs=1", *SMALL)
    files = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*") if path.is_file()}
    result = commands.resume("run")
    assert (result.code, result.out) == (0, "run: this run is finished; nothing to do\n")
    assert files == {path: path.stat().st_mtime_ns for path in Path("run").rglob("*") if path.is_file()}


def test_the_keys_that_differ_are_named(commands):
    train(commands, "run", "epochs=2", *SMALL)
    for override, difference in (
        ("optimizer.lr=0.3", "optimizer.lr=0.1 (here 0.3)"),
        ("epochs=1", "epochs=2 (here 1)"),
        ("model.norm=batch", "model.norm=none (here batch)"),
    ):
        result = commands.resume("run", override)
        assert result.code == 2
        assert (
            result.err == f"bnexp: hydra.run.dir=run: holds a run with {difference}; choose another folder\n"
        )


def interrupt_after_two_epochs(commands, monkeypatch) -> Path:
    """The checkpoint folder of a run that was terminated in its third epoch."""
    call_in_step(monkeypatch, 2 * STEPS + 3, terminate)
    assert train(commands, "resumed", *EVERYTHING).code == 143
    return Path("resumed/checkpoints")


def damage(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "truncated":
        del content[len(content) // 2 :]
    elif kind == "bit flipped":
        content[len(content) // 2] ^= 1
    elif kind == "empty":
        content.clear()
    path.unlink()  # the file may be a hard link of another checkpoint
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["truncated", "bit flipped", "empty"])
def test_after_a_damaged_checkpoint_the_previous_one_is_used(commands, uninterrupted, monkeypatch, kind):
    checkpoints = interrupt_after_two_epochs(commands, monkeypatch)
    damage(checkpoints / "last.pt", kind)
    result = commands.resume("resumed")
    assert result.code == 0
    assert "last.pt: not a checkpoint that can be read" in result.out
    assert "goes on after epoch 2\n" in result.out
    assert record(Path("resumed")) == uninterrupted


def test_without_a_readable_checkpoint_the_run_starts_again_and_says_so(commands, uninterrupted, monkeypatch):
    checkpoints = interrupt_after_two_epochs(commands, monkeypatch)
    for name in ("last.pt", "previous.pt"):
        damage(checkpoints / name, "bit flipped")
    result = commands.resume("resumed")
    assert result.code == 0
    assert result.out.count("not a checkpoint that can be read") == 2
    assert "goes on" not in result.out
    assert "no checkpoint to go on from: starts anew\n" in result.out
    assert record(Path("resumed")) == uninterrupted


@pytest.mark.parametrize("remove", ["last.pt", "everything"])
def test_the_results_of_a_finished_run_without_its_checkpoint_stay(commands, remove):
    assert train(commands, "run", "epochs=1", *SMALL).code == 0
    checkpoints = Path("run/checkpoints")
    for path in [checkpoints / "last.pt"] if remove == "last.pt" else [*checkpoints.iterdir()]:
        path.unlink()
    files = {
        path: path.read_bytes()
        for path in Path("run").rglob("*.*")
        if path.suffix in (".csv", ".pt", ".json")
    }
    result = commands.resume("run", "epochs=2")
    assert result.code == 2
    assert result.err.startswith("bnexp: run: has no checkpoint to go on from, and ")
    assert len(result.err.splitlines()) == 1
    changed = [path.name for path, content in files.items() if path.read_bytes() != content]
    assert changed in ([], ["environment.json"])


def test_a_missing_best_checkpoint_is_trained_again(commands, uninterrupted, monkeypatch):
    checkpoints = interrupt_after_two_epochs(commands, monkeypatch)
    (checkpoints / "best.pt").unlink()
    assert commands.resume("resumed").code == 0
    assert record(Path("resumed")) == uninterrupted


def test_rows_and_events_after_the_checkpoint_are_removed(commands, uninterrupted, monkeypatch):
    interrupt_after_two_epochs(commands, monkeypatch)
    with Path("resumed/metrics.csv").open("a", newline="") as file:
        file.write("3,0.5,0.5\r\n4,0.")
    with Path("resumed/steps.csv").open("a", newline="") as file:
        file.write("99,0.5\r\n")
    (events,) = Path("resumed").glob("events.*")
    with events.open("ab") as file:
        file.write(events.read_bytes()[-40:-3])
    assert commands.resume("resumed").code == 0
    assert record(Path("resumed")) == uninterrupted


def test_a_run_in_use_is_refused(commands, uninterrupted, monkeypatch):
    call_in_step(monkeypatch, 2, terminate)
    train(commands, "resumed", *EVERYTHING)
    with lock_folder(Path("resumed")):
        old_record = record(Path("resumed"))
        for result in (train(commands, "resumed", *EVERYTHING), commands.resume("resumed")):
            assert result.code == 2
            assert result.err == (
                "bnexp: resumed: another process is writing this run; wait for it, or choose another folder\n"
            )
        assert record(Path("resumed")) == old_record
    assert commands.resume("resumed").code == 0
    assert record(Path("resumed")) == uninterrupted


def test_a_checkpoint_of_another_network_is_one_line(commands, monkeypatch):
    interrupt_after_two_epochs(commands, monkeypatch)
    state = torch.load("resumed/checkpoints/last.pt", weights_only=True)
    state["model"]["head.weight"] = torch.zeros(2, 2)
    torch.save(state, "resumed/checkpoints/last.pt")
    result = commands.resume("resumed")
    assert result.code == 2
    assert result.err.startswith("bnexp: the checkpoint does not fit this network (")
    assert len(result.err.splitlines()) == 1
    assert json.loads(Path("resumed/summary.json").read_text())["status"] == "interrupted"


def test_a_resumed_run_uses_the_recorded_number_of_threads(commands, monkeypatch):
    call_in_step(monkeypatch, 2, terminate)
    overrides = [override for override in EVERYTHING if not override.startswith("device.threads")]
    train(commands, "resumed", *overrides)
    path = Path("resumed/environment.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threads": 2}))
    assert commands.resume("resumed").code == 0
    environment = json.loads(path.read_text())
    assert environment["threads"] == min(2, os.cpu_count())
    assert [earlier["threads"] for earlier in environment["earlier"]] == [2]


def test_an_interrupted_job_of_a_sweep_resumes_to_the_same_bits(commands, monkeypatch):
    arguments = ("-m", "model=mlp,mlp_bn", "seed=0", "epochs=3", "hydra.launcher.jobs=1", *SMALL)
    assert commands.bnexp(*arguments, "hydra.sweep.dir=uninterrupted").code == 0
    call_in_step(monkeypatch, 3 * STEPS + STEPS + 2, terminate)
    assert commands.bnexp(*arguments, "hydra.sweep.dir=resumed").code == 143
    result = commands.resume("resumed")
    assert result.code == 0
    logs = [path.read_text() for path in Path("resumed").glob("*/train.log")]
    assert any("goes on after epoch 1, 2 steps into the next" in log for log in logs)
    for summary in Path("uninterrupted").glob("*/summary.json"):
        assert record(Path("resumed") / summary.parent.name) == record(summary.parent)


# It has backslashes before a letter, before a quote and at the end.
QUOTED_FOLDER = "it's a\\b, {x}=\\'\\"


def test_a_run_resumes_in_a_folder_whose_name_needs_quoting(commands, monkeypatch):
    call_in_step(monkeypatch, 2, terminate)
    assert train(commands, quote_value(QUOTED_FOLDER), "epochs=1", *SMALL).code == 143
    assert commands.resume(QUOTED_FOLDER).code == 0
    assert [run.name for run in commands.runs()] == [QUOTED_FOLDER]
    assert commands.summary()["status"] == "finished"


def test_a_sweep_runs_and_resumes_in_a_folder_whose_name_needs_quoting(commands):
    arguments = ("seed=0,1", "epochs=1", *SMALL, f"hydra.sweep.dir={quote_value(QUOTED_FOLDER)}")
    assert commands.bnexp("-m", *arguments).code == 0
    assert {run.parent.name for run in commands.runs()} == {QUOTED_FOLDER}
    assert commands.plan(*arguments).out.splitlines()[-1] == "2 done, 0 to run"
    shutil.rmtree(commands.runs()[1])
    assert commands.resume(QUOTED_FOLDER).code == 0
    assert len(commands.runs()) == 2
    assert [path.name for path in commands.folder.iterdir()] == [QUOTED_FOLDER]


@pytest.mark.parametrize("time", [{}, {"total_s": "long"}, {"total_s": None}])
def test_a_summary_without_its_seconds_is_resumed_and_listed(commands, time):
    arguments = ("seed=0", "epochs=1", *SMALL, "hydra.sweep.dir=sweep")
    assert commands.bnexp("-m", *arguments).code == 0
    (run,) = commands.runs()
    (run / "summary.json").write_text(json.dumps(commands.summary() | {"time": time}))
    assert commands.plan(*arguments).out.splitlines()[-1] == "1 done, 0 to run"
    result = commands.resume(str(run), "epochs=2")
    assert (result.code, result.err) == (0, "")
    assert commands.summary()["time"]["total_s"] > 0


FOREIGN_OVERRIDES = {
    "model._target_=own.Net": (
        "model._target_=own.Net: must be a class of bnexp, torch.nn or torch.optim; --trust own.Net allows it"
    ),
    "optimizer._target_=torch.hub.load": "optimizer._target_=torch.hub.load: must be a class of bnexp",
    "model._target_=torch.nn.modules.module.warnings": "must be a class of bnexp",
    "+hydra.callbacks.mine._target_=os.system": "this key of Hydra can run code; --trust",
    "hydra.launcher._target_=os.system": "this key of Hydra can run code",
    "hydra.searchpath=[file:///tmp]": "this key of Hydra can run code",
    "+model={_target_:os.system}": "must be the name of a choice",
    "+own={_target_:os.system}": "a _target_ inside a value can run code",
    "model=../../../../evil": "must be the name of a choice, because a path can lead to code; --trust",
    "experiment=/evil": "must be the name of a choice",
    "hydra/launcher=../evil": "must be the name of a choice",
    "model=${oc.decode:name}": "must be the name of a choice",
    "+model@hydra.callbacks.mine=mlp": "this key of Hydra can run code",
    "hydra/sweeper=evil": "this key of Hydra can run code",
    "hydra.sweeper._target_=os.system": "this key of Hydra can run code",
    "hydra.output_subdir=evil": "this key of Hydra can run code",
    "+hydra.launcher.init.num_cpus=1": "init.num_cpus=1: Ray can fetch code from there; --trust '+hydra",
    "hydra.launcher.address=10.0.0.9:6379": "Ray can fetch code from there",
}


def test_an_override_of_the_folder_that_can_run_code_is_refused(commands, monkeypatch):
    call_in_step(monkeypatch, 2, terminate)
    train(commands, "resumed", "epochs=1", *SMALL)
    path = Path("resumed/.hydra/hydra.yaml")
    text = path.read_text()
    for override, reason in FOREIGN_OVERRIDES.items():
        kind = "hydra" if "hydra" in override else "task"
        assert f"    {kind}:\n" in text
        path.write_text(text.replace(f"    {kind}:\n", f"    {kind}:\n    - {json.dumps(override)}\n"))
        result = commands.resume("resumed")
        assert result.code == 2, override
        assert reason in result.err
        assert len(result.err.splitlines()) == 1


def test_a_run_of_a_custom_network_resumes_only_if_it_is_trusted(commands, monkeypatch):
    Path("own_net.py").write_text(
        "from torch import nn\n\n\ndef net(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes))\n"
    )
    monkeypatch.syspath_prepend(str(commands.folder))
    call_in_step(monkeypatch, 2, terminate)
    overrides = ("model=custom", "model._target_=own_net.net", "epochs=2", *SMALL)
    assert train(commands, "resumed", *overrides).code == 143
    assert commands.resume("resumed").code == 2
    assert commands.resume("resumed", "--trust", "own_net.net", "epochs=3").code == 0


def test_a_checkpoint_outside_the_run_is_refused(commands, monkeypatch):
    checkpoints = interrupt_after_two_epochs(commands, monkeypatch)
    shutil.move(checkpoints, "elsewhere")
    checkpoints.symlink_to(Path("elsewhere").resolve())
    result = commands.eval("resumed")
    assert result.code == 2
    assert result.err == "bnexp: resumed/checkpoints: points outside the run's folder\n"


@pytest.mark.parametrize("mode", [(), ("-m", "seed=0,1")])
def test_a_run_that_was_killed_after_its_last_save_ends_without_previous_checkpoint(commands, mode):
    place = "hydra.sweep.dir=runs" if mode else "hydra.run.dir=runs"
    commands.bnexp(*mode, "dataset.train_size=60", "dataset.test_size=40", "epochs=2", place)
    for last in Path("runs").rglob("last.pt"):
        shutil.copy(last, last.with_name("previous.pt"))
        summary = last.parents[1] / "summary.json"
        summary.write_text(summary.read_text().replace('"finished"', '"running"'))
    assert commands.resume("runs").code == 0
    assert len([*Path("runs").rglob("last.pt")]) == (2 if mode else 1)
    assert [*Path("runs").rglob("previous.pt")] == []


EARLY = (
    "dataset.train_size=60", "dataset.test_size=40", "tracking.tensorboard=false", "optimizer.lr=0",
    "early_stopping.patience=2", "hydra.run.dir=run",
)  # fmt: skip


def test_a_run_that_early_stopping_ended_says_why_more_epochs_train_nothing(commands):
    commands.bnexp(*EARLY, "epochs=6")
    assert len((commands.folder / "run/metrics.csv").read_text().splitlines()) == 1 + 3
    result = commands.resume("run", "epochs=9")
    assert result.code == 0, result.err
    assert "goes on after epoch 3\n" in result.out
    assert "early stopping ended this run 2 epochs after its best one: nothing to train" in result.out
    assert len((commands.folder / "run/metrics.csv").read_text().splitlines()) == 1 + 3


@pytest.mark.parametrize(("patience", "epochs"), [("4", 5), ("null", 6)])
def test_the_patience_may_be_changed_on_resume(commands, patience, epochs):
    commands.bnexp(*EARLY, "epochs=6")
    result = commands.resume("run", f"early_stopping.patience={patience}")
    assert result.code == 0, result.err
    assert len((commands.folder / "run/metrics.csv").read_text().splitlines()) == 1 + epochs


def test_a_patience_that_would_have_ended_the_run_earlier_is_refused(commands):
    commands.bnexp(*EARLY, "early_stopping.patience=4", "epochs=6")  # the first epoch is the best of five
    files = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    result = commands.resume("run", "early_stopping.patience=3")
    assert (result.code, result.err) == (
        2,
        "bnexp: early_stopping.patience=3: would have ended this run before its epoch 5; take a larger one"
        " (or null), or start a new run in another folder\n",
    )
    assert {str(path) for path in files if path.read_bytes() != files[path]} == {"run/train.log"}
    assert commands.resume("run").code == 0


def test_a_checkpoint_of_another_run_is_refused(commands):
    assert train(commands, "first", *SMALL, "epochs=1").code == 0
    assert train(commands, "second", *SMALL, "epochs=1", "seed=1").code == 0
    shutil.copy("second/checkpoints/last.pt", "first/checkpoints/last.pt")
    summary = Path("first/summary.json").read_bytes()
    for result in (commands.resume("first", "epochs=2"), commands.eval("first")):
        assert (result.code, len(result.err.splitlines())) == (2, 1), result.err
        assert "first/checkpoints/last.pt: belongs to another run" in result.err
    assert Path("first/summary.json").read_bytes() == summary
