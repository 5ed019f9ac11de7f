"""First weights: equal for equal seeds and layer names, and drawn from the documented distributions."""

import math

import pytest
import torch
from torch import nn

from bnexp.models import initialization
from bnexp.models.initialization import build_seeded
from helpers.yaml_defaults import build

NORMS = ["batch", "batch_manual", "layer", "group", "batch_noise", "instance"]
SMALL = {  # smaller networks, for quick tests
    "resnet": {"depths": [1, 1], "widths": [32, 64], "norm_groups": 4},
    "densenet": {"blocks": [2, 2], "growth": 8, "stem_width": 16},
}
FAMILIES = ["mlp", "conv", "lenet", "resnet", "densenet"]


def layer_parameters(model):
    """Each parameter of a Linear or convolution by its name."""
    return {
        f"{prefix}.{name}": parameter
        for prefix, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
        for name, parameter in module.named_parameters(recurse=False)
    }


def assert_equal_layers(model, other_model):
    parameters, other_parameters = layer_parameters(model), layer_parameters(other_model)
    assert parameters.keys() == other_parameters.keys()
    assert all(torch.equal(parameters[name], other_parameters[name]) for name in parameters)


@pytest.mark.parametrize("init", ["default", "kaiming", "lecun"])
@pytest.mark.parametrize("name", FAMILIES)
def test_layers_are_bit_equal_with_every_norm(name, init):
    keys = SMALL.get(name, {}) | {"init": init}
    without_norm = build(name, norm="none", **keys)
    for norm in NORMS if name not in ("mlp", "lenet") else NORMS[:-1]:
        assert_equal_layers(without_norm, build(name, norm=norm, **keys))


@pytest.mark.parametrize("block", ["bottleneck", "preact"])
def test_layers_of_other_resnet_blocks_are_bit_equal_with_batch_norm(block):
    keys = SMALL["resnet"] | {"block": block, "bias": False}
    assert_equal_layers(build("resnet", norm="none", **keys), build("resnet", norm="batch", **keys))


@pytest.mark.parametrize("arch", ["resnet18", "squeezenet1_1"])  # norms replaced, norms inserted
def test_layers_from_torchvision_are_bit_equal_with_group_norm(arch):
    parameters, other_parameters = (
        list(layer_parameters(build("torchvision", arch=arch, norm=norm, norm_groups=2)).values())
        for norm in ("none", "group")
    )
    assert len(parameters) == len(other_parameters)
    assert all(torch.equal(a, b) for a, b in zip(parameters, other_parameters, strict=True))


@pytest.mark.parametrize(("name", "keys"), [("conv", {}), ("torchvision", {"arch": "squeezenet1_1"})])
def test_weights_depend_on_the_seed_and_not_on_earlier_draws(name, keys):
    keys = {"norm": "none"} | keys
    model = build(name, **keys)
    torch.manual_seed(99)
    torch.randn(17)
    state = torch.get_rng_state()
    assert_equal_layers(model, build(name, **keys))
    assert torch.equal(state, torch.get_rng_state())
    other_seed = layer_parameters(build(name, seed=1, **keys)).values()
    assert not any(
        torch.equal(a, b)
        for a, b in zip(layer_parameters(model).values(), other_seed, strict=True)
        if a.any()
    )


def test_an_additional_layer_does_not_change_the_others():
    short, long = (
        layer_parameters(build("mlp", hidden=hidden)) for hidden in ([50, 20, 20], [50, 20, 20, 20])
    )
    assert len(long) == len(short) + 2
    assert all(torch.equal(short[name], long[name]) for name in short)


def test_layers_of_one_shape_differ():
    parameters = layer_parameters(build("mlp", hidden=[20, 20, 20]))
    assert not torch.equal(parameters["hidden.1.linear.weight"], parameters["hidden.2.linear.weight"])


@pytest.mark.parametrize("layer", [nn.Linear(300, 200), nn.Conv2d(12, 64, 5), nn.Conv2d(32, 64, 3, groups=4)])
def test_distributions(layer):
    fan_in = layer.weight[0].numel()
    bound = 1 / math.sqrt(fan_in)
    initialization.initialize(layer, 0, "default")
    for parameter in layer.parameters():
        assert 0.9 * bound < parameter.abs().max() <= bound
        assert parameter.mean().abs() < 0.2 * bound
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    for init, gain in {"kaiming": 2, "lecun": 1}.items():
        initialization.initialize(layer, 0, init)
        assert layer.weight.std().item() == pytest.approx(math.sqrt(gain / fan_in), rel=0.03)
        assert layer.weight.abs().max() > 3 * layer.weight.std()  # normal, not uniform
        assert not layer.bias.any()


def test_default_has_torchs_bounds():
    torch.manual_seed(0)
    layer, torch_layer = nn.Conv2d(12, 64, 5), nn.Conv2d(12, 64, 5)
    initialization.initialize(layer, 0, "default")
    for parameter, reference in zip(layer.parameters(), torch_layer.parameters(), strict=True):
        assert parameter.abs().max().item() == pytest.approx(reference.abs().max().item(), rel=0.05)


def test_other_modules_keep_their_parameters():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Embedding(4, 3))
    before = [parameter.clone() for parameter in model.parameters()]
    initialization.initialize(model, 0, "kaiming")
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


class ForeignNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        nn.init.constant_(self.layer.weight, 0.5)  # its own initialization, which must stay
        self.scale = nn.Parameter(torch.randn(2))


def test_a_foreign_network_keeps_its_own_weights_and_repeats_them():
    model = build_seeded(ForeignNetwork, 0)
    torch.manual_seed(5)
    repeated = build_seeded(ForeignNetwork, 0)
    assert (model.layer.weight == 0.5).all()
    assert torch.equal(model.scale, repeated.scale)
    assert not torch.equal(model.scale, build_seeded(ForeignNetwork, 1).scale)
