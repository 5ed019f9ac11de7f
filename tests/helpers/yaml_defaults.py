"""The keys of conf/model/*.yaml read without Hydra, networks built from them, and one training step."""

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
DATA_ARGUMENTS = ("in_channels", "image_size", "num_classes")
# Channels and side of the images that each network is meant for. DenseNet's are 96 in its experiment: slower.
SHAPES = {
    "mlp": (1, 8),
    "conv": (1, 28),
    "lenet": (1, 28),
    "resnet": (3, 32),
    "densenet": (1, 32),
    "torchvision": (1, 64),
}


def defaults(name: str) -> dict[str, Any]:
    """The keys of one YAML file, and those that it inherits."""
    keys = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    inherited: dict[str, Any] = {}
    for parent in keys.pop("defaults", []):
        inherited |= defaults(parent)
    return inherited | keys


def target(name: str) -> Any:
    """The class or function that a YAML file names in ``_target_``."""
    module, _, attribute = defaults(name)["_target_"].rpartition(".")
    assert module == "bnexp.models"
    return getattr(bnexp.models, attribute)


def build(name: str, *, seed: int = 0, shape: tuple[int, int] | None = None, classes: int = 10, **changes):
    """The network of a YAML file with ``changes``. Its keys are checked against the constructor."""
    keys = defaults(name) | changes
    keys.pop("_target_")
    constructor = target(name)
    arguments = check_arguments(constructor, keys, "model", caller_arguments=DATA_ARGUMENTS)
    channels, size = shape or SHAPES[name.removesuffix("_bn")]
    return build_seeded(lambda: constructor(channels, size, classes, **arguments), seed)


def images_for(name, count=3):
    """Random images (count, C, S, S) of the shape that the network is meant for."""
    channels, size = SHAPES[name.removesuffix("_bn")]
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))


def train_step(model, images):
    """Forward and backward. Asserts finite logits (N, 10) and a finite gradient on every parameter."""
    logits = model.train()(images)
    assert logits.shape == (len(images), 10)
    assert logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.arange(len(images))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
