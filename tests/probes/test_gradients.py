"""The probe gradients, against gradients of single images, numpy, and the theory of deep batch norm."""

from __future__ import annotations

import copy
import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from bnexp.models import MLP
from bnexp.models.initialization import build_seeded
from bnexp.probes.gradients import Gradients, tail_statistics
from bnexp.report.measurements.gradients import growth_per_layer
from bnexp.report.measurements.theory import gradient_growth
from bnexp.report.read.probe_tables import ProbeTable
from bnexp.seeding import generator
from helpers.probe_moments import make_moment, tiny_network


@pytest.mark.parametrize("norm", [nn.Identity, nn.LayerNorm])
def test_output_gradients_are_those_of_each_image_alone(norm):
    """Without batch statistics an image's own loss has the same gradient in a batch of one."""
    moment = make_moment(tiny_network(norm))
    rows = Gradients().before_step(moment)
    network = copy.deepcopy(moment.network).train()
    layers = [row["layer"] for row in rows]
    noise = torch.randn(
        (len(moment.images), 3), generator=generator(moment.setup.seed, "random gradient", moment.step)
    )
    squares = {(layer, kind): [] for layer in layers for kind in ("output_square", "random_square")}
    for number, (image, label) in enumerate(zip(moment.images, moment.labels, strict=True)):
        outputs = {}
        hooks = [
            network.get_submodule(layer).register_forward_hook(
                lambda module, args, output, layer=layer, outputs=outputs: outputs.update({layer: output})
            )
            for layer in layers
        ]
        logits = network(image[None])
        for hook in hooks:
            hook.remove()
        targets = {
            "output_square": moment.setup.loss(logits, label[None]),
            "random_square": (logits * noise[number].to(logits)).sum(),
        }
        for kind, target in targets.items():
            for layer in layers:
                (gradient,) = torch.autograd.grad(target, outputs[layer], retain_graph=True)
                squares[layer, kind].append(float(gradient.square().sum()))
    for row in rows:
        for kind in ("output_square", "random_square"):
            assert row[kind] == pytest.approx(statistics.fmean(squares[row["layer"], kind]), rel=1e-6)
    assert [row["depth"] for row in rows] == list(range(1, len(rows) + 1))


def test_weight_norms_are_those_of_the_batch():
    moment = make_moment(tiny_network(nn.BatchNorm1d))
    rows = Gradients().before_step(moment)
    network = copy.deepcopy(moment.network).train()
    moment.setup.loss(network(moment.images), moment.labels).backward()
    for row in rows:
        weight = network.get_submodule(row["layer"]).weight
        assert row["weight_norm"] == pytest.approx(float(weight.grad.norm()), rel=1e-10)


def test_tails_are_those_of_numpy_and_scipy():
    values = np.random.default_rng(0).standard_t(4, 5000)
    result = tail_statistics(torch.from_numpy(values))
    assert result["kurtosis"] == pytest.approx(stats.kurtosis(values, fisher=False), rel=1e-9)
    sizes = np.abs(values)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)):
        assert result[f"abs_{name}"] == pytest.approx(np.quantile(sizes, share), rel=1e-9)
    assert result["abs_max"] == sizes.max()
    assert math.isnan(tail_statistics(torch.ones(5))["kurtosis"])


@pytest.mark.parametrize("batch_size", [16, 64])
def test_the_growth_of_a_deep_network_with_batch_norm_is_that_of_the_theory(batch_size):
    """Within 2 %: 30 layers of 400 units, random images, mean over three draws of the weights."""
    growths = []
    for seed in range(3):
        network = build_seeded(
            lambda: MLP(
                1, 8, 10, norm="batch", norm_groups=2, hidden=(400,), depth=30, activation="relu",
                dropout=0.0, init="kaiming",
            ),
            seed,
        )  # fmt: skip
        moment = make_moment(network)
        images = torch.randn(batch_size, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
        moment = replace(moment, images=images, labels=torch.arange(batch_size) % 10)
        rows = [{"step": 1, **row} for row in Gradients().before_step(moment)]
        growths.append(growth_per_layer(ProbeTable(tuple(rows))))
    assert statistics.fmean(growths) == pytest.approx(gradient_growth(batch_size), rel=0.02)
