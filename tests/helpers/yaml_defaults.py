"""The keys of conf/model/*.yaml without Hydra, networks built from them, and a step to try those."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

import bnexp.models
from bnexp.config.validation import check_arguments
from bnexp.models.initialization import build_seeded

CONF = Path(__file__).parents[2] / "conf" / "model"
GIVEN = ("in_channels", "image_size", "num_classes")
# The data that each is meant for: channels and side; LeNet at Fashion-MNIST's, DenseNet smaller than its 96.
SHAPES = {
    "mlp": (1, 8),
    "conv": (1, 28),
    "lenet": (1, 28),
    "resnet": (3, 32),
    "densenet": (1, 32),
    "torchvision": (1, 64),
}


def defaults(name: str) -> dict[str, Any]:
    """The keys of one YAML, those it inherits below its own."""
    keys = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    merged: dict[str, Any] = {}
    for parent in keys.pop("defaults", []):
        merged |= defaults(parent)
    return merged | keys


def target(name: str) -> Any:
    module, _, attribute = defaults(name)["_target_"].rpartition(".")
    assert module == "bnexp.models"
    return getattr(bnexp.models, attribute)


def build(name: str, *, seed: int = 0, shape: tuple[int, int] | None = None, classes: int = 10, **changes):
    """The network of a YAML, its keys checked against the constructor, started from ``seed``."""
    keys = defaults(name) | changes
    keys.pop("_target_")
    make = target(name)
    checked = check_arguments(make, keys, "model", given=GIVEN)
    channels, size = shape or SHAPES[name.removesuffix("_bn")]
    return build_seeded(lambda: make(channels, size, classes, **checked), seed)


def images_for(name, count=3):
    """Random ones of the shape that the family is meant for."""
    channels, size = SHAPES[name.removesuffix("_bn")]
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))


def train_step(model, images):
    """Forward and backward: finite logits (N, 10), and a finite gradient on every parameter."""
    logits = model.train()(images)
    assert logits.shape == (len(images), 10)
    assert logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.arange(len(images))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
