"""The probe landscape, against gradients of copies into which the weights are written."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from bnexp.probes.landscape import FACTORS, Landscape
from helpers.probe_moments import make_moment, tiny_network
from helpers.probe_runs import read_probe, train


def flat_gradient(network, moment):
    network.zero_grad()
    loss = moment.setup.loss(network(moment.images), moment.labels)
    loss.backward()
    return loss.detach(), torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm1d])
def test_rows_are_those_of_weights_written_into_a_copy(norm):
    moment = make_moment(tiny_network(norm), lr=0.3)
    rows = Landscape((0.5, 2.0)).before_step(moment)
    network = copy.deepcopy(moment.network).train()
    loss, gradient = flat_gradient(network, moment)
    start = copy.deepcopy(network.state_dict())
    assert [row["lr_factor"] for row in rows] == [0.5, 2.0]
    for row in rows:
        network.load_state_dict(start)
        eta = row["lr_factor"] * 0.3
        with torch.no_grad():
            position = nn.utils.parameters_to_vector(network.parameters()) - eta * gradient
            nn.utils.vector_to_parameters(position, network.parameters())
        moved_loss, moved_gradient = flat_gradient(network, moment)
        change = (moved_gradient - gradient).norm()
        expected = {
            "loss": loss, "moved_loss": moved_loss, "gradient_norm": gradient.norm(),
            "gradient_distance": change, "smoothness": change / (eta * gradient.norm()),
        }  # fmt: skip
        assert change > 1e-3
        assert {name: row[name] for name in expected} == pytest.approx(
            {name: float(value) for name, value in expected.items()}, rel=1e-12
        )


def test_smoothness_of_a_square_is_its_second_derivative():
    class Square(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([3.0, -1.0], dtype=torch.float64))

        def forward(self, images):
            return self.weight.square().sum() * 2.5  # second derivative 5 in each direction

    moment = make_moment(Square(), lr=0.1, loss=lambda logits, labels: logits)
    for row in Landscape().before_step(moment):
        assert row["smoothness"] == pytest.approx(5)
        assert row["moved_loss"] == pytest.approx(25 * (1 - 0.5 * row["lr_factor"]) ** 2)


def test_default_factors_are_eight_from_a_half_to_four():
    assert len(FACTORS) == 8
    assert FACTORS[0] == 0.5
    assert FACTORS[-1] == pytest.approx(4)
    ratios = [second / first for first, second in pairwise(FACTORS)]
    assert ratios == pytest.approx([8 ** (1 / 7)] * 7)


def test_smoothness_without_a_step_is_no_number():
    (row,) = Landscape((1.0,)).before_step(make_moment(tiny_network(nn.Identity), lr=0.0))
    assert row["moved_loss"] == row["loss"]
    assert math.isnan(row["smoothness"])


def test_a_loss_that_overflows_is_a_row(tmp_path):
    probe = "probes=[{_target_: bnexp.probes.landscape.Landscape, factors: [1, 1e30]}]"
    folder = train(tmp_path / "run", "model.norm=none", "optimizer.lr=0.1", probe, epochs=1)
    rows = read_probe(folder, "landscape")
    assert math.isfinite(float(rows[0]["moved_loss"]))
    assert not math.isfinite(float(rows[1]["moved_loss"]))
    assert len(rows) == 2


def test_a_factor_of_zero_is_refused(tmp_path):
    from bnexp.errors import UserError

    probe = "probes=[{_target_: bnexp.probes.landscape.Landscape, factors: [0]}]"
    with pytest.raises(UserError, match=r"^probes\.factors\[0\]=0: must be a number, above 0"):
        train(tmp_path / "run", probe, epochs=1)
