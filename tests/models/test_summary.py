"""The table of a network's layers."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from bnexp.models.summary import summarise
from helpers.yaml_defaults import build


def rows_by_name(summary):
    return {row.name: row for row in summary.rows}


def test_rows_of_conv_bn():
    summary = summarise(build("conv_bn"), torch.randn(2, 1, 28, 28))
    rows = rows_by_name(summary)
    assert list(rows)[:4] == [f"layers.0.{layer}" for layer in ("conv", "norm", "activation", "pool")]
    assert rows["layers.0.conv"].shape == ("N", 6, 28, 28)
    assert rows["layers.0.conv"].parameters == 60
    assert rows["layers.0.norm"].type == "BatchNorm2d"
    assert rows["layers.1.pool"].shape == ("N", 16, 5, 5)
    assert rows["head"].shape == ("N", 10)
    assert summary.parameters == 6530 == sum(row.parameters for row in summary.rows)


def test_flops_count_a_multiplication_and_its_addition_as_two():
    for batch in (2, 5):
        summary = summarise(build("conv_bn"), torch.randn(batch, 1, 28, 28))
        assert summary.flops == 2 * (6 * 9 * 28 * 28 + 16 * 6 * 25 * 10 * 10 + 400 * 10)


def test_the_forward_pass_draws_no_number_of_the_run():
    images = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    rng = torch.get_rng_state()
    summarise(build("conv_bn", dropout=0.5), images)
    assert torch.equal(rng, torch.get_rng_state())


def test_the_forward_pass_is_in_training_mode():
    modes = []

    class ModeRecorder(nn.Module):
        def forward(self, x):
            modes.append(self.training)
            return x

    summarise(ModeRecorder().eval(), torch.randn(2, 3))
    assert modes == [True]


def test_errors_of_the_forward_pass_are_not_caught():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        summarise(build("mlp_bn"), torch.randn(1, 1, 8, 8))
    with pytest.raises(RuntimeError):
        summarise(build("mlp"), torch.randn(2, 1, 9, 9))


class SpecialCases(nn.Module):
    """A parameter of its own, a layer called twice, a layer that is never called, a tuple as output."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.twice = nn.Linear(4, 4)
        self.uncalled = nn.Linear(4, 3)

    def forward(self, x):
        x = self.twice(self.twice(x)) * self.scale
        return nn.functional.linear(x, self.uncalled.weight), x


def test_every_parameter_is_counted_once():
    summary = summarise(SpecialCases(), torch.randn(2, 4))
    assert [(row.name, row.shape, row.parameters) for row in summary.rows] == [
        ("twice", ("N", 4), 20),
        ("twice", ("N", 4), 0),
        ("(itself)", ("N", 3), 4),
        ("(others)", (), 15),
    ]
    assert summary.parameters == 39


def test_text_fits_eighty_columns_and_is_complete():
    deep: nn.Module = nn.Linear(8, 8)
    for _ in range(6):
        deep = nn.Sequential(OrderedDict(a_block_with_a_long_name=deep, activation=nn.ReLU()))
    for summary in (
        summarise(deep, torch.randn(2, 8)),
        summarise(build("conv_bn"), torch.randn(2, 1, 28, 28)),
    ):
        lines = str(summary).splitlines()
        assert max(map(len, lines)) <= 80
        assert len({len(line) for line in lines[:-1]}) == 1, "all rows must have one width"
        assert len(lines) == len(summary.rows) + 4
    assert lines[-1] == f"6,530 parameters, {summary.flops:,} FLOPs an image, forward"
    assert "N x 16 x 10 x 10" in str(summary)


def test_markdown_is_a_table():
    summary = summarise(build("conv_bn"), torch.randn(2, 1, 28, 28))
    lines = summary.markdown().splitlines()
    table = lines[: len(summary.rows) + 2]
    assert all(line.startswith("| ") and line.count("|") == 5 for line in table)
    assert lines[-2] == ""
    assert lines[-1].startswith("6,530 parameters")
