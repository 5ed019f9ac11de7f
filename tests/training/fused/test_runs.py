"""Runs that are trained together, from their folders' point of view."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from bnexp.compute.device import prepare_device
from bnexp.config.schema import Config
from bnexp.data.network_input import NetworkInput
from bnexp.errors import UserError
from bnexp.runs.confusion import read_confusion
from bnexp.signals import StopSignal
from bnexp.training import build
from bnexp.training.fused import layers
from bnexp.training.fused.obstacles import reason_not_to_fuse
from bnexp.training.fused.run import train_fused
from bnexp.training.fused.size import replicas_for
from bnexp.training.run import train as train_single
from helpers.fused_runs import OVERRIDES, make_run, rows, summary, train

SEEDS = (0, 1, 2)
TIMES = ("images_per_s", "epoch_s")


def checkpoint(path: Path, name: str = "last") -> dict:
    return torch.load(path / "checkpoints" / f"{name}.pt", weights_only=True)


def train_alone(root: Path, seed: int, overrides=()) -> Path:
    """The run of one seed as ``train`` leaves it."""
    from bnexp.runs.outcome import record_outcome

    run = make_run(root, seed, overrides)
    with record_outcome(run.folder, keep=True):
        train_single(run.config, run.folder, run.job, run.share, StopSignal())
    return root / str(seed)


def metrics(path: Path) -> list[dict[str, float]]:
    """metrics.csv without what a clock says."""
    return [
        {name: float(value) for name, value in row.items() if value and name not in TIMES}
        for row in rows(path)
    ]


# abs=6e-3 is one of 200 images, which rounding may give to another class.
def assert_same_numbers(path: Path, expected: Path, **tolerance: float) -> None:
    for row, expected_row in zip(metrics(path), metrics(expected), strict=True):
        assert row == pytest.approx(expected_row, **tolerance)
    losses, expected_losses = (
        [float(row["train/loss"]) for row in rows(folder, "steps.csv")] for folder in (path, expected)
    )
    assert losses == pytest.approx(expected_losses, **tolerance)
    for key in ("final", "best"):
        assert (summary(path)[key] or {}) == pytest.approx(summary(expected)[key] or {}, **tolerance)


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=mlp_bn", "tracking.histograms=true", "checkpoint.keep=1"),
        ("model=conv_bn", "dataset.augment=[flip,crop]", "dataset.mean=auto", "optimizer=adam",
         "scheduler=onecycle", "scheduler.max_lr=0.01"),
        ("model=lenet", "model.activation=relu", "dataset.val_size=0", "loss=hinge", "l1=0.0001",
         "grad_clip=1"),
    ],
    ids=["mlp", "conv", "lenet"],
)  # fmt: skip
def test_a_run_leaves_the_records_that_it_leaves_alone(tmp_path, overrides):
    assert train(tmp_path / "together", SEEDS, overrides) == ["finished"] * 3
    for seed in SEEDS[1:]:
        path, alone = tmp_path / "together" / str(seed), train_alone(tmp_path / "alone", seed, overrides)
        assert_same_numbers(path, alone, rel=2e-3, abs=6e-3)
        names, expected_names = (
            sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if "tfevents" not in file.name)
            for folder in (path, alone)
        )
        assert names == expected_names
        assert list(rows(path)[0]) == list(rows(alone)[0])
        assert summary(path)["fused"] == 3
        assert summary(path).keys() - {"fused"} == summary(alone).keys()
        for key in ("status", "config_hash", "seed", "epochs", "parameters", "images", "majority"):
            assert summary(path)[key] == summary(alone)[key]
        assert read_confusion(path) == read_confusion(alone) != {}
        tags, expected_tags = (
            EventAccumulator(str(folder), size_guidance={"histograms": 1}).Reload().Tags()
            for folder in (path, alone)
        )
        assert tags == expected_tags
        for name in ["last"] + ["best"] * (summary(path)["best"] is not None):
            state, expected = checkpoint(path, name), checkpoint(alone, name)
            assert state.keys() == expected.keys()
            shapes, expected_shapes = (
                [(key, value.shape, value.dtype) for key, value in saved["model"].items()]
                for saved in (state, expected)
            )
            assert shapes == expected_shapes
            assert state["optimizer"]["state"].keys() == expected["optimizer"]["state"].keys()
            assert state["progress"].keys() == expected["progress"].keys()


def test_a_checkpoint_holds_one_network_and_not_the_memory_of_all(tmp_path):
    train(tmp_path / "together", SEEDS)
    size = (tmp_path / "together" / "0" / "checkpoints" / "last.pt").stat().st_size
    alone = train_alone(tmp_path / "alone", 0) / "checkpoints" / "last.pt"
    assert size < 1.1 * alone.stat().st_size


def test_a_run_that_diverges_leaves_and_the_others_go_on(tmp_path, monkeypatch, caplog):
    build = layers.fuse

    overrides = ("model.norm=none", "loss=mse", "model.activation=relu", "tracking.every=3")
    healthy = train(tmp_path / "healthy", SEEDS, overrides)

    def fuse(networks):
        fused = build(networks)
        if len(networks) == 3:  # the unit of all three; the fault belongs to seed 1 alone
            with torch.no_grad():
                fused.hidden[0].linear.weight[100:200].mul_(1e20)
        return fused

    monkeypatch.setattr("bnexp.training.fused.trainer.fuse", fuse)
    monkeypatch.setattr("bnexp.training.fused.unit.require_same", lambda *_: None)
    with caplog.at_level(logging.ERROR):
        statuses = train(tmp_path / "diverging", SEEDS, overrides)
    assert healthy == ["finished"] * 3
    assert statuses == ["finished", "diverged", "finished"]
    record = summary(tmp_path / "diverging" / "1")
    assert record["status"] == "diverged"
    assert record["error"] in caplog.text
    assert "epoch 1, step" in record["error"]
    for seed in (0, 2):
        assert_same_numbers(tmp_path / "diverging" / str(seed), tmp_path / "healthy" / str(seed), rel=1e-4)


def stop_between_saves(process: subprocess.Popen, root: Path) -> None:
    """Halts the process where the checkpoints of all runs are of one epoch: else they go on apart."""
    while True:
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        if len({checkpoint(root / str(seed))["progress"]["epoch"] for seed in SEEDS}) == 1:
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.02)


LONG = ("model=conv_bn", "epochs=40", "scheduler=cosine", "optimizer=momentum")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The folder of a unit that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, SEEDS, LONG) == ["finished"] * 3
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_unit_that_is_killed_goes_on_to_the_same_numbers(tmp_path, whole, number):
    command = [sys.executable, "-m", "helpers.fused_runs", str(tmp_path / "killed"), "0,1,2", *LONG]
    tests = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    file = tmp_path / "killed" / "2" / "metrics.csv"
    while process.poll() is None and not (file.exists() and file.read_text().count("\n") > 2):
        time.sleep(0.01)
    if number == signal.SIGKILL:
        stop_between_saves(process, tmp_path / "killed")
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    statuses = [summary(tmp_path / "killed" / str(seed))["status"] for seed in SEEDS]
    assert statuses == ["interrupted" if number == signal.SIGTERM else "running"] * 3, output.decode()

    assert train(tmp_path / "killed", SEEDS, LONG) == ["finished"] * 3
    for seed in SEEDS:
        path, expected = tmp_path / "killed" / str(seed), whole / str(seed)
        assert_same_numbers(path, expected, rel=0, abs=0)
        torch.testing.assert_close(checkpoint(path)["model"], checkpoint(expected)["model"], rtol=0, atol=0)
        assert summary(path)["fused"] == 3


def test_the_commands_go_on_from_a_fused_run_and_evaluate_it(commands, tmp_path):
    """A single run goes on together with others, and alone again."""
    overrides = ("model=conv_bn", "optimizer=adamw")
    for seed in SEEDS:
        arguments = (*OVERRIDES, *overrides, f"seed={seed}", "name=fused", "epochs=1")
        assert commands.bnexp(*arguments, f"hydra.run.dir=runs/{seed}").code == 0
    assert train(tmp_path / "runs", SEEDS, (*overrides, "epochs=2")) == ["finished"] * 3
    assert summary(tmp_path / "runs" / "1")["fused"] == 3

    path = tmp_path / "runs" / "1"
    evaluation = commands.eval(str(path), "--checkpoint=last")
    assert f"accuracy {summary(path)['final']['test/accuracy']:.4f}" in evaluation.out
    assert commands.resume(str(path), "epochs=3").code == 0
    assert summary(path)["fused"] == 3  # a part of it was
    alone = train_alone(tmp_path / "alone", 1, overrides)
    assert_same_numbers(path, alone, rel=2e-3, abs=6e-3)
    assert "1 run" not in commands.compare(str(tmp_path / "runs"), str(tmp_path / "alone")).err


def test_runs_at_different_steps_are_trained_apart(tmp_path, caplog):
    train(tmp_path, SEEDS[:2], ("epochs=1",))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert train(tmp_path, (0, 1, 2, 3), ("epochs=2",)) == ["finished"] * 4
    lines = [message for message in caplog.messages if " together on " in message]
    assert [line.split(" together")[0] for line in lines] == ["fused: seeds 0, 1", "fused: seeds 2, 3"]
    assert all(len(rows(tmp_path / str(seed))) == 2 for seed in range(4))


class NoBias(layers.FusedLinear):
    """A fused layer with a mistake."""

    def forward(self, input):
        self.bias = None
        return super().forward(input)


def test_a_fused_network_that_differs_is_not_trained(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(layers.SWAPS, nn.Linear, NoBias)
    with caplog.at_level(logging.WARNING):
        assert train(tmp_path / "apart", SEEDS) == ["finished"] * 3
    assert "3 seeds, one after the other: the loss of the first batch is" in caplog.text
    for seed in SEEDS:
        assert "fused" not in summary(tmp_path / "apart" / str(seed))
        alone = train_alone(tmp_path / "alone", seed)
        assert_same_numbers(tmp_path / "apart" / str(seed), alone, rel=0, abs=0)


def test_a_mistake_is_that_of_all_seeds(tmp_path, caplog):
    """The last batch holds one training image, which batch norm does not take, for every seed."""
    with pytest.raises(UserError, match="batch of one"):
        train(tmp_path, SEEDS, ("model=mlp_bn", "dataset.train_size=65", "batch_size=64"))
    for seed in SEEDS:
        assert summary(tmp_path / str(seed))["status"] == "failed"
        assert "batch of one" in summary(tmp_path / str(seed))["error"]
    assert "one after the other" not in caplog.text


def test_after_a_signal_no_further_run_begins(tmp_path):
    stop = StopSignal()
    stop.received = signal.SIGTERM
    assert train(tmp_path, SEEDS, ("model.dropout=0.5",), stop) == ["interrupted"] * 3
    assert not (tmp_path / "0" / "summary.json").exists()


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["model.dropout=0.5"], "model.dropout=0.5"),
        (["model.norm=batch_noise"], "model.norm=batch_noise: the runs would draw their noise from one"),
        (["model=torchvision"], "model._target_=bnexp.models.from_torchvision"),
        (["model=custom", "model._target_=torch.nn.Linear"], "only these networks have a fused form"),
        (["optimizer=custom", "optimizer._target_=torch.optim.LBFGS"], "only these optimizers"),
        (["+optimizer.differentiable=true"], "optimizer.differentiable"),
        (["scheduler=plateau"], "only these schedulers"),
        (["+scheduler.monitor=val/loss", "scheduler=step"], "scheduler.monitor"),
        (["loss=custom", "loss._target_=torch.nn.NLLLoss"], "only these losses"),
        (["loss.weight=balanced"], "loss.weight=balanced: the weights follow"),
        (["early_stopping.patience=3"], "early_stopping.patience"),
        (["device.precision=bf16"], "device.precision=bf16"),
        (["device.compile=true"], "device.compile=true"),
        (["device=cuda"], "device=cuda"),
    ],
)  # fmt: skip
def test_the_reason_not_to_fuse_names_the_key(tmp_path, overrides, reason):
    config = make_run(tmp_path, 0, overrides).config
    assert reason in (reason_not_to_fuse(config) or "")


@pytest.mark.parametrize("model", ["mlp", "mlp_bn", "conv_bn", "lenet_bn", "resnet", "densenet"])
@pytest.mark.parametrize(
    "scheduler", ["none", "step", "cosine", "exponential", "polynomial", "onecycle", "inverse_sqrt"]
)
def test_the_networks_and_schedulers_of_bnexp_have_no_reason(tmp_path, model, scheduler):
    run = make_run(tmp_path, 0, [f"model={model}", f"scheduler={scheduler}"])
    assert reason_not_to_fuse(run.config) is None


def test_several_processes_are_a_reason(tmp_path, monkeypatch):
    config = make_run(tmp_path, 0).config
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert reason_not_to_fuse(config) == "several processes train one network together"


def test_runs_that_differ_in_more_than_their_seed_are_trained_apart(tmp_path, caplog):
    runs = [make_run(tmp_path, 0), make_run(tmp_path, 1, ("optimizer.lr=0.01",))]
    with caplog.at_level(logging.INFO):
        assert train_fused(runs, StopSignal()) == ["finished"] * 2
    assert "they differ in more than their seed" in caplog.text


def replicas_that_fit(config: Config, limit: int) -> int:
    splits = build.load_splits(config, prepare_device(config.device))
    summary = build.summary(build.model(config, NetworkInput.of_splits(splits)), config, splits)
    return replicas_for(summary, config.batch_size, limit)


def test_small_networks_fit_together_and_large_ones_do_not(tmp_path):
    def size(*overrides: str, limit: int = 16) -> int:
        return replicas_that_fit(make_run(tmp_path, 0, overrides).config, limit)

    assert size("model=conv_bn") == 16
    assert size("model=conv_bn", limit=3) == 3
    assert size("model=conv_bn", limit=1) == 1
    assert 1 < size("model=conv_bn", "batch_size=200", "model.widths=[12,32]") < 16
    assert size("model=resnet") == 1


def test_a_unit_is_divided_where_fewer_fit(tmp_path, caplog):
    overrides = ("model=conv_bn", "batch_size=200", "model.widths=[12,32]", "epochs=1")
    size = replicas_that_fit(make_run(tmp_path / "size", 0, overrides).config, 16)
    seeds = range(2 * size)
    with caplog.at_level(logging.INFO):
        assert train(tmp_path, seeds, overrides) == ["finished"] * len(seeds)
    assert sum(" together on " in message for message in caplog.messages) == 2
    assert max(summary(tmp_path / str(seed))["fused"] for seed in seeds) <= size
