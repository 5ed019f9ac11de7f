"""A run that was stopped and goes on ends in the same bits as one that was never touched."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

from bnexp.runs.folder import lock_folder
from bnexp.train import main
from bnexp.training.trainer import Trainer
from helpers.records import record

SMALL = ("dataset.train_size=300", "dataset.test_size=100", "batch_size=50", "device.threads=1")
EVERYTHING = (
    "model=mlp_bn", "model.dropout=0.2", "dataset.augment=[crop]", "optimizer=adam", "scheduler=plateau",
    "scheduler.patience=0", "epochs=4", "tracking.every=4", "tracking.histograms=true", *SMALL,
)  # fmt: skip
STEPS = 6  # in an epoch: 270 images are left to train on


class Cut(BaseException):
    """Stands for a kill: nothing that bnexp does may catch it."""


def stop_at(monkeypatch, step: int, how) -> None:
    """``how`` is called inside step number ``step`` of the next run, counted from where that begins."""
    plain, taken = Trainer.step, []

    def counted(self, *batch):
        taken.append(None)
        if len(taken) == step:
            monkeypatch.setattr(Trainer, "step", plain)
            how()
        return plain(self, *batch)

    monkeypatch.setattr(Trainer, "step", counted)


def terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def train(commands, folder: str, *words: str):
    return commands.bnexp(*words, f"hydra.run.dir={folder}")


@pytest.mark.parametrize("step", [1, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS + 3, 4 * STEPS])
@pytest.mark.parametrize("by", ["resume", "command"])
def test_a_run_that_was_terminated_goes_on_to_the_same_bits(commands, monkeypatch, step, by):
    assert train(commands, "whole", *EVERYTHING).code == 0
    stop_at(monkeypatch, step, terminated)
    assert train(commands, "cut", *EVERYTHING).code == 143
    status = json.loads(Path("cut/summary.json").read_text())["status"]
    assert status == ("finished" if step == 4 * STEPS else "interrupted")
    done = commands.resume("cut") if by == "resume" else train(commands, "cut", *EVERYTHING)
    assert done.code == 0
    assert record(Path("cut")) == record(Path("whole"))


def test_a_run_that_is_stopped_again_and_again_ends_in_the_same_bits(commands, monkeypatch):
    train(commands, "whole", *EVERYTHING)
    for step in (2, 3, 1, 7, 5):
        stop_at(monkeypatch, step, terminated)
        assert train(commands, "cut", *EVERYTHING).code == 143
    assert commands.resume("cut").code == 0
    assert record(Path("cut")) == record(Path("whole"))


OTHERS = {
    "conv sgd step": ("model=conv_bn", "scheduler=step", "scheduler.step_size=1"),
    "momentum cosine": ("optimizer=momentum", "scheduler=cosine"),
    "adamw onecycle": ("optimizer=adamw", "scheduler=onecycle", "scheduler.max_lr=0.1"),
    "resnet": ("model=resnet", "model.stem=small", "model.widths=[4]", "model.depths=[1]"),
    "group norm, hinge, l1": ("model=lenet", "model.norm=group", "loss=hinge", "l1=0.001"),
    "no val": ("model=mlp_bn", "dataset.val_size=0"),
    "clipped": ("grad_clip=0.1", "optimizer=nesterov"),
    "batch by hand": ("model=mlp", "model.norm=batch_manual", "optimizer=adam"),
    "few checkpoints": ("model=mlp_bn", "checkpoint.every=2", "checkpoint.keep=1"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_kind_of_state_is_carried_over(commands, monkeypatch, name):
    words = (*OTHERS[name], "epochs=3", *SMALL)
    assert train(commands, "whole", *words).code == 0
    stop_at(monkeypatch, 9, terminated)
    assert train(commands, "cut", *words).code == 143
    assert commands.resume("cut").code == 0
    assert record(Path("cut")) == record(Path("whole"))


@pytest.mark.parametrize("step", [1, STEPS + 1, 3 * STEPS])
def test_a_run_that_was_killed_goes_on_from_its_last_whole_epoch(commands, monkeypatch, step):
    train(commands, "whole", *EVERYTHING)

    def killed():
        raise Cut

    stop_at(monkeypatch, step, killed)
    monkeypatch.setattr(sys, "argv", ["bnexp", *EVERYTHING, "hydra.run.dir=cut"])
    with pytest.raises(Cut):
        main()
    assert json.loads(Path("cut/summary.json").read_text())["status"] == "running"
    assert commands.resume("cut").code == 0
    assert record(Path("cut")) == record(Path("whole"))


@pytest.mark.parametrize(
    "scheduler", [(), ("scheduler=step", "scheduler.step_size=2"), ("scheduler=plateau",)]
)
def test_more_epochs_equal_having_asked_for_them_at_once(commands, scheduler):
    words = ("model=mlp_bn", *scheduler, *SMALL)
    assert train(commands, "whole", *words, "epochs=5").code == 0
    assert train(commands, "cut", *words, "epochs=2").code == 0
    done = commands.resume("cut", "epochs=5")
    assert done.code == 0
    assert "goes on after epoch 2" in done.out
    assert record(Path("cut")) == record(Path("whole"))
    assert commands.summary()["epochs"] == 5


def test_a_schedule_laid_out_for_fewer_epochs_takes_no_more(commands):
    words = ("scheduler=cosine", *SMALL)
    train(commands, "run", *words, "epochs=2")
    before = record(Path("run"))
    done = commands.resume("run", "epochs=4")
    assert done.code == 2
    assert done.err == (
        "bnexp: epochs=4: this run's learning rate was laid out for 2 (scheduler.T_max=null follows"
        " epochs); begin anew in another folder\n"
    )
    assert record(Path("run")) == before


def test_a_finished_run_is_left_alone(commands):
    train(commands, "run", "epochs=1", *SMALL)
    files = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*") if path.is_file()}
    done = commands.resume("run")
    assert (done.code, done.out) == (0, "run: this run is finished; nothing to do\n")
    assert files == {path: path.stat().st_mtime_ns for path in Path("run").rglob("*") if path.is_file()}


def test_the_differing_keys_are_named(commands):
    train(commands, "run", "epochs=2", *SMALL)
    for word, why in (
        ("optimizer.lr=0.3", "optimizer.lr=0.1 (here 0.3)"),
        ("epochs=1", "epochs=2 (here 1)"),
        ("model.norm=batch", "model.norm=none (here batch)"),
    ):
        done = commands.resume("run", word)
        assert done.code == 2
        assert done.err == f"bnexp: hydra.run.dir=run: holds a run with {why}; choose another folder\n"


def cut_after_two_epochs(commands, monkeypatch, *words: str) -> Path:
    stop_at(monkeypatch, 2 * STEPS + 3, terminated)
    assert train(commands, "cut", *EVERYTHING, *words).code == 143
    return Path("cut/checkpoints")


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        del content[len(content) // 2 :]
    elif how == "flipped":
        content[len(content) // 2] ^= 1
    elif how == "empty":
        content.clear()
    path.unlink()  # it may share its bytes with another name
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(commands, monkeypatch, how):
    train(commands, "whole", *EVERYTHING)
    checkpoints = cut_after_two_epochs(commands, monkeypatch)
    damage(checkpoints / "last.pt", how)
    done = commands.resume("cut")
    assert done.code == 0
    assert "last.pt: not a checkpoint that can be read" in done.out
    assert "goes on after epoch 2\n" in done.out
    assert record(Path("cut")) == record(Path("whole"))


def test_with_no_checkpoint_left_it_begins_anew_and_says_so(commands, monkeypatch):
    train(commands, "whole", *EVERYTHING)
    checkpoints = cut_after_two_epochs(commands, monkeypatch)
    for name in ("last.pt", "previous.pt"):
        damage(checkpoints / name, "flipped")
    done = commands.resume("cut")
    assert done.code == 0
    assert done.out.count("not a checkpoint that can be read") == 2
    assert "goes on" not in done.out
    assert record(Path("cut")) == record(Path("whole"))


def test_a_best_checkpoint_that_is_gone_is_trained_again(commands, monkeypatch):
    train(commands, "whole", *EVERYTHING)
    checkpoints = cut_after_two_epochs(commands, monkeypatch)
    (checkpoints / "best.pt").unlink()
    assert commands.resume("cut").code == 0
    assert record(Path("cut")) == record(Path("whole"))


def test_rows_and_events_behind_the_checkpoint_are_taken_out(commands, monkeypatch):
    train(commands, "whole", *EVERYTHING)
    cut_after_two_epochs(commands, monkeypatch)
    with Path("cut/metrics.csv").open("a", newline="") as file:
        file.write("3,0.5,0.5\r\n4,0.")
    with Path("cut/steps.csv").open("a", newline="") as file:
        file.write("99,0.5\r\n")
    (events,) = Path("cut").glob("events.*")
    with events.open("ab") as file:
        file.write(events.read_bytes()[-40:-3])
    assert commands.resume("cut").code == 0
    assert record(Path("cut")) == record(Path("whole"))


def test_a_run_in_use_is_refused(commands, monkeypatch):
    train(commands, "whole", *EVERYTHING)
    stop_at(monkeypatch, 2, terminated)
    train(commands, "cut", *EVERYTHING)
    with lock_folder(Path("cut")):
        before = record(Path("cut"))
        for done in (train(commands, "cut", *EVERYTHING), commands.resume("cut")):
            assert done.code == 2
            assert done.err == (
                "bnexp: cut: another process is writing this run; wait for it, or choose another folder\n"
            )
        assert record(Path("cut")) == before
    assert commands.resume("cut").code == 0
    assert record(Path("cut")) == record(Path("whole"))


def test_a_network_that_has_changed_since_is_one_line(commands, monkeypatch):
    cut_after_two_epochs(commands, monkeypatch)
    state = torch.load("cut/checkpoints/last.pt", weights_only=True)
    state["model"]["head.weight"] = torch.zeros(2, 2)
    torch.save(state, "cut/checkpoints/last.pt")
    done = commands.resume("cut")
    assert done.code == 2
    assert done.err.startswith("bnexp: the checkpoint does not fit this network (")
    assert len(done.err.splitlines()) == 1
    assert json.loads(Path("cut/summary.json").read_text())["status"] == "interrupted"


def test_threads_stay_what_they_were(commands, monkeypatch):
    stop_at(monkeypatch, 2, terminated)
    words = [word for word in EVERYTHING if not word.startswith("device.threads")]
    train(commands, "cut", *words)
    path = Path("cut/environment.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threads": 2}))
    assert commands.resume("cut").code == 0
    found = json.loads(path.read_text())
    assert found["threads"] == min(2, os.cpu_count())
    assert [earlier["threads"] for earlier in found["earlier"]] == [2]


def test_a_sweeps_interrupted_job_goes_on(commands, monkeypatch):
    words = ("-m", "model=mlp,mlp_bn", "seed=0", "epochs=3", *SMALL)
    assert commands.bnexp(*words, "hydra.sweep.dir=whole").code == 0
    stop_at(monkeypatch, 3 * STEPS + STEPS + 2, terminated)
    assert commands.bnexp(*words, "hydra.sweep.dir=cut").code == 143
    done = commands.resume("cut")
    assert done.code == 0
    assert "goes on after epoch 1, 2 steps into the next" in done.out
    for whole in Path("whole").glob("*/summary.json"):
        assert record(Path("cut") / whole.parent.name) == record(whole.parent)


FOREIGN = {
    "model._target_=own.Net": "model._target_=own.Net: neither bnexp's nor torch's; --trust own.Net",
    "optimizer._target_=torch.hub.load": "optimizer._target_=torch.hub.load: neither",
    "model._target_=torch.nn.modules.module.warnings": "neither",
    "+hydra.callbacks.mine._target_=os.system": "a key of Hydra's that may run code; --trust",
    "hydra.launcher._target_=os.system": "a key of Hydra's that may run code",
    "hydra.searchpath=[file:///tmp]": "a key of Hydra's that may run code",
    "+model={_target_:os.system}": "not the name of a choice",
    "+own={_target_:os.system}": "names code inside a value",
    "model=../../../../evil": "not the name of a choice, and may name code; --trust",
    "experiment=/evil": "not the name of a choice",
    "hydra/launcher=../evil": "not the name of a choice",
    "model=${oc.decode:name}": "not the name of a choice",
    "+model@hydra.callbacks.mine=mlp": "a key of Hydra's that may run code",
    "hydra/sweeper=evil": "a key of Hydra's that may run code",
    "hydra.sweeper._target_=os.system": "a key of Hydra's that may run code",
    "hydra.output_subdir=evil": "a key of Hydra's that may run code",
}


@pytest.mark.parametrize("word", FOREIGN)
def test_a_folder_names_no_code_of_its_own(commands, monkeypatch, word):
    stop_at(monkeypatch, 2, terminated)
    train(commands, "cut", "epochs=1", *SMALL)
    path = Path("cut/.hydra/hydra.yaml")
    kind = "hydra" if "hydra" in word else "task"
    text = path.read_text()
    assert f"    {kind}:\n" in text
    path.write_text(text.replace(f"    {kind}:\n", f"    {kind}:\n    - {json.dumps(word)}\n"))
    done = commands.resume("cut")
    assert done.code == 2
    assert FOREIGN[word] in done.err
    assert len(done.err.splitlines()) == 1


def test_a_network_of_ones_own_goes_on_once_it_is_trusted(commands, monkeypatch):
    Path("own_net.py").write_text(
        "from torch import nn\n\n\ndef net(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes))\n"
    )
    monkeypatch.syspath_prepend(str(commands.folder))
    stop_at(monkeypatch, 2, terminated)
    words = ("model=custom", "model._target_=own_net.net", "epochs=2", *SMALL)
    assert train(commands, "cut", *words).code == 143
    assert commands.resume("cut").code == 2
    assert commands.resume("cut", "--trust", "own_net.net").code == 0


def test_a_checkpoint_outside_the_run_is_refused(commands, monkeypatch):
    checkpoints = cut_after_two_epochs(commands, monkeypatch)
    shutil.move(checkpoints, "elsewhere")
    checkpoints.symlink_to(Path("elsewhere").resolve())
    done = commands.eval("cut")
    assert done.code == 2
    assert done.err == "bnexp: cut/checkpoints: points outside the run's folder\n"
