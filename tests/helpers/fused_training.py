"""Small networks of each family with three seeds, trained together and alone, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from bnexp.compute.device import ComputeDevice
from bnexp.data import DataSplits, Images, Split
from bnexp.data.fused_batches import FusedData
from bnexp.models import MLP, ConvNet, DenseNet, LeNet, ResNet
from bnexp.models.initialization import build_seeded
from bnexp.training.fused.layers import fuse
from bnexp.training.fused.trainer import FusedTrainer, memory_format
from bnexp.training.schedule import Schedule
from bnexp.training.trainer import Trainer

CPU = ComputeDevice(torch.device("cpu"), torch.float32)
SEEDS = (3, 5, 11)
BATCH_SIZE = 8
IMAGES = {"in_channels": 1, "image_size": 16, "num_classes": 3}
COMMON = {"norm_groups": 2, "activation": "relu", "init": "default"}
RESNET = {
    "depths": (1, 1),
    "widths": (4, 4),
    "stem": "small",
    "stem_norm": True,
    "stem_padding": True,
    "shortcut_norm": True,
    "bias": True,
}
NETWORKS: dict[str, Callable[[str], nn.Module]] = {
    "mlp": lambda norm: MLP(**IMAGES, **COMMON, norm=norm, hidden=(8, 8), dropout=0.0),
    "conv": lambda norm: ConvNet(
        **IMAGES, **COMMON, norm=norm, widths=(2, 4), kernel_size=3, padding=(1, 0), pool="max", dropout=0.0
    ),
    "lenet": lambda norm: LeNet(
        **IMAGES, **COMMON, norm=norm, widths=(2, 4), hidden=(8, 8), pool="avg", dropout=0.0
    ),
    "basic": lambda norm: ResNet(**IMAGES, **COMMON, **RESNET, norm=norm, block="basic"),
    "bottleneck": lambda norm: ResNet(**IMAGES, **COMMON, **RESNET, norm=norm, block="bottleneck"),
    "preact": lambda norm: ResNet(**IMAGES, **COMMON, **RESNET, norm=norm, block="preact"),
    "densenet": lambda norm: DenseNet(
        **IMAGES, **COMMON, norm=norm, blocks=(2, 1), growth=2, stem_width=4, stem="large", stem_norm=True,
        stem_padding=True, bias=True,
    ),
}  # fmt: skip

# The keys that came later, in networks that are trained together too.
LATER_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "after": lambda: _mlp(norm="batch", norm_position="after"),
    "ghost": lambda: _mlp(norm="batch", norm_images=3),  # groups of 3, 3 and 2 images
    "ghost_maps": lambda: _conv(norm="batch", norm_images=7),  # one image is left over
    "deep_conv": lambda: _conv(norm="batch", depth=3, pool="none", norm_position="after"),
    "plain": lambda: _mlp(norm="batch", depth=2, residual="plain"),
    "skipinit": lambda: _mlp(norm="none", depth=2, residual="skipinit"),
    "fixup": lambda: _mlp(norm="none", depth=2, residual="fixup"),
    "linear": lambda: _mlp(norm="batch", activation="linear", init="lecun"),
}


def _mlp(**keys) -> nn.Module:
    return MLP(**IMAGES, **(COMMON | {"hidden": (8, 8), "dropout": 0.0} | keys))


def _conv(**keys) -> nn.Module:
    sizes = {"widths": (2, 4), "kernel_size": 3, "padding": (1, 0), "pool": "max", "dropout": 0.0}
    return ConvNet(**IMAGES, **(COMMON | sizes | keys))


def data(*, augment: tuple[str, ...] = (), count: int = 40) -> list[DataSplits]:
    """The splits of each seed: each its own part of one store, each normalised by its own mean."""
    stream = torch.Generator().manual_seed(0)
    store = Images(
        torch.randint(0, 256, (count + 20, 1, 16, 16), dtype=torch.uint8, generator=stream),
        torch.randint(0, 3, (count + 20,), generator=stream),
    )
    splits = []
    for seed in SEEDS:
        order = torch.randperm(count + 20, generator=torch.Generator().manual_seed(seed))
        keys = {"mean": (0.5 + seed / 100,), "std": (0.3,)}
        train = Split(store, CPU.torch_device, index=order[:count].sort().values, augment=augment, **keys)
        val = Split(store, CPU.torch_device, index=order[count:].sort().values, **keys)
        test = Split(store, CPU.torch_device, mean=(0.5,), std=(0.3,))
        splits.append(DataSplits(train, val, test, ("a", "b", "c")))
    return splits


def in_float64(network: nn.Module) -> nn.Module:
    """The network in float64; it takes float32 images."""
    network = network.double()
    network.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    return network


def trainers(
    make_network: Callable[[], nn.Module],
    make_optimizer,
    *,
    loss: nn.Module | None = None,
    make_schedule=lambda optimizer: Schedule(),
    **keys,
) -> tuple[FusedTrainer, list[Trainer]]:
    """The fused trainer and the separate ones, from the same weights; ``keys`` are l1 and grad_clip."""
    networks = [build_seeded(make_network, seed).double() for seed in SEEDS]
    loss = (loss or nn.CrossEntropyLoss()).double()
    separate = []
    for single in networks:
        network = in_float64(copy.deepcopy(single))
        optimizer = make_optimizer(network.parameters())
        schedule = make_schedule(optimizer)
        separate.append(Trainer(network, loss, optimizer, CPU, schedule=schedule, **keys))
    model = fuse(networks)
    model = in_float64(model.to(memory_format=memory_format(model)))
    optimizer = make_optimizer(model.parameters())
    keys = {"l1": 0.0, "grad_clip": None} | keys
    fused = FusedTrainer(networks, model, loss, optimizer, CPU, schedule=make_schedule(optimizer), **keys)
    return fused, separate


def fused_data(splits: list[DataSplits], trainer: FusedTrainer) -> FusedData:
    return FusedData(splits, SEEDS, memory_format(trainer.model))
