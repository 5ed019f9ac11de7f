"""The probe shift, against an update in two stages that is written out by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bnexp.errors import UserError
from bnexp.probes.shift import Shift
from helpers.probe_moments import make_moment, tiny_network


def measure(moment, optimizer):
    """The rows of a step of ``optimizer`` with the moment's batch."""
    probe = Shift()
    assert probe.before_step(moment) == ()
    optimizer.zero_grad()
    moment.setup.loss(moment.network(moment.images), moment.labels).backward()
    optimizer.step()
    return probe.after_step(moment)


def gradient_of(network, layer, moment):
    network.train().zero_grad()
    moment.setup.loss(network(moment.images), moment.labels).backward()
    return network[layer].weight.grad.clone()


@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm1d])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rows_are_those_of_an_update_of_the_layers_below_alone(norm, momentum):
    network = tiny_network(norm)
    moment = make_moment(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.4, momentum=momentum, weight_decay=0.01)
    measure(moment, optimizer)  # momentum needs a step behind it
    before = copy.deepcopy(network)
    rows = measure(moment, optimizer)
    assert [row["layer"] for row in rows] == ["0", "3", "6"]
    for row, layer in zip(rows, (0, 3, 6), strict=True):
        stage = copy.deepcopy(before)
        gradient = gradient_of(stage, layer, moment)
        for number in range(layer):
            stage[number].load_state_dict(network[number].state_dict())
        moved_gradient = gradient_of(stage, layer, moment)
        assert row["gradient_norm"] == pytest.approx(float(gradient.norm()), rel=1e-12)
        distance = float((gradient - moved_gradient).norm())
        assert row["gradient_distance"] == pytest.approx(distance, rel=1e-12, abs=1e-15)
        cosine = F.cosine_similarity(gradient.flatten(), moved_gradient.flatten(), dim=0)
        assert row["cosine"] == pytest.approx(float(cosine), rel=1e-12)
    assert rows[0]["gradient_distance"] == 0  # nothing is below the first layer
    assert all(row["gradient_distance"] > 1e-3 for row in rows[1:])
    assert all(row["cosine"] < 0.99999 for row in rows[1:])


def test_both_gradients_drop_the_same_values():
    network = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 3)).double()
    rows = measure(make_moment(network), torch.optim.SGD(network.parameters(), lr=0.0))
    assert [row["gradient_distance"] for row in rows] == [0, 0]
    assert [row["cosine"] for row in rows] == pytest.approx([1, 1])


def test_a_gradient_of_zero_has_no_cosine():
    network = tiny_network(nn.Identity)
    nn.init.zeros_(network[6].weight)
    rows = measure(make_moment(network), torch.optim.SGD(network.parameters(), lr=0.0))
    assert math.isnan(rows[0]["cosine"])
    assert rows[0]["gradient_norm"] == 0
    assert rows[2]["cosine"] == pytest.approx(1)


def test_layers_can_be_chosen_if_they_have_trained_weights():
    network = tiny_network(nn.BatchNorm1d)
    network[6].requires_grad_(False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    assert [row["layer"] for row in measure(make_moment(network), optimizer)] == ["0", "3"]
    assert [row["layer"] for row in measure(make_moment(network, layers=["4"]), optimizer)] == ["4"]
    for layer in ("2", "6"):
        with pytest.raises(UserError, match=rf"^probe\.layers={layer}: must be one of 0, 3"):
            Shift().check(make_moment(network, layers=[layer]).setup)
