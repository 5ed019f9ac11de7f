"""Whole runs on the embedded data: their folder, twins, the same bits for the same command."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml

from bnexp.config.schema import Component
from bnexp.training import checkpoint, components

QUICK = ("epochs=2", "dataset.train_size=200", "dataset.test_size=100", "tracking.tensorboard=false")


def weights(commands, *overrides):
    """The final weights of a run with these arguments."""
    assert commands.bnexp(*QUICK, *overrides).code == 0
    return checkpoint.load(commands.runs()[-1] / "checkpoints" / "last.pt")["model"]


def metrics(commands):
    rows = csv.DictReader((commands.runs()[-1] / "metrics.csv").read_text().splitlines())
    return [{key: row[key] for key in row if key not in ("images_per_s", "epoch_s")} for row in rows]


def test_a_run_folder_has_all_its_files_and_values(commands):
    done = commands.bnexp(
        "epochs=2", "model=conv_bn", "dataset.train_size=200", "tracking.histograms=true", "tags=[a]"
    )
    assert done.code == 0
    assert done.err == ""
    (run,) = commands.runs()
    assert run.parent.parent.name == "outputs"
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    events = {name for name in files if name.startswith("events.out.tfevents.")}
    assert len(events) == 1
    assert files - events == {
        ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "train.log", "metrics.csv",
        "confusion.csv",
        "steps.csv", "checkpoints/last.pt", "checkpoints/best.pt", "environment.json", "summary.json",
        ".lock",
    }  # fmt: skip

    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["parameters"] == 6530
    assert (summary["images"], summary["classes"]) == ({"train": 200, "val": 22, "test": 359}, 10)
    assert summary["majority"] == 37 / 359  # the most frequent digit
    assert summary["tags"] == ["a"]
    assert summary["error"] is None
    splits = ("train", "train_eval", "val", "test")
    assert set(summary["final"]) == {f"{split}/{name}" for split in splits for name in ("loss", "accuracy")}
    assert {"epoch", "val/accuracy", "test/accuracy"} <= set(summary["best"])
    assert summary["time"]["total_s"] > summary["time"]["train_s"] > 0
    assert len((run / "steps.csv").read_text().splitlines()) == 1 + 2 * 4
    assert len((run / "metrics.csv").read_text().splitlines()) == 3
    environment = json.loads((run / "environment.json").read_text())
    assert environment["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    log = (run / "train.log").read_text()
    assert "epoch 2/2 | train " in log
    assert "6,530 parameters" in log
    assert "epoch 2/2" in done.out


def test_default_run_learns_the_digits(commands):
    assert commands.bnexp().code == 0
    assert commands.summary()["final"]["test/accuracy"] >= 0.95


def test_the_same_command_gives_the_same_bits_whatever_ran_before(commands):
    first = weights(commands, "model=conv_bn")
    first_metrics = metrics(commands)
    weights(
        commands, "model=mlp", "seed=3", "model.dropout=0.5", "device.threads=2", "device.deterministic=true"
    )
    torch.rand(17)
    second = weights(commands, "model=conv_bn")
    assert first_metrics == metrics(commands)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_twins_see_the_same_batches_from_the_same_start(commands, monkeypatch):
    from bnexp.training.trainer import Trainer

    record, step = {}, Trainer.step

    def recording_step(trainer, batch):
        record.setdefault("start", {k: v.clone() for k, v in trainer.model.state_dict().items()})
        record.setdefault("images", []).append(batch.tensors()[0].clone())
        return step(trainer, batch)

    monkeypatch.setattr(Trainer, "step", recording_step)
    records = {}
    for norm in ("none", "batch", "batch_manual", "layer", "group", "instance", "batch_noise"):
        weights(
            commands, "model=conv", f"model.norm={norm}", "dataset.augment=[flip,crop]", "model.dropout=0.3"
        )
        records[norm] = dict(record)
        record.clear()
    plain = records.pop("none")
    for twin in records.values():
        for name, value in plain["start"].items():
            assert torch.equal(value, twin["start"][name]), name
        assert all(torch.equal(a, b) for a, b in zip(plain["images"], twin["images"], strict=True))


def test_manual_batch_norm_trains_like_torchs(commands):
    weights(commands, "model=mlp_bn")
    expected = metrics(commands)
    weights(commands, "model=mlp", "model.norm=batch_manual")
    for row, expected_row in zip(metrics(commands), expected, strict=True):
        assert float(row["val/loss"]) == pytest.approx(float(expected_row["val/loss"]), rel=1e-3)


@pytest.mark.parametrize(
    "overrides",
    [
        "scheduler=step scheduler.step_size=1", "scheduler=plateau", "scheduler=cosine",
        "scheduler=exponential",
        "scheduler=polynomial", "scheduler=onecycle", "scheduler=cosine scheduler.interval=step",
        "optimizer=momentum", "optimizer=nesterov", "optimizer=adam",
        "optimizer=adamw +optimizer.amsgrad=true",
        "loss=mse", "loss=hinge", "loss.label_smoothing=0.1", "l1=0.001", "optimizer.weight_decay=0.01",
        "grad_clip=1", "device.precision=bf16", "dataset.augment=[flip,crop]", "dataset.resize=14",
        "dataset.folds=5 dataset.fold=4", "dataset.val_size=0", "dataset.mean=auto dataset.std=auto",
        "model=lenet", "model=mlp model.hidden=[] ", "model=mlp model.init=kaiming model.activation=gelu",
        "early_stopping.patience=1", "checkpoint.every=2 checkpoint.keep=1", "model=conv model.pool=avg",
        "model=torchvision model.arch=resnet18 dataset.resize=32 dataset.train_size=20 epochs=1",
    ],
)  # fmt: skip
def test_a_run_with_this_key_trains(commands, overrides):
    assert commands.bnexp(*QUICK, *overrides.split()).code == 0
    summary = commands.summary()
    assert summary["status"] == "finished"
    assert 0 <= summary["final"]["test/accuracy"] <= 1


def test_each_key_changes_the_weights(commands):
    plain = weights(commands)
    for word in ("l1=0.01", "optimizer.weight_decay=0.01", "grad_clip=0.1", "seed=1",
                 "loss.label_smoothing=0.2", "scheduler=cosine", "dataset.augment=[crop]"):  # fmt: skip
        changed = weights(commands, word)
        assert not torch.equal(plain["head.weight"], changed["head.weight"]), word


def test_without_val_the_test_set_is_evaluated_every_epoch_and_chooses_nothing(commands):
    weights(commands, "dataset.val_size=0")
    assert all(row["test/loss"] and not row["val/loss"] for row in metrics(commands))
    assert commands.summary()["best"] is None
    assert not (commands.runs()[-1] / "checkpoints" / "best.pt").exists()


def test_a_users_own_network_optimizer_and_scheduler_train(tmp_path):
    (tmp_path / "mynets.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, image_size, num_classes, width: int):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(image_size ** 2, width), nn.ReLU(),\n"
        "                         nn.Linear(width, num_classes))\n"
        "class Slow(torch.optim.SGD):\n"
        "    def __init__(self, params, speed: float):\n"
        "        super().__init__(params, lr=speed)\n"
        "def halve(optimizer):\n"
        "    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)\n"
    )
    (tmp_path / "myconf" / "model").mkdir(parents=True)
    (tmp_path / "myconf" / "model" / "mine.yaml").write_text("_target_: mynets.Net\nwidth: 32\n")
    script = os.path.join(
        os.path.dirname(sys.executable), "bnexp"
    )  # a console script leaves the current folder off sys.path
    own_components = ["optimizer=custom", "optimizer._target_=mynets.Slow", "+optimizer.speed=0.2"]
    own_components += ["scheduler=custom", "scheduler._target_=mynets.halve"]
    for overrides in (["model=custom", "model._target_=mynets.Net", "+model.width=64", *own_components],
                  ["--config-dir", "myconf", "model=mine"]):  # fmt: skip
        done = subprocess.run(
            [script, *QUICK, *overrides], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
    summaries = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/*/*/summary.json")]
    assert sorted(s["parameters"] for s in summaries) == [32 * 785 + 330, 64 * 785 + 650]


def start(folder, *overrides):
    command = [sys.executable, "-m", "bnexp.train", "epochs=100000", *overrides]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("epoch "):
            return process
    raise AssertionError(process.stderr.read())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_run_and_says_how_to_continue(tmp_path, number, code):
    process = start(tmp_path)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors.strip() == f"bnexp: interrupted ({signal.Signals(number).name})"
    (path,) = tmp_path.glob("outputs/*/*/summary.json")
    assert output.splitlines()[-1] == f"carry on: bnexp-resume {path.parent.relative_to(tmp_path)}"
    assert json.loads(path.read_text())["status"] == "interrupted"
    state = checkpoint.load(path.parent / "checkpoints" / "last.pt")
    rows = (path.parent / "metrics.csv").read_text().splitlines()
    assert state["progress"]["epoch"] == int(rows[-1].split(",")[0])


@pytest.mark.parametrize(("monitor", "mode"), [("val/loss", "min"), ("val/accuracy", "max")])
def test_plateau_takes_its_direction_from_what_it_monitors(monitor, mode):
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    keys = {"interval": "epoch", "monitor": monitor, "mode": None}
    component = Component("scheduler", "torch.optim.lr_scheduler.ReduceLROnPlateau", keys)
    config = SimpleNamespace(scheduler=component, epochs=3)
    assert (
        components.schedule_of(
            config.scheduler, optimizer, epochs=config.epochs, steps_per_epoch=10
        ).scheduler.mode
        == mode
    )


def test_a_diverged_run_names_epoch_and_step(commands):
    done = commands.bnexp(*QUICK, "optimizer.lr=1e30")
    assert done.code == 1
    assert "diverged: the loss became" in done.err
    assert commands.summary()["status"] == "diverged"
    assert "epoch 1, step" in commands.summary()["error"]


def test_a_crash_leaves_its_traceback_in_the_log(commands, monkeypatch):
    (commands.folder / "crashing.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Loss(nn.CrossEntropyLoss):\n"
        "    steps = 0\n"
        "    def forward(self, logits, labels):\n"
        "        self.steps += torch.is_grad_enabled()\n"
        "        if self.steps > 10:\n"  # the trial before training takes fewer
        "            raise RuntimeError('the middle of nowhere')\n"
        "        return super().forward(logits, labels)\n"
    )
    monkeypatch.syspath_prepend(str(commands.folder))
    done = commands.bnexp(*QUICK, "batch_size=8", "loss._target_=crashing.Loss", "~loss.label_smoothing")
    assert done.code == 1
    assert done.err.splitlines()[0] == "bnexp: crashed: RuntimeError: the middle of nowhere"
    assert "Traceback" not in done.err
    (run,) = commands.runs()
    assert commands.summary()["status"] == "failed"
    assert "the middle of nowhere" in commands.summary()["error"]
    assert "in forward" in (run / "train.log").read_text()


def test_two_runs_in_one_second_have_two_folders(commands):
    for _ in range(2):
        weights(commands)
    assert len(commands.runs()) == 2


@pytest.mark.pictures
def test_a_sweep_ends_in_a_table(commands):
    done = commands.bnexp("-m", "model=mlp,mlp_bn", "seed=0,1", *QUICK)
    assert done.code == 0
    table = done.out[done.out.index("Does batch norm help an MLP on the digits?") :].splitlines()
    assert "model vs mlp | test accuracy, epoch chosen by validation | 2 paired seeds" in table
    start = next(i for i, line in enumerate(table) if line.split()[:2] == ["model", "n"])
    assert [row.split()[0] for row in table[start + 1 : start + 3]] == ["mlp", "mlp_bn"]
    assert "2 seeds: mlp_bn - mlp is" in done.out
    assert len(commands.runs()) == 4
    (page,) = commands.folder.rglob("report.html")
    assert page.read_text().startswith("<!doctype html>")
    assert done.out.rstrip().endswith(str(page.relative_to(commands.folder)))


def test_a_failing_job_does_not_stop_the_others(commands):
    done = commands.bnexp("-m", "model=mlp,mlp_bn", "batch_size=1", *QUICK, "hydra.launcher.jobs=2")
    assert done.code == 1
    statuses = [json.loads((run / "summary.json").read_text())["status"] for run in commands.runs()]
    assert sorted(statuses) == ["failed", "finished"]
    assert "more than one value a channel" in done.err


def test_a_piped_run_shows_no_progress_bar(shell):
    done = shell(*QUICK)
    assert done.code == 0
    assert "\r" not in done.out + done.err
    assert done.err == ""


def test_the_saved_configuration_is_the_one_that_ran(commands):
    weights(commands, "optimizer.lr=0.05")
    saved = yaml.safe_load((commands.runs()[-1] / ".hydra" / "config.yaml").read_text())
    assert saved["optimizer"]["lr"] == 0.05
