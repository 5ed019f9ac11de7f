"""Fused seeds equal separate ones in float64: losses, weights, optimizer state, statistics, evaluation."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bnexp.data import DataSplits
from bnexp.models.initialization import build_seeded
from bnexp.training.fused.layers import FusedBatchNorm2d, FusedConv2d, FusedLinear, fuse
from bnexp.training.fused.trainer import FusedMeter, FusedTrainer, memory_format
from bnexp.training.losses import OneHotMSE
from bnexp.training.metrics import Meter
from bnexp.training.progress import Progress
from bnexp.training.schedule import Schedule
from bnexp.training.schedulers import InverseSqrtLR
from bnexp.training.trainer import Trainer
from helpers.fused_training import BATCH_SIZE, LATER_NETWORKS, NETWORKS, SEEDS, data, fused_data, trainers

STEPS = 20  # 5 an epoch
NORMS = ("none", "batch", "batch_manual", "layer", "group", "instance")
# Adam divides a gradient by its size, and a bias before a norm has a gradient of 1e-17, which is rounding
# alone. A larger eps than torch's 1e-8 keeps it small.
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, weight_decay=1e-3),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "nesterov": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, eps=1e-4, weight_decay=1e-3),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, eps=1e-4, fused=True),
}
VECTOR_NETWORKS = ("mlp", "lenet")  # instance norm needs maps
CASES = [
    (network, norm)
    for network in NETWORKS
    for norm in NORMS
    if not (norm == "instance" and network in VECTOR_NETWORKS)
]


def train_fused(trainer: FusedTrainer, splits: list[DataSplits], steps: int) -> list[list[float]]:
    """The losses of each replica."""
    batches, meter = fused_data(splits, trainer).train, FusedMeter(steps)
    for epoch in range(1, 1 + steps * BATCH_SIZE // len(batches)):
        trainer.model.train()
        for batch in batches.epoch(BATCH_SIZE, epoch):
            meter.add(trainer.step(batch))
            trainer.schedule.after_step()
        trainer.schedule.after_epoch({})
    return [window.losses for window in meter.read_all()]


def train_alone(trainer: Trainer, splits: DataSplits, seed: int, steps: int) -> list[float]:
    meter = Meter(steps)
    for epoch in range(1, 1 + steps * BATCH_SIZE // len(splits.train)):
        trainer.model.train()
        for batch in splits.train.epoch(BATCH_SIZE, seed, epoch):
            meter.add(trainer.step(batch))
            trainer.schedule.after_step()
        trainer.schedule.after_epoch({})
    return meter.read().losses


def assert_close(value, expected) -> None:
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


def assert_trains_alike(
    fused: FusedTrainer, separate: list[Trainer], splits=None, steps: int = STEPS
) -> None:
    splits = splits or data()
    losses = train_fused(fused, splits, steps)
    states = fused.states([Progress() for _ in SEEDS])
    evaluations = fused.evaluate_all(fused_data(splits, fused).watched, 27)
    tests = fused.classify_all(fused_data(splits, fused).test, 27)
    for replica, (trainer, part, seed) in enumerate(zip(separate, splits, SEEDS, strict=True)):
        assert losses[replica] == pytest.approx(train_alone(trainer, part, seed, steps), rel=1e-9, abs=1e-9)
        expected = trainer.state(Progress())
        assert list(states[replica]["model"]) == list(expected["model"])
        for name, value in expected["model"].items():
            assert_close(states[replica]["model"][name], value)
        assert states[replica]["optimizer"]["state"].keys() == expected["optimizer"]["state"].keys()
        for number, buffers in expected["optimizer"]["state"].items():
            for name, value in buffers.items():
                assert_close(states[replica]["optimizer"]["state"][number][name], value)
        assert states[replica]["scheduler"] == expected["scheduler"]
        assert evaluations[replica] == pytest.approx(trainer.evaluate(part.watched, 27), rel=1e-6)
        loss, accuracy, classes = trainer.classify(part.test, 27)
        assert tests[replica].loss == pytest.approx(loss, rel=1e-6)  # a loss is stored in float32
        assert tests[replica].accuracy == accuracy
        assert torch.equal(tests[replica].classes, classes)


@pytest.mark.parametrize(("network", "norm"), CASES)
def test_every_network_and_norm(network, norm):
    """An optimizer sees parameters alone, whatever their layer: one that has a state is enough here."""
    fused, separate = trainers(lambda: NETWORKS[network](norm), OPTIMIZERS["momentum"])
    assert_trains_alike(fused, separate)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_and_optimizer(network, optimizer):
    fused, separate = trainers(lambda: NETWORKS[network]("batch"), OPTIMIZERS[optimizer])
    assert_trains_alike(fused, separate)


@pytest.mark.parametrize("network", LATER_NETWORKS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_later_choices_of_the_networks(network, optimizer):
    fused, separate = trainers(LATER_NETWORKS[network], OPTIMIZERS[optimizer])
    assert_trains_alike(fused, separate)


@pytest.mark.parametrize(
    "keys",
    [{"l1": 0.01}, {"grad_clip": 0.05}, {"l1": 0.01, "grad_clip": 0.5}],
    ids=lambda keys: "-".join(keys),
)
@pytest.mark.parametrize("network", ["mlp", "basic"])
def test_penalty_and_clipping_are_each_replicas_own(network, keys):
    fused, separate = trainers(lambda: NETWORKS[network]("batch"), OPTIMIZERS["momentum"], **keys)
    assert_trains_alike(fused, separate)


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5),
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS),
        lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
        lambda optimizer: torch.optim.lr_scheduler.PolynomialLR(optimizer, STEPS, 2.0),
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, STEPS),  # moves momentum too
        lambda optimizer: InverseSqrtLR(optimizer, 0.5),
    ],
    ids=["step", "cosine", "exponential", "polynomial", "onecycle", "inverse_sqrt"],
)
def test_every_scheduler_without_a_metric(make, interval):
    fused, separate = trainers(
        lambda: NETWORKS["mlp"]("batch"), OPTIMIZERS["momentum"],
        make_schedule=lambda optimizer: Schedule(make(optimizer), interval),
    )  # fmt: skip
    assert_trains_alike(fused, separate)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1),
        nn.CrossEntropyLoss(ignore_index=1),
        nn.MultiMarginLoss(p=2, weight=torch.tensor([1.0, 2.0, 0.5])),
        OneHotMSE(),
    ],
    ids=["smoothing", "weights", "ignored", "hinge", "mse"],
)
def test_every_loss(loss):
    fused, separate = trainers(lambda: NETWORKS["conv"]("batch"), OPTIMIZERS["sgd"], loss=loss)
    assert_trains_alike(fused, separate)


def test_each_replica_has_its_own_augmentation():
    fused, separate = trainers(lambda: NETWORKS["conv"]("batch"), OPTIMIZERS["sgd"])
    assert_trains_alike(fused, separate, data(augment=("flip", "crop")))


@pytest.mark.parametrize("optimizer", ["nesterov", "adamw"])
def test_states_of_separate_runs_go_on_together_and_back(optimizer):
    fused, separate = trainers(lambda: NETWORKS["basic"]("batch"), OPTIMIZERS[optimizer])
    splits = data()
    for trainer, part, seed in zip(separate, splits, SEEDS, strict=True):
        train_alone(trainer, part, seed, 10)
    states = copy.deepcopy([trainer.state(Progress()) for trainer in separate])
    fused.restore_all(copy.deepcopy(states))
    for state, expected in zip(fused.states([Progress() for _ in SEEDS]), states, strict=True):
        torch.testing.assert_close(state["model"], expected["model"], rtol=0, atol=0)
        torch.testing.assert_close(
            state["optimizer"]["state"], expected["optimizer"]["state"], rtol=0, atol=0
        )
    assert_trains_alike(fused, separate, splits, steps=10)


def test_a_replica_that_diverges_changes_no_bit_of_the_others():
    def losses(scale: float) -> list[list[float]]:
        fused, _ = trainers(lambda: NETWORKS["basic"]("batch"), OPTIMIZERS["momentum"], grad_clip=1.0)
        with torch.no_grad():
            fused.model.stem.conv.weight[:4].mul_(scale)  # the first replica's
        return train_fused(fused, data(), STEPS)

    healthy, diverging = losses(1.0), losses(float("nan"))
    assert all(loss != loss for loss in diverging[0])
    assert diverging[1:] == healthy[1:]


@pytest.mark.parametrize("replicas", [1, 2, 8])
@pytest.mark.parametrize(("channels", "outputs"), [(2, 4), (4, 8), (8, 16), (16, 32), (3, 5)])
def test_narrow_1x1_convolutions_with_stride_2_have_right_gradients_in_channels_last(
    channels, outputs, replicas
):
    """A resnet's shortcuts are such layers. On some processors oneDNN computes wrong gradients for them."""
    torch.manual_seed(0)
    original = FusedConv2d(nn.Conv2d(channels, outputs, 1, 2), replicas)
    images = torch.randn(8, replicas * channels, 14, 14)
    gradient = torch.randn(8, replicas * outputs, 7, 7)

    def gradients(dtype: torch.dtype, memory_format: torch.memory_format) -> list[torch.Tensor]:
        layer = copy.deepcopy(original).to(dtype).to(memory_format=memory_format)
        maps = images.to(dtype).contiguous(memory_format=memory_format).requires_grad_()
        layer(maps).backward(gradient.to(dtype).contiguous(memory_format=memory_format))
        return [maps.grad.double(), layer.weight.grad.double(), layer.bias.grad.double()]

    expected = gradients(torch.float64, torch.contiguous_format)
    for value, reference in zip(gradients(torch.float32, torch.channels_last), expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("network", [name for name in NETWORKS if name not in ("mlp", "lenet")])
def test_whole_networks_have_right_gradients_in_channels_last(network, norm):
    """In float32, where oneDNN computes, every gradient is that of the separate network in float64."""
    torch.manual_seed(0)
    networks = [build_seeded(lambda: NETWORKS[network](norm), seed) for seed in SEEDS]
    images, labels = torch.randn(8, 3, 16, 16), torch.arange(8) % 3  # one channel for each replica
    fused = fuse(networks)
    fused.to(memory_format=memory_format(fused))
    logits = fused(images.contiguous(memory_format=memory_format(fused))).unflatten(1, (3, -1))
    sum(nn.functional.cross_entropy(logits[:, r], labels) for r in range(3)).backward()
    for replica, single in enumerate(networks):
        single.double()
        nn.functional.cross_entropy(single(images[:, replica : replica + 1].double()), labels).backward()
        # A bias before a batch norm has the gradient zero: its rounding is that of the whole network.
        scale = float(torch.stack([parameter.grad.norm() for parameter in single.parameters()]).norm())
        joined = dict(fused.named_parameters())
        for name, parameter in single.named_parameters():
            difference = joined[name].grad.chunk(3)[replica].double() - parameter.grad
            assert float(difference.norm()) <= 1e-4 * float(parameter.grad.norm()) + 1e-5 * scale, name


def test_the_gradients_of_a_fused_linear_layer_have_the_layout_of_what_they_belong_to():
    layer = FusedLinear(nn.Linear(5, 4), 3)
    nn.init.normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    vectors = torch.randn(8, 15, requires_grad=True)
    outputs = layer(vectors)
    expected = [
        part @ weight.T for part, weight in zip(vectors.chunk(3, 1), layer.weight.chunk(3), strict=True)
    ]
    torch.testing.assert_close(outputs, torch.cat(expected, 1))
    gradient = torch.randn(outputs.shape)
    values = torch.autograd.grad(outputs, (vectors, layer.weight), gradient)
    references = torch.autograd.grad(torch.cat(expected, 1), (vectors, layer.weight), gradient)
    for value, reference in zip(values, references, strict=True):
        torch.testing.assert_close(value, reference)
        assert value.is_contiguous()


def test_batch_norm_in_channels_last_is_as_accurate_as_in_contiguous_memory():
    """torch's own is off by 1e-3 where the mean is large beside the spread."""
    torch.manual_seed(0)
    maps = (1 + 0.1 * torch.randn(64, 6, 28, 28)).contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(maps.shape)
    layer, reference = FusedBatchNorm2d(nn.BatchNorm2d(3), 2), nn.BatchNorm2d(6).double()

    def forward_and_backward(norm: nn.Module, dtype: torch.dtype) -> list[torch.Tensor]:
        inputs = maps.to(dtype).detach().requires_grad_()
        output = norm(inputs)
        output.backward(gradient.to(dtype))
        return [output.detach(), inputs.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()]

    values = forward_and_backward(layer, torch.float32)
    for value, expected in zip(values, forward_and_backward(reference, torch.float64), strict=True):
        assert float((value - expected).double().norm()) <= 2e-5 * float(expected.double().norm())
