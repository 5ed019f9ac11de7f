"""One step, and the evaluation of a network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bnexp.compute.device import ComputeDevice
from bnexp.training.progress import Progress
from helpers.tiny_training import CPU, batches, network, trainer


def train_steps(trained, epochs: int = 3) -> list[float]:
    """The loss of every step of some epochs."""
    trained.model.train()
    train = batches()
    return [
        trained.step(batch).loss.item()
        for epoch in range(1, epochs + 1)
        for batch in train.epoch(16, 0, epoch)
    ]


def test_evaluation_weighs_images_not_batches_and_moves_nothing():
    trained, split = trainer(), batches(20, 1)
    state = copy.deepcopy(trained.model.state_dict())
    metrics_by_size = {size: trained.evaluate({"val": split}, size) for size in (1, 7, 20)}
    trained.model.eval()
    images, labels = next(split.in_order(20))
    logits = trained.model(images)
    expected = nn.functional.cross_entropy(logits, labels).item()
    for metrics in metrics_by_size.values():
        assert metrics["val/loss"] == pytest.approx(expected, rel=1e-5)
        assert metrics["val/accuracy"] == int((logits.argmax(1) == labels).sum()) / 20
    assert all(torch.equal(state[key], value) for key, value in trained.model.state_dict().items())


def test_a_step_gives_loss_logits_and_labels_of_its_batch():
    trained = trainer()
    model = copy.deepcopy(trained.model)
    batch = list(batches().epoch(16, 0, 1))[-1]
    images, labels = batch.tensors()
    output = trained.step(batch)
    torch.testing.assert_close(output.predictions, model(images))
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(model(images), labels))
    assert torch.equal(output.labels, labels)
    assert output.batch_size == len(labels) == 2
    assert not output.loss.requires_grad
    assert not output.predictions.requires_grad


def test_bf16_trains_near_fp32():
    losses = train_steps(trainer())
    bf16 = trainer(device=ComputeDevice(torch.device("cpu"), torch.bfloat16))
    bf16_losses = train_steps(bf16)
    assert bf16_losses != losses
    assert bf16_losses == pytest.approx(losses, abs=0.05)
    assert all(parameter.dtype is torch.float32 for parameter in bf16.model.parameters())


def test_the_gradient_scaler_unscales_before_clipping():
    """fp16 itself needs a GPU; its scaler does not, and must change nothing in float32."""
    scaled = trainer(grad_clip=0.05, scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    plain = trainer(grad_clip=0.05)
    train_steps(scaled)
    train_steps(plain)
    for parameter, expected in zip(scaled.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected)


def test_a_compiled_network_trains_the_same_weights():
    plain, model = trainer(), network()
    # A compiled module has a length, which makes it false while it is empty.
    compiled = trainer(model, compiled=torch.compile(model, backend="eager"), device=CPU)
    train_steps(plain)
    train_steps(compiled)
    assert list(compiled.state(Progress())["model"]) == list(plain.model.state_dict())
    for parameter, expected in zip(compiled.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected)


def test_an_optimizer_hook_registered_after_the_trainer_was_built_runs_at_every_step():
    trained, steps = trainer(), []
    trained.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    train_steps(trained, epochs=1)
    assert len(steps) == 4
