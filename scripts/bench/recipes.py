"""What is trained in a measurement, and the ways to train and evaluate it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra import compose, initialize_config_module
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from bnexp.cli import composed_config
from bnexp.compute import device, process_tuning
from bnexp.config import schema
from bnexp.signals import StopSignal
from bnexp.training import build
from bnexp.training.checkpoint import Checkpoints
from bnexp.training.loop import fit
from bnexp.training.progress import Progress
from bnexp.training.trainer import Trainer


@dataclass(frozen=True)
class Recipe:
    """``images`` are those of one repeat, ``tutorial`` those of the slower way, ``epoch`` a whole one's."""

    words: tuple[str, ...]
    images: int
    tutorial: int
    epoch: int = 60_000
    torchvision: str = "MNIST"


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


def parse(words: list[str]) -> schema.Config:
    with initialize_config_module("bnexp.conf", version_base="1.3"):
        return schema.parse(
            composed_config.resolve_config(compose("config", overrides=[*words, "name=benchmark"]))
        )


def recipe_keys(name: str, scale: float, *words: str) -> schema.Config:
    recipe = RECIPES[name]
    count = scaled(recipe.images, scale)
    few = [] if count >= recipe.epoch else [f"dataset.train_size={count}"]
    return parse([*recipe.words, *few, *words])


def scaled(images: int, scale: float) -> int:
    """A share of so many images, in whole batches of 64."""
    return images if scale >= 1 else max(1, round(images * scale / 64)) * 64


def prepare(keys: schema.Config) -> tuple[Trainer, build.DataSplits]:
    """A fresh network on its images, with the threads that a run takes."""
    place = device.prepare(keys.device)
    images = build.load_splits(keys, place)
    network = build.model(keys, images)
    flops = build.summary(network, keys, images).flops
    process_tuning.set_threads(keys.device.threads, flops * keys.batch_size)
    return build.trainer(keys, network, place, images), images


@dataclass(frozen=True)
class Epoch:
    """Seconds of one epoch: in its steps, and in what comes once (checkpoint, metrics, events)."""

    images: int
    steps_s: float
    once_s: float

    def rate(self, images: int) -> float:
        """Images/s over an epoch of so many."""
        return images / (self.steps_s * images / self.images + self.once_s)


def whole_loop(keys: schema.Config, folder: Path) -> Epoch:
    """One epoch as ``bnexp`` trains it: steps.csv, metrics.csv, events and checkpoint included."""
    trainer, images = prepare(keys)
    progress = Progress()
    tracker = build.tracker(keys, folder, images.train.steps(keys.batch_size), progress)
    synchronize(trainer)
    started = time.perf_counter()
    with StopSignal() as stop:
        fit(
            trainer, images.train, {}, epochs=1, batch_size=keys.batch_size,
            eval_batch_size=keys.eval_batch_size, seed=0, patience=None, window=keys.tracking.every,
            progress=progress, checkpoints=Checkpoints(folder / "checkpoints", every=1, keep=0),
            recorder=tracker, stop=stop,
        )  # fmt: skip
    elapsed = time.perf_counter() - started
    tracker.close()
    return Epoch(len(images.train), progress.train_s, elapsed - progress.train_s)


def bare_step(keys: schema.Config) -> float:
    """Images/s of the same step on one fixed batch with nothing around it: the ceiling."""
    trainer, images = prepare(keys)
    pixels, labels = next(images.train.epoch(keys.batch_size, 0, 1))
    network, loss, optimizer = trainer.model.train(), trainer.loss, trainer.optimizer
    assert trainer.forward is not None
    steps = images.train.steps(keys.batch_size)
    synchronize(trainer)
    started = time.perf_counter()
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        with trainer.place.autocast():
            value = loss(network(pixels), labels)
        value.backward()
        optimizer.step()
    synchronize(trainer)
    return steps * len(labels) / (time.perf_counter() - started)


def tutorial(name: str, keys: schema.Config, scale: float) -> float:
    """Images/s of the tutorials' loop: a transform an image, a DataLoader, ``loss.item()`` each step."""
    recipe = RECIPES[name]
    trainer, _ = prepare(keys)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    kind = getattr(datasets, recipe.torchvision)
    data = Subset(kind(data_folder(), train=True, transform=transform), range(scaled(recipe.tutorial, scale)))
    loader = DataLoader(data, batch_size=keys.batch_size, shuffle=True)
    network, loss, optimizer = trainer.model.train(), nn.CrossEntropyLoss(), trainer.optimizer
    total, correct = 0.0, 0
    started = time.perf_counter()
    for pixels, labels in loader:
        pixels, labels = pixels.to(trainer.place.device), labels.to(trainer.place.device)
        logits = network(pixels)
        value = loss(logits, labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        total += value.item()
        correct += (logits.argmax(1) == labels).sum().item()
    return len(data) / (time.perf_counter() - started)


def data_folder() -> str:
    return os.environ["BNEXP_DATA_DIR"]


def synchronize(trainer: Trainer) -> None:
    if trainer.place.device.type == "cuda":
        torch.cuda.synchronize()
