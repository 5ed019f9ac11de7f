"""The training loop, compared with the same training written out plainly."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import nn

from bnexp.errors import Diverged, Interrupted
from bnexp.signals import StopSignal
from bnexp.training.checkpoint import Checkpoints
from bnexp.training.loop import FitSettings, final_metrics, fit
from bnexp.training.progress import Progress
from bnexp.training.schedule import Schedule
from bnexp.training.trainer import Trainer
from helpers.tiny_training import RecordingLogger, batches, network, splits, trainer


def run(trained: Trainer, folder, *, data=None, epochs=3, patience=None, monitor="val/loss", **keys):
    """Trains for some epochs and returns the progress."""
    progress = Progress(monitor)
    data = splits(val=batches(20, 1)) if data is None else data
    settings = FitSettings(
        epochs=epochs, batch_size=16, eval_batch_size=7, seed=0, patience=patience,
        log_every=keys.pop("log_every", 2),
    )  # fmt: skip
    fit(
        trained, data, settings, progress, logger=keys.pop("logger", RecordingLogger()),
        checkpoints=Checkpoints(folder, every=1, keep=keys.pop("keep", 0)),
        stop=keys.pop("stop", StopSignal()),
    )  # fmt: skip
    return progress


@pytest.mark.parametrize(("l1", "clip"), [(0.0, None), (0.01, None), (0.0, 0.05), (0.01, 0.05)])
def test_an_epoch_equals_the_loop_written_out(tmp_path, l1, clip):
    plain = network()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    total, correct, losses = 0.0, 0, []
    for batch in batches().epoch(16, 0, 1):
        images, labels = batch.tensors()
        logits = plain(images)
        loss = nn.functional.cross_entropy(logits, labels)
        penalty = l1 * (plain[1].weight.abs().sum() + plain[4].weight.abs().sum())
        optimizer.zero_grad()
        (loss + penalty).backward()
        if clip:
            nn.utils.clip_grad_norm_(plain.parameters(), clip)
        optimizer.step()
        losses.append(loss.item())
        total += loss.item() * len(labels)
        correct += int((logits.argmax(1) == labels).sum())

    trained, logger = trainer(l1=l1, grad_clip=clip), RecordingLogger()
    metrics = run(trained, tmp_path, epochs=1, logger=logger).metrics

    for parameter, expected in zip(trained.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-6, atol=1e-7)
    assert logger.losses == pytest.approx(losses, rel=1e-6)
    assert logger.first_steps == [1, 3]
    assert metrics["train/loss"] == pytest.approx(total / 50, rel=1e-6)
    assert metrics["train/accuracy"] == correct / 50


@pytest.mark.parametrize(
    ("interval", "expected"), [("epoch", [0.1, 0.05, 0.025]), ("step", [0.1 / 2**3, 0.1 / 2**7, 0.1 / 2**11])]
)
def test_schedulers_move_after_the_epoch_or_after_the_step(tmp_path, monkeypatch, interval, expected):
    def halve(optimizer):
        return Schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5), interval)

    trained, rates = trainer(make_schedule=halve), []
    step = trained.step
    monkeypatch.setattr(trained, "step", lambda batch: (rates.append(trained.lr), step(batch))[1])
    run(trained, tmp_path)
    assert rates[3::4] == pytest.approx(expected)  # the rate of the last step of each epoch of four


def test_plateau_looks_at_what_it_monitors(tmp_path):
    def on_plateau(optimizer):
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, mode="max", patience=0, factor=0.5, eps=0
        )
        return Schedule(scheduler, monitor="train/accuracy")

    trained = trainer(lr=1e-12, make_schedule=on_plateau)  # too small a rate to improve anything
    run(trained, tmp_path)
    assert trained.lr < 1e-12


def test_best_and_early_stopping_follow_val(tmp_path):
    trained = trainer(lr=1e-9)
    trained.model[2].momentum = 0.0  # val loss stays within rounding
    progress = run(trained, tmp_path, epochs=50, patience=3, monitor="val/accuracy")
    assert progress.best is not None
    assert progress.epoch == progress.best["epoch"] + 3 < 50


def test_the_test_set_never_chooses(tmp_path):
    progress = run(trainer(), tmp_path, data=splits(test=batches(20, 1)))
    assert "test/loss" in progress.metrics
    assert progress.best is None
    assert not (tmp_path / "best.pt").exists()
    assert (tmp_path / "last.pt").exists()


def test_checkpoints_hold_the_best_and_the_last(tmp_path):
    trained = trainer()
    progress = run(trained, tmp_path, epochs=6, keep=2)
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert last["progress"]["epoch"] == 6
    assert best["progress"]["epoch"] == progress.best["epoch"]
    assert sorted(path.name for path in tmp_path.glob("epoch-*")) == ["epoch-5.pt", "epoch-6.pt"]
    for name, value in trained.model.state_dict().items():
        assert torch.equal(last["model"][name], value)
    assert not list(tmp_path.glob(".*"))


def test_a_loss_that_is_not_finite_ends_the_run_with_epoch_and_step(tmp_path):
    class NanAtStep6(nn.CrossEntropyLoss):
        calls = 0

        def forward(self, logits, labels):
            self.calls += torch.is_grad_enabled()  # evaluation calls the loss too
            return super().forward(logits, labels) * (math.nan if self.calls == 6 else 1)

    with pytest.raises(Diverged, match=r"the loss became nan in epoch 2, step 6"):
        run(trainer(loss=NanAtStep6()), tmp_path)


def test_a_signal_ends_the_run_after_the_step(tmp_path, monkeypatch):
    stop, trained = StopSignal(), trainer()
    step, steps = trained.step, []

    def step_with_signal(batch):
        steps.append(batch.size)
        stop.received = 15 if len(steps) == 6 else None
        return step(batch)

    monkeypatch.setattr(trained, "step", step_with_signal)
    logger = RecordingLogger()
    with pytest.raises(Interrupted):
        run(trained, tmp_path, stop=stop, log_every=100, logger=logger)
    assert len(steps) == 6
    assert len(logger.losses) == 6
    progress = torch.load(tmp_path / "last.pt", weights_only=True)["progress"]
    assert (progress["epoch"], progress["current"]["steps"]) == (1, 2)


def test_a_signal_in_the_last_step_of_an_epoch_saves_the_whole_epoch(tmp_path, monkeypatch):
    stop, trained = StopSignal(), trainer()
    step, steps = trained.step, []

    def step_with_signal(batch):
        steps.append(batch.size)
        stop.received = 15 if len(steps) == 4 else stop.received
        return step(batch)

    monkeypatch.setattr(trained, "step", step_with_signal)
    logger = RecordingLogger()
    with pytest.raises(Interrupted):
        run(trained, tmp_path, stop=stop, logger=logger)
    assert [epoch for epoch, _ in logger.epochs] == [1]
    progress = torch.load(tmp_path / "last.pt", weights_only=True)["progress"]
    assert (progress["epoch"], progress["current"]["steps"]) == (1, 0)


def test_final_metrics_include_the_test_set_at_the_best_epochs_weights(tmp_path):
    trained, data = trainer(), splits(val=batches(20, 1), test=batches(30, 2))
    progress = run(trained, tmp_path, data=data, epochs=2)
    progress.best = {"epoch": 1, "val/loss": 1.0}
    state = {"model": network().state_dict()}
    final, best, confusions = final_metrics(trained, data, progress, batch_size=8, load_best=lambda: state)
    assert [sum(confusion.values()) for confusion in confusions.values()] == [30, 30]
    _, _, classes = trainer().classify(data.test, 8)
    assert confusions["best"] == Counter(zip(data.test.labels.tolist(), classes.tolist(), strict=True))
    assert confusions["final"] != confusions["best"]
    assert best["test/loss"] == trainer().evaluate({"test": data.test}, 8)["test/loss"]
    assert final["test/loss"] != best["test/loss"]
    assert {"train/loss", "train_eval/accuracy", "val/loss", "test/accuracy"} <= set(final)


class NanInEvaluation(nn.CrossEntropyLoss):
    """A loss that is nan in evaluation from its call number ``first`` on."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first, self.calls = first, 0

    def forward(self, logits, labels):
        self.calls += not torch.is_grad_enabled()
        is_nan = not torch.is_grad_enabled() and self.calls >= self.first
        return super().forward(logits, labels) * (math.nan if is_nan else 1)


def test_a_validation_loss_that_is_not_finite_ends_the_run(tmp_path):
    logger = RecordingLogger()
    loss = NanInEvaluation(first=4)  # the validation set is evaluated in three batches
    with pytest.raises(Diverged, match=r"the loss became nan in the val images after epoch 2"):
        run(trainer(loss=loss), tmp_path, logger=logger)
    assert [epoch for epoch, _ in logger.epochs] == [1, 2]
    assert torch.load(tmp_path / "last.pt", weights_only=True)["progress"]["epoch"] == 1


def test_a_final_loss_that_is_not_finite_ends_the_run(tmp_path):
    loss = NanInEvaluation(first=4)
    trained, data = trainer(loss=loss), splits(val=batches(20, 1))
    progress = run(trained, tmp_path, data=data, epochs=1)
    with pytest.raises(Diverged, match=r"the loss became nan in the final evaluation \(train_eval\)"):
        final_metrics(trained, data, progress, batch_size=8, load_best=dict)


@pytest.mark.parametrize("monitor", ["val/loss", "val/accuracy"])
def test_nan_is_never_the_best(monitor):
    progress = Progress(monitor, epoch=1)
    assert not progress.record({monitor: math.nan})
    assert progress.best is None
    progress.epoch = 2
    assert progress.record({monitor: 0.5})
    assert progress.best["epoch"] == 2
