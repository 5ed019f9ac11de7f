"""The probe activations, against numpy on the inputs of the activation functions."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from bnexp.probes.activations import Activations
from helpers.probe_moments import make_moment, tiny_network


@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm1d])
def test_percentiles_are_those_of_the_middle_unit(norm):
    moment = make_moment(tiny_network(norm))
    rows = Activations().before_step(moment)
    network = copy.deepcopy(moment.network).train()
    inputs = {}
    for row in rows:
        network.get_submodule(row["layer"]).register_forward_hook(
            lambda module, args, output, layer=row["layer"]: inputs.update({layer: args[0]})
        )
    with torch.no_grad():
        network(moment.setup.sample()[0])
    assert rows
    for row in rows:
        units = inputs[row["layer"]].double().numpy()
        middle = units[:, units.shape[1] // 2]
        assert [row["p15"], row["p50"], row["p85"]] == pytest.approx(
            list(np.percentile(middle, [15, 50, 85]))
        )
        assert row["mean"] == pytest.approx(units.mean())
        assert row["std"] == pytest.approx(units.std())
        assert row["mean_of_means"] == pytest.approx(np.abs(units.mean(0)).mean())
