"""The probe rank: orthogonality gap and soft rank against their definitions in float64."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from bnexp.config.schema import ProbeKeys
from bnexp.probes.probe import Moment, Setup
from bnexp.probes.rank import Rank, orthogonality
from helpers.probe_runs import read_probe, train


def gap_and_rank(features: np.ndarray) -> tuple[float, float]:
    """By definition, from H (N x n)."""
    h = features.T
    n = h.shape[1]
    gap = np.linalg.norm(h.T @ h / np.linalg.norm(h) ** 2 - np.eye(n) / n)
    m = h @ h.T / n
    return gap, np.trace(m) ** 2 / np.linalg.norm(m) ** 2


@pytest.mark.parametrize(("images", "width"), [(5, 9), (9, 5), (2, 1), (6, 6)])
def test_both_numbers_follow_their_definitions(images, width):
    features = torch.randn(images, width, generator=torch.Generator().manual_seed(0)) + 0.5
    result = orthogonality(features)
    gap, rank = gap_and_rank(features.double().numpy())
    assert result["orthogonality_gap"] == pytest.approx(gap, rel=1e-10)
    assert result["soft_rank"] == pytest.approx(rank, rel=1e-10)
    assert (result["width"], result["images"]) == (width, images)


def test_the_numbers_of_orthogonal_and_of_parallel_images():
    orthogonal, parallel = orthogonality(3 * torch.eye(4)), orthogonality(torch.ones(4, 7))
    assert orthogonal["orthogonality_gap"] == pytest.approx(0, abs=1e-12)
    assert orthogonal["soft_rank"] == pytest.approx(4)
    assert parallel["orthogonality_gap"] == pytest.approx(math.sqrt(1 - 1 / 4))
    assert parallel["soft_rank"] == pytest.approx(1)


def test_images_without_a_feature_have_no_numbers():
    assert math.isnan(orthogonality(torch.zeros(3, 4))["orthogonality_gap"])


def test_each_layer_has_the_numbers_of_what_goes_into_it():
    """Batch norm by the batch, dropout off."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Flatten(),
        nn.Linear(12, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.5),
        nn.Linear(5, 4), nn.Linear(4, 3),
    ).double()  # fmt: skip
    images = torch.randn(8, 3, 2, 2).double()
    keys = ProbeKeys(images=8)
    setup = Setup(network, nn.MSELoss(), SimpleNamespace(train=images), keys, 8, 8, 0, lambda: 0.1)
    probe = Rank()
    probe.check(setup)
    rows = probe.at_start(Moment(setup, 0, images, torch.zeros(8)))
    x = images.flatten(1).numpy()
    first, second = ([p.detach().numpy() for p in network[i].parameters()] for i in (1, 5))
    z = x @ first[0].T + first[1]
    hidden = np.tanh((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5))
    inputs = [x, hidden, hidden @ second[0].T + second[1]]
    assert [(row["layer"], row["depth"]) for row in rows] == [("1", 0), ("5", 1), ("6", 2)]
    for row, features in zip(rows, inputs, strict=True):
        numbers = row["orthogonality_gap"], row["soft_rank"]
        assert numbers == pytest.approx(gap_and_rank(features), rel=1e-8)
    assert network[2].num_batches_tracked == 0
    assert all(module.training for module in network.modules())


def test_a_run_has_one_measurement_at_its_start(tmp_path):
    keys = ("model.norm=batch", "model.hidden=[20,10]", "probes=[rank]", "probe.images=16")
    rows = read_probe(train(tmp_path / "run", *keys), "rank")
    assert {row["step"] for row in rows} == {"0"}
    assert [(row["layer"], float(row["width"])) for row in rows] == [
        ("hidden.0.linear", 784), ("hidden.1.linear", 20), ("head", 10),
    ]  # fmt: skip
    assert {float(row["images"]) for row in rows} == {16}


def test_a_batch_of_one_image_is_one_line(commands):
    result = commands.bnexp("probes=[rank]", "probe.images=1")
    line = "bnexp: probe.images=1: must be at least 2 for the probe rank\n"
    assert (result.code, result.err) == (2, line)
