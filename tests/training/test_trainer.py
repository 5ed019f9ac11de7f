"""The step and the loop, held against the same thing written out plainly."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from bnexp.compute.device import ComputeDevice
from bnexp.data import Batches, Images
from bnexp.errors import Diverged, Interrupted
from bnexp.runs.loggers import Logger
from bnexp.signals import StopSignal
from bnexp.training.checkpoint import Checkpoints
from bnexp.training.loop import final_metrics, fit
from bnexp.training.progress import Progress
from bnexp.training.schedule import Schedule
from bnexp.training.trainer import Trainer

CPU = ComputeDevice(torch.device("cpu"), torch.float32)


def batches(n=50, seed=0) -> Batches:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 1, 6, 6), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 3, (n,), generator=generator)
    return Batches(Images(pixels, labels), CPU.device, mean=(0.5,), std=(0.5,), resize=None)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def trainer(**keys) -> Trainer:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=keys.pop("lr", 0.1), momentum=0.9)
    return Trainer(model, keys.pop("loss", nn.CrossEntropyLoss()), optimizer, CPU, **keys)


class Listener(Logger):
    def __init__(self):
        self.losses, self.first_steps, self.epochs = [], [], []

    def steps(self, first_step, losses):
        self.first_steps.append(first_step)
        self.losses += losses

    def epoch(self, values, epoch, model):
        self.epochs.append((epoch, values))


def run(
    trained: Trainer,
    folder,
    *,
    epochs=3,
    watched=None,
    listener=None,
    patience=None,
    monitor="val/loss",
    **keys,
):
    progress = Progress(monitor)
    watched = {"val": batches(20, 1)} if watched is None else watched
    metrics = fit(
        trained, batches(), watched, epochs=epochs, batch_size=16,
        eval_batch_size=7, seed=0, patience=patience, window=keys.pop("window", 2), progress=progress,
        checkpoints=Checkpoints(folder, every=1, keep=keys.pop("keep", 0)), recorder=listener or Listener(),
        stop=keys.pop("stop", StopSignal()),
    )  # fmt: skip
    return metrics, progress


@pytest.mark.parametrize(("l1", "clip"), [(0.0, None), (0.01, None), (0.0, 0.05), (0.01, 0.05)])
def test_an_epoch_equals_the_loop_written_out(tmp_path, l1, clip):
    plain = network()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    total, correct, losses = 0.0, 0, []
    for images, labels in batches().epoch(16, 0, 1):
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

    trained, listener = trainer(l1=l1, grad_clip=clip), Listener()
    metrics, _ = run(trained, tmp_path, epochs=1, listener=listener)

    for ours, theirs in zip(trained.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    assert listener.losses == pytest.approx(losses, rel=1e-6)
    assert listener.first_steps == [1, 3]
    assert metrics["train/loss"] == pytest.approx(total / 50, rel=1e-6)
    assert metrics["train/accuracy"] == correct / 50


def test_evaluation_weighs_images_not_batches_and_moves_nothing():
    trained, split = trainer(), batches(20, 1)
    before = copy.deepcopy(trained.model.state_dict())
    found = {size: trained.evaluate(split, size) for size in (1, 7, 20)}
    trained.model.eval()
    images, labels = next(split.in_order(20))
    logits = trained.model(images)
    expected = nn.functional.cross_entropy(logits, labels).item()
    for metrics in found.values():
        assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
        assert metrics["accuracy"] == int((logits.argmax(1) == labels).sum()) / 20
    assert all(torch.equal(before[key], value) for key, value in trained.model.state_dict().items())


@pytest.mark.parametrize(
    ("interval", "expected"), [("epoch", [0.1, 0.05, 0.025]), ("step", [0.1 / 2**3, 0.1 / 2**7, 0.1 / 2**11])]
)
def test_schedulers_move_after_the_epoch_or_after_the_step(tmp_path, interval, expected):
    trained, listener = trainer(), Listener()
    scheduler = torch.optim.lr_scheduler.ExponentialLR(trained.optimizer, 0.5)
    trained.schedule = Schedule(scheduler, interval)
    rates = []
    step = trained.step
    trained.step = lambda *batch: (rates.append(trained.lr), step(*batch))[1]
    run(trained, tmp_path, listener=listener)
    assert rates[3::4] == pytest.approx(expected)  # the rate of the last step of each epoch of four


def test_plateau_looks_at_what_it_monitors(tmp_path):
    trained, listener = trainer(lr=0.0), Listener()  # nothing improves with a learning rate of zero
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(trained.optimizer, patience=0, factor=0.5)
    for group in trained.optimizer.param_groups:
        group["lr"] = 1e-12
    plateau.eps = 0
    trained.schedule = Schedule(plateau, monitor="train/accuracy")
    plateau.mode = "max"
    run(trained, tmp_path, listener=listener)
    assert trained.lr < 1e-12


def test_best_and_early_stopping_follow_val(tmp_path):
    trained = trainer(lr=1e-9)
    trained.model[2].momentum = 0.0  # val loss stays within rounding
    _, progress = run(trained, tmp_path, epochs=50, patience=3, monitor="val/accuracy")
    assert progress.best is not None
    assert progress.epoch == progress.best["epoch"] + 3 < 50


def test_the_test_set_never_chooses(tmp_path):
    _, progress = run(trainer(), tmp_path, watched={"test": batches(20, 1)})
    assert progress.best is None
    assert not (tmp_path / "best.pt").exists()
    assert (tmp_path / "last.pt").exists()


def test_checkpoints_hold_the_best_and_the_last(tmp_path):
    trained = trainer()
    _, progress = run(trained, tmp_path, epochs=6, keep=2)
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert last["progress"]["epoch"] == 6
    assert best["progress"]["epoch"] == progress.best["epoch"]
    assert sorted(path.name for path in tmp_path.glob("epoch-*")) == ["epoch-5.pt", "epoch-6.pt"]
    for name, value in trained.model.state_dict().items():
        assert torch.equal(last["model"][name], value)
    assert not list(tmp_path.glob(".*"))


def test_a_loss_that_is_not_finite_ends_the_run_with_epoch_and_step(tmp_path):
    class Breaks(nn.CrossEntropyLoss):
        calls = 0

        def forward(self, logits, labels):
            self.calls += 1
            return super().forward(logits, labels) * (math.nan if self.calls == 6 else 1)

    with pytest.raises(Diverged, match=r"the loss became nan in epoch 2, step 6"):
        run(trainer(loss=Breaks()), tmp_path, watched={})


def test_a_signal_ends_the_run_after_the_step(tmp_path):
    stop, trained = StopSignal(), trainer()
    step, count = trained.step, []

    def interrupted(*batch):
        count.append(1)
        stop.received = 15 if len(count) == 6 else None
        return step(*batch)

    trained.step = interrupted
    with pytest.raises(Interrupted):
        run(trained, tmp_path, stop=stop, window=100)
    assert len(count) == 6
    assert torch.load(tmp_path / "last.pt", weights_only=True)["progress"]["epoch"] == 1


def test_conclusion_tests_the_best_epochs_weights_too(tmp_path):
    trained, test = trainer(), batches(30, 2)
    metrics, progress = run(trained, tmp_path, epochs=2)
    progress.best = {"epoch": 1, "val/loss": 1.0}
    other = {"model": network().state_dict()}
    final, best = final_metrics(
        trained, batches(), test, metrics, batch_size=8, progress=progress, best_weights=lambda: other
    )
    fresh = trainer()
    assert best["test/loss"] == fresh.evaluate(test, 8)["loss"]
    assert final["test/loss"] != best["test/loss"]
    assert {"train/loss", "train_eval/accuracy", "val/loss", "test/accuracy"} <= set(final)


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_lower_precision_trains_near_full_precision(tmp_path, dtype):
    lower = trainer()
    lower.place = ComputeDevice(torch.device("cpu"), dtype)
    full, low = Listener(), Listener()
    run(trainer(), tmp_path, listener=full)
    run(lower, tmp_path, listener=low)
    assert low.losses != full.losses
    assert low.losses == pytest.approx(full.losses, abs=0.05)
    assert all(p.dtype is torch.float32 for p in lower.model.parameters())


def test_the_gradient_scaler_unscales_before_clipping(tmp_path):
    """fp16 itself needs a GPU; its scaler does not, and must change nothing in float32."""
    scaled, plain = trainer(grad_clip=0.05), trainer(grad_clip=0.05)
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    run(scaled, tmp_path)
    run(plain, tmp_path)
    for ours, theirs in zip(scaled.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_compiled_network_trains_the_same_weights(tmp_path):
    plain, base = trainer(), trainer()
    forward = torch.compile(base.model, backend="eager")  # has a length, and is not a Network: two traps
    compiled = Trainer(base.model, base.loss, base.optimizer, CPU, forward=forward)
    run(plain, tmp_path)
    run(compiled, tmp_path)
    assert list(compiled.state(Progress())["model"]) == list(plain.model.state_dict())
    for ours, theirs in zip(compiled.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
