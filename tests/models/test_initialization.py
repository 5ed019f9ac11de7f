import math

import pytest
import torch
from torch import nn

from bnexp.models import initialization
from bnexp.models.initialization import build_seeded
from helpers.yaml_defaults import build

NORMS = ["batch", "batch_manual", "layer", "group", "instance"]
SMALL = {  # what keeps these tests quick
    "resnet": {"depths": [1, 1], "widths": [32, 64], "norm_groups": 4},
    "densenet": {"blocks": [2, 2], "growth": 8, "stem_width": 16},
}
FAMILIES = ["mlp", "conv", "lenet", "resnet", "densenet"]


def layers(model):
    """Every parameter of a Linear or convolution by its name."""
    return {
        f"{prefix}.{name}": parameter
        for prefix, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
        for name, parameter in module.named_parameters(recurse=False)
    }


def assert_twins(one, other):
    one, other = layers(one), layers(other)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("start", ["default", "kaiming"])
@pytest.mark.parametrize("name", FAMILIES)
def test_twins_start_bit_equal(name, start):
    keys = SMALL.get(name, {}) | {"start": start}
    plain = build(name, norm="none", **keys)
    for norm in NORMS if name not in ("mlp", "lenet") else NORMS[:-1]:
        assert_twins(plain, build(name, norm=norm, **keys))


@pytest.mark.parametrize("block", ["bottleneck", "preact"])
def test_twins_of_the_other_blocks(block):
    keys = SMALL["resnet"] | {"block": block, "bias": False}
    assert_twins(build("resnet", norm="none", **keys), build("resnet", norm="batch", **keys))


@pytest.mark.parametrize("arch", ["resnet18", "squeezenet1_1"])  # norms swapped, norms inserted
def test_twins_from_torchvision(arch):
    plain, normed = (build("torchvision", arch=arch, norm=norm, norm_groups=2) for norm in ("none", "group"))
    mine, theirs = list(layers(plain).values()), list(layers(normed).values())
    assert len(mine) == len(theirs)
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize(("name", "keys"), [("conv", {}), ("torchvision", {"arch": "squeezenet1_1"})])
def test_a_start_depends_on_the_seed_and_on_nothing_that_ran_before(name, keys):
    keys = {"norm": "none"} | keys
    first = build(name, **keys)
    torch.manual_seed(99)
    torch.randn(17)
    state = torch.get_rng_state()
    assert_twins(first, build(name, **keys))
    assert torch.equal(state, torch.get_rng_state())
    assert not any(
        torch.equal(a, b)
        for a, b in zip(layers(first).values(), layers(build(name, seed=1, **keys)).values(), strict=True)
        if a.any()
    )


def test_a_layer_more_leaves_the_others_as_they_were():
    short, long = (layers(build("mlp", hidden=hidden)) for hidden in ([50, 20, 20], [50, 20, 20, 20]))
    assert len(long) == len(short) + 2
    assert all(torch.equal(short[name], long[name]) for name in short)


def test_layers_differ_from_each_other():
    model = layers(build("mlp", hidden=[20, 20, 20]))
    assert not torch.equal(model["hidden.1.linear.weight"], model["hidden.2.linear.weight"])


@pytest.mark.parametrize("layer", [nn.Linear(300, 200), nn.Conv2d(12, 64, 5), nn.Conv2d(32, 64, 3, groups=4)])
def test_distributions(layer):
    fan_in = layer.weight[0].numel()
    bound = 1 / math.sqrt(fan_in)
    initialization.initialize(layer, 0, "default")
    for parameter in layer.parameters():
        assert 0.9 * bound < parameter.abs().max() <= bound
        assert parameter.mean().abs() < 0.2 * bound
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    initialization.initialize(layer, 0, "kaiming")
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.03)
    assert layer.weight.abs().max() > 3 * layer.weight.std()  # normal, not uniform
    assert not layer.bias.any()


def test_the_default_start_has_torchs_bounds():
    torch.manual_seed(0)
    ours, theirs = nn.Conv2d(12, 64, 5), nn.Conv2d(12, 64, 5)
    initialization.initialize(ours, 0, "default")
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.abs().max().item() == pytest.approx(reference.abs().max().item(), rel=0.05)


def test_other_modules_keep_their_start():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Embedding(4, 3))
    before = [parameter.clone() for parameter in model.parameters()]
    initialization.initialize(model, 0, "kaiming")
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


class Foreign(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        nn.init.constant_(self.layer.weight, 0.5)  # its own start, to be kept
        self.scale = nn.Parameter(torch.randn(2))


def test_a_foreign_network_keeps_its_own_start_and_repeats_it():
    first = build_seeded(Foreign, 0)
    torch.manual_seed(5)
    again = build_seeded(Foreign, 0)
    assert (first.layer.weight == 0.5).all()
    assert torch.equal(first.scale, again.scale)
    assert not torch.equal(first.scale, build_seeded(Foreign, 1).scale)
