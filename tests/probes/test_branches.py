"""The probe branches: the share of a branch in its block's output, against the definition and the theory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bnexp.config.schema import ProbeKeys
from bnexp.errors import UserError
from bnexp.probes.branches import Branches
from bnexp.probes.probe import Moment, Setup
from bnexp.report.measurements.theory import branch_share
from helpers.yaml_defaults import build


def moment(network: nn.Module, images: torch.Tensor, layers: tuple[str, ...] = ()) -> Moment:
    data = SimpleNamespace(train=images)
    setup = Setup(network, nn.CrossEntropyLoss(), data, ProbeKeys(layers=layers), 8, 8, 0, lambda: 0.1)
    return Moment(setup, 0, images, torch.zeros(len(images), dtype=torch.long))


def normal_images(count: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_the_share_follows_its_definition():
    network = build("mlp", hidden=[12], depth=3, residual="plain", norm="batch", dropout=0.5)
    images = normal_images(20)
    rows = Branches().at_start(moment(network, images))
    assert [row["block"] for row in rows] == [1, 2, 3]
    assert [row["layer"] for row in rows] == [f"hidden.blocks.{number}" for number in range(3)]
    with torch.no_grad():
        x = network.hidden.linear(images.flatten(1))
        for row, block in zip(rows, network.hidden.blocks, strict=True):
            branch = block.branch
            hidden = branch.linear1(nn.functional.batch_norm(x, None, None, training=True).relu())
            output = branch.linear2(nn.functional.batch_norm(hidden, None, None, training=True).relu())
            assert row["branch_square"] == pytest.approx(float(output.square().mean()), rel=1e-5)
            assert row["output_square"] == pytest.approx(float((x + output).square().mean()), rel=1e-5)
            assert row["share"] == pytest.approx(row["branch_square"] / row["output_square"])
            x = x + output


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_shares_of_a_wide_network_are_those_of_the_theory(norm):
    """The first Linear halves its output here, so that its mean square is 1, as the theory assumes."""
    shares = []
    for seed in range(8):
        network = build(
            "mlp", seed=seed, hidden=[500], depth=4, residual="plain", norm=norm, init="kaiming"
        ).requires_grad_(False)
        network.hidden.linear.weight.mul_(0.5**0.5)
        rows = Branches().at_start(moment(network, normal_images(200, seed=seed)))
        shares.append([row["share"] for row in rows])
    expected = [branch_share(block, batch_norm=norm == "batch") for block in (1, 2, 3, 4)]
    assert torch.tensor(shares).mean(0).tolist() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("kind", ["skipinit", "fixup"])
def test_branches_that_start_as_zero_have_no_share(kind):
    network = build("mlp", hidden=[12], depth=3, residual=kind)
    assert [row["share"] for row in Branches().at_start(moment(network, normal_images(5)))] == [0.0] * 3


def test_named_blocks_and_mistakes():
    network = build("mlp", hidden=[12], depth=3, residual="plain")
    rows = Branches().at_start(moment(network, normal_images(5), ("hidden.blocks.2",)))
    assert [row["layer"] for row in rows] == ["hidden.blocks.2"]
    with pytest.raises(UserError, match=r"^probe\.layers=hidden\.linear: the probe branches needs residual"):
        Branches().check(moment(network, normal_images(5), ("hidden.linear",)).setup)
    with pytest.raises(UserError, match=r"this network has no residual block \(model.residual=plain\)"):
        Branches().check(moment(build("mlp"), normal_images(5)).setup)
