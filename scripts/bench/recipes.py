"""The recipes that are measured, and three loops to train them: bnexp's, the bare step, the tutorials'."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from hydra import compose, initialize_config_module
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from bnexp.cli import composed_config
from bnexp.compute.device import prepare_device
from bnexp.compute.process_tuning import set_threads
from bnexp.config import schema
from bnexp.data import DataSplits
from bnexp.data.network_input import NetworkInput
from bnexp.signals import StopSignal
from bnexp.training import build
from bnexp.training.checkpoint import Checkpoints
from bnexp.training.loop import FitSettings, fit
from bnexp.training.progress import Progress
from bnexp.training.trainer import Trainer


@dataclass(frozen=True)
class Recipe:
    """A network on a data set, and how many images each measurement takes."""

    overrides: tuple[str, ...]
    images: int  # one repeat of bnexp's loop and of the bare step
    tutorial_images: int  # one repeat of the tutorials' loop, which is slower
    epoch_images: int = 60_000
    torchvision: str = "MNIST"  # the data set's class in torchvision


MLP, CONV = ("experiment=mnist_mlp",), ("experiment=mnist_conv",)
LENET = ("model=lenet_bn", "dataset=mnist", "dataset.val_size=0")
CIFAR = ("dataset=cifar10", "dataset.val_size=0")
RECIPES = {
    "mlp": Recipe((*MLP, "model.norm=none"), 60_000, 7_680),
    "mlp_bn": Recipe(MLP, 60_000, 7_680),
    "conv": Recipe((*CONV, "model.norm=none"), 16_000, 6_400),
    "conv_bn": Recipe(CONV, 16_000, 6_400),
    "lenet_bn": Recipe(LENET, 16_000, 6_400),
    "resnet": Recipe(("model=resnet", *CIFAR), 128, 128, 50_000, "CIFAR10"),
    "densenet": Recipe(("model=densenet", *CIFAR), 128, 128, 50_000, "CIFAR10"),
}


def parse_overrides(overrides: list[str]) -> schema.Config:
    with initialize_config_module("bnexp.conf", version_base="1.3"):
        composed = compose("config", overrides=[*overrides, "name=benchmark"])
        return schema.parse(composed_config.resolve_config(composed))


def recipe_config(name: str, scale: float, *overrides: str) -> schema.Config:
    recipe = RECIPES[name]
    count = scale_images(recipe.images, scale)
    train_size = [] if count >= recipe.epoch_images else [f"dataset.train_size={count}"]
    return parse_overrides([*recipe.overrides, *train_size, *overrides])


def scale_images(images: int, scale: float) -> int:
    """This share of the images, rounded to whole batches of 64."""
    return images if scale >= 1 else max(1, round(images * scale / 64)) * 64


def prepare_trainer(config: schema.Config) -> tuple[Trainer, DataSplits]:
    """A new network and its images, with the number of threads that a run would use."""
    compute_device = prepare_device(config.device)
    images = build.load_splits(config, compute_device)
    network = build.model(config, NetworkInput.of_splits(images))
    flops = build.summary(network, config, images).flops
    set_threads(config.device.threads, flops * config.batch_size)
    return build.trainer(config, network, compute_device, images), images


@dataclass(frozen=True)
class EpochTime:
    """Seconds of one epoch: of its steps, and of what happens once (checkpoint, metrics, events)."""

    images: int
    steps_s: float
    once_s: float

    def images_per_s(self, epoch_images: int) -> float:
        """Images/s over an epoch of this many images."""
        return epoch_images / (self.steps_s * epoch_images / self.images + self.once_s)


def time_whole_loop(config: schema.Config, folder: Path) -> EpochTime:
    """One epoch as ``bnexp`` trains it, with steps.csv, metrics.csv, events and checkpoint."""
    trainer, splits = prepare_trainer(config)
    progress = Progress()
    logger = build.logger(config, folder, splits.train.steps(config.batch_size), progress)
    settings = FitSettings(
        epochs=1, batch_size=config.batch_size, eval_batch_size=config.eval_batch_size, seed=0, patience=None,
        log_every=config.tracking.every,
    )  # fmt: skip
    checkpoints = Checkpoints(folder / "checkpoints", every=1, keep=0)
    trainer.device.synchronize()
    start = time.perf_counter()
    with StopSignal() as stop, patch.object(DataSplits, "watched", {}):  # without evaluation
        fit(trainer, splits, settings, progress, logger=logger, checkpoints=checkpoints, stop=stop)
    elapsed = time.perf_counter() - start
    logger.close()
    return EpochTime(len(splits.train), progress.train_s, elapsed - progress.train_s)


def time_bare_step(config: schema.Config) -> float:
    """Images/s of the same step on one fixed batch without a loop around it: the ceiling."""
    trainer, splits = prepare_trainer(config)
    pixels, labels = next(splits.train.epoch(config.batch_size, 0, 1)).tensors()
    network, loss_function, optimizer = trainer.model.train(), trainer.loss, trainer.optimizer
    steps = splits.train.steps(config.batch_size)
    trainer.device.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        with trainer.device.autocast():
            loss = loss_function(network(pixels), labels)
        loss.backward()
        optimizer.step()
    trainer.device.synchronize()
    return steps * len(labels) / (time.perf_counter() - start)


def time_tutorial_loop(name: str, config: schema.Config, scale: float) -> float:
    """Images/s of the tutorials' loop: a transform an image, a DataLoader, ``loss.item()`` at each step."""
    recipe = RECIPES[name]
    trainer, _ = prepare_trainer(config)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    dataset = getattr(datasets, recipe.torchvision)(
        os.environ["BNEXP_DATA_DIR"], train=True, transform=transform
    )
    subset = Subset(dataset, range(scale_images(recipe.tutorial_images, scale)))
    loader = DataLoader(subset, batch_size=config.batch_size, shuffle=True)
    network, loss_function, optimizer = trainer.model.train(), nn.CrossEntropyLoss(), trainer.optimizer
    total, correct = 0.0, 0
    start = time.perf_counter()
    for pixels, labels in loader:
        pixels, labels = pixels.to(trainer.device.torch_device), labels.to(trainer.device.torch_device)
        logits = network(pixels)
        loss = loss_function(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        correct += (logits.argmax(1) == labels).sum().item()
    return len(subset) / (time.perf_counter() - start)
