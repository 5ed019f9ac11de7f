"""Every YAML file composes and parses."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_module

from bnexp.cli import composed_config
from bnexp.cli.help import GROUPS, choices
from bnexp.config.schema import parse
from bnexp.errors import UserError

REQUIRED_KEYS = {"custom": "_target_=torch.nn.Flatten", "image_folder": "root=."}
CHOICES = [(group, name) for group in GROUPS for name in choices(group)]


def compose_values(*overrides):
    with initialize_config_module("bnexp.conf", version_base="1.3"):
        return composed_config.resolve_config(compose("config", overrides=["name=test", *overrides]))


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_parses(group, name):
    required = [f"{group}.{REQUIRED_KEYS[name]}"] if name in REQUIRED_KEYS else []
    config = parse(compose_values(f"{group}={name}", *required))
    assert config.epochs >= 1


def test_the_documented_choices_exist():
    documented_choices = {
        "model": "mlp mlp_bn conv conv_bn lenet lenet_bn resnet densenet torchvision",
        "dataset": "digits mnist fashion_mnist cifar10 image_folder",
        "optimizer": "sgd momentum adam nesterov adamw",
        "scheduler": "none step plateau cosine exponential polynomial onecycle inverse_sqrt",
        "loss": "cross_entropy mse hinge",
        "device": "auto cpu cuda mps",
        "experiment": "mnist_mlp mnist_conv mnist_mlp_deep cifar10_resnet96 fashion_lenet fashion_resnet"
        " fashion_densenet",
    }
    for group, names in documented_choices.items():
        assert set(names.split()) <= set(choices(group)), group


@pytest.mark.parametrize(
    ("plain", "with_norm"), [("mlp", "mlp_bn"), ("conv", "conv_bn"), ("lenet", "lenet_bn")]
)
def test_bn_models_are_the_plain_ones_with_a_norm_and_nothing_else(plain, with_norm):
    assert compose_values(f"model={with_norm}") == compose_values(f"model={plain}", "model.norm=batch")


RECIPES = {
    "mnist_mlp": (10, 64, "torch.optim.SGD", {"lr": 0.1, "momentum": 0, "weight_decay": 0}),
    "mnist_conv": (5, 64, "torch.optim.SGD", {"lr": 0.1, "momentum": 0}),
    "mnist_mlp_deep": (10, 200, "torch.optim.SGD", {"lr": 0.01}),
    "cifar10_resnet96": (20, 64, "torch.optim.SGD", {"lr": 0.01, "momentum": 0, "weight_decay": 0}),
    "fashion_lenet": (5, 256, "torch.optim.Adam", {"lr": 0.001}),
    "fashion_resnet": (5, 256, "torch.optim.Adam", {"lr": 0.001}),
    "fashion_densenet": (5, 256, "torch.optim.Adam", {"lr": 0.001}),
}


@pytest.mark.parametrize("name", RECIPES)
def test_presets_have_the_values_of_their_recipes(name):
    epochs, batch_size, optimizer, keys = RECIPES[name]
    config = parse(compose_values(f"experiment={name}"))
    assert (config.epochs, config.batch_size, config.optimizer.target) == (epochs, batch_size, optimizer)
    assert keys.items() <= dict(config.optimizer.keys).items()
    assert config.dataset.val_size == (10_000 if name == "mnist_mlp_deep" else 0)
    assert config.dataset.resize == (
        96 if name in ("cifar10_resnet96", "fashion_resnet", "fashion_densenet") else None
    )


def test_the_command_line_overrides_a_preset():
    config = parse(compose_values("experiment=mnist_mlp", "model.norm=none", "epochs=3"))
    assert config.model.keys["norm"] == "none"
    assert config.epochs == 3


@pytest.mark.parametrize("interpolation", ["${nowhere}", "${oc.env:BNEXP_NOT_SET}"])
def test_a_broken_interpolation_is_one_line(interpolation):
    with pytest.raises(UserError, match=r"dataset\.root"):
        compose_values(f"dataset.root={interpolation}")
