"""Residual MLPs: the order of layers, the identity at the start, fixup's rules, twins, mistakes."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from bnexp.errors import UserError
from bnexp.models.blocks import Scale, Shift
from bnexp.models.residual_mlp import ResidualBlock
from helpers.yaml_defaults import build, images_for, train_step

KINDS = ("plain", "skipinit", "fixup")


def build_residual(kind, blocks=4, **keys):
    return build("mlp", residual=kind, **({"hidden": [12], "depth": blocks} | keys))


def linear_parameters(model):
    """Each parameter of a Linear by its name."""
    return {
        f"{prefix}.{name}": parameter
        for prefix, module in model.named_modules()
        if isinstance(module, nn.Linear)
        for name, parameter in module.named_parameters(recurse=False)
    }


@pytest.mark.parametrize("norm", ["none", "batch", "batch_manual", "layer", "group", "batch_noise"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_with_every_norm_has_a_block_for_each_hidden_layer(kind, norm):
    model = build_residual(kind, norm=norm, hidden=[12, 12], depth=3)
    assert len(model.hidden.blocks) == 6
    train_step(model, images_for("mlp"))


def test_a_plain_block_adds_norm_activation_linear_twice():
    model = build_residual("plain", norm="batch", activation="tanh").double()
    block, x = model.hidden.blocks[0], torch.randn(9, 12, dtype=torch.float64)
    branch = block.branch
    names = ["norm1", "activation1", "linear1", "norm2", "activation2", "linear2"]
    assert [name for name, _ in branch.named_children()] == names

    def standardised(x):
        return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()

    hidden = standardised(x).tanh() @ branch.linear1.weight.T + branch.linear1.bias
    output = standardised(hidden).tanh() @ branch.linear2.weight.T + branch.linear2.bias
    torch.testing.assert_close(block(x), x + output)


def test_the_network_is_linear_blocks_norm_activation_linear():
    model = build_residual("plain", blocks=2, norm="batch")
    assert [name for name, _ in model.hidden.named_children()] == ["linear", "blocks", "norm", "activation"]
    images = images_for("mlp", 6)
    x = model.hidden.blocks(model.hidden.linear(images.flatten(1)))
    expected = model.head(nn.functional.batch_norm(x, None, None, training=True).relu())
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize("kind", ["skipinit", "fixup"])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_blocks_start_as_the_identity(kind, norm):
    model = build_residual(kind, norm=norm)
    x = torch.randn(7, 12)
    assert torch.equal(model.hidden.blocks(x), x)
    plain = build_residual("plain", norm=norm)
    assert not torch.allclose(plain.hidden.blocks(x), x, atol=0.1)


def test_skipinit_has_one_learned_factor_a_branch_at_its_end():
    model, plain = build_residual("skipinit"), build_residual("plain")
    counts = [sum(p.numel() for p in network.parameters()) for network in (model, plain)]
    assert counts[0] - counts[1] == 4
    block = model.hidden.blocks[0]
    with torch.no_grad():
        block.branch.scale.factor.fill_(0.5)
    x = torch.randn(7, 12)
    torch.testing.assert_close(block(x), x + 0.5 * plain.hidden.blocks[0].branch(x))


def test_first_weights_follow_fixups_rules():
    blocks = 9
    fixup = build_residual("fixup", blocks=blocks, init="kaiming")
    kaiming = build_residual("plain", blocks=blocks, init="kaiming")
    assert torch.equal(fixup.hidden.linear.weight, kaiming.hidden.linear.weight)
    for block, reference in zip(fixup.hidden.blocks, kaiming.hidden.blocks, strict=True):
        expected = reference.branch.linear1.weight / 3  # 9^(-1 / (2·2 - 2)), m = 2 Linears a branch
        torch.testing.assert_close(block.branch.linear1.weight, expected)
        assert not any(parameter.any() for parameter in block.branch.linear2.parameters())
    assert not any(parameter.any() for parameter in fixup.head.parameters())


def test_fixup_has_a_summand_before_each_activation_and_linear_and_a_factor_a_branch():
    model = build_residual("fixup", blocks=2)
    branch = list(model.hidden.blocks[0].branch.named_children())
    kinds = [type(module) for _, module in branch if not isinstance(module, nn.Identity)]
    assert kinds == [Shift, nn.ReLU, Shift, nn.Linear, Shift, nn.ReLU, Shift, nn.Linear, Scale]
    last = [module for _, module in model.hidden.named_children() if not isinstance(module, nn.Identity)]
    assert [type(module) for module in last[2:]] == [Shift, nn.ReLU, Shift]
    scales = [module.factor.item() for module in model.modules() if isinstance(module, Scale)]
    shifts = [module.summand.item() for module in model.modules() if isinstance(module, Shift)]
    assert scales == [1.0] * 2
    assert shifts == [0.0] * (4 * 2 + 2)
    shift = Shift()
    with torch.no_grad():
        shift.summand.fill_(2.0)
    assert torch.equal(shift(torch.zeros(2, 3)), torch.full((2, 3), 2.0))


def test_a_fixup_network_learns_from_its_first_step():
    model, images = build_residual("fixup", blocks=50), images_for("mlp", 20)
    labels = torch.arange(20) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(100):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(torch.tensor(10.0).log().item())  # all logits are 0
    assert losses[-1] < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_linears_are_bit_equal_with_every_norm(kind):
    plain = linear_parameters(build_residual(kind, norm="none"))
    for norm in ("batch", "layer", "batch_noise"):
        twin = linear_parameters(build_residual(kind, norm=norm))
        assert plain.keys() == twin.keys()
        assert all(torch.equal(plain[name], twin[name]) for name in plain)


def test_plain_and_skipinit_are_twins_and_a_longer_network_begins_alike():
    plain, skipinit = (linear_parameters(build_residual(kind)) for kind in ("plain", "skipinit"))
    assert plain.keys() == skipinit.keys()
    assert all(torch.equal(plain[name], skipinit[name]) for name in plain)
    longer = linear_parameters(build_residual("plain", blocks=6))
    assert all(torch.equal(plain[name], longer[name]) for name in plain)


@pytest.mark.parametrize(("layers", "count"), [("all", 5), ("last", 1)])
def test_dropout_stands_before_the_second_linear_of_a_branch_and_before_the_last_linear(layers, count):
    model = build_residual("plain", dropout=0.5, dropout_layers=layers)
    assert sum(isinstance(module, nn.Dropout) for module in model.modules()) == count
    assert [name for name, _ in model.hidden.named_children()][-1] == "dropout"
    if layers == "all":
        names = [name for name, _ in model.hidden.blocks[0].branch.named_children()]
        assert ("dropout", "linear2") in pairwise(names)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"hidden": [12, 8]}, "model.hidden=[12, 8]: must list equal numbers of units"),
        ({"hidden": []}, "model.hidden=[]: must list equal numbers of units, at least one"),
        ({"norm_position": "after"}, "model.norm_position=after: must be before for model.residual=plain"),
        ({"residual": "fixupp"}, "did you mean fixup"),
    ],
)
def test_a_mistake_names_its_key(keys, message):
    with pytest.raises(UserError) as error:
        build_residual(**({"kind": keys.pop("residual", "plain")} | keys))
    assert message in str(error.value)


def test_without_residual_there_is_no_block():
    assert not any(isinstance(module, ResidualBlock) for module in build("mlp").modules())
