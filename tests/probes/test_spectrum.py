"""The probe spectrum, against torch.linalg.eigh of the whole Hessian; networks without second derivatives."""

from __future__ import annotations

import sys
from typing import get_args

import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from bnexp.errors import OutOfMemory, UserError
from bnexp.models import norms
from bnexp.probes.hessian import Hessian
from bnexp.probes.spectrum import Spectrum, undifferentiable_layer
from helpers.probe_moments import make_moment, tiny_network
from helpers.probe_runs import read_probe, train
from probes.test_hessian import NORMS, whole_hessian


@pytest.mark.parametrize("norm", NORMS)
def test_rows_are_those_of_the_whole_hessian(norm):
    moment = make_moment(tiny_network(norm))
    matrix, gradient = whole_hessian(moment)
    values, columns = torch.linalg.eigh(matrix)
    values, columns = values.flip(0), columns.flip(1)
    shares = (columns.T @ gradient).square().cumsum(0) / gradient.square().sum()
    rows = Spectrum(steps=len(matrix), count=6).before_step(moment)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row, value, share in zip(rows, values, shares, strict=False):
        assert row["eigenvalue"] == pytest.approx(float(value), rel=1e-8)
        assert row["gradient_share"] == pytest.approx(float(share), rel=1e-6)
        assert row["residual"] < 1e-6


def test_few_steps_give_the_greatest_eigenvalue_and_say_how_exact_the_others_are():
    moment = make_moment(tiny_network(nn.Identity))
    matrix, _ = whole_hessian(moment)
    values = torch.linalg.eigvalsh(matrix)
    rows = Spectrum(steps=16, count=16).before_step(moment)
    assert rows[0]["eigenvalue"] == pytest.approx(float(values[-1]), rel=1e-4)
    for row in rows:
        error = float((values - row["eigenvalue"]).abs().min())
        assert error <= row["residual"] * (1 + 1e-6)
    assert max(row["residual"] for row in rows) > 1e-3


FIRST_DERIVATIVE_ONLY = """
import torch
from torch import nn
from torch.autograd.function import once_differentiable

class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return gradient * 2

class Doubling(nn.Module):
    def forward(self, x):
        return Twice.apply(x)

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.doubling, self.activation = Doubling(), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.activation(self.doubling(x))

class Net(nn.Module):
    def __init__(self, image_size):
        super().__init__()
        self.first, self.block, self.head = nn.Linear(image_size**2, 8), Block(), nn.Linear(8, 10)

    def forward(self, images):
        return self.head(self.block(self.first(images.flatten(1))))
"""
KEYS = ("model=custom", "model._target_=onlyonce.Net", "probes=[spectrum]")


@pytest.fixture
def own_network(tmp_path, monkeypatch):
    (tmp_path / "onlyonce.py").write_text(FIRST_DERIVATIVE_ONLY)
    monkeypatch.delitem(sys.modules, "onlyonce", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("own_network")
def test_a_layer_without_a_second_derivative_is_named_before_the_training(tmp_path):
    with pytest.raises(UserError) as error:
        train(tmp_path / "run", *KEYS, epochs=1)
    message = str(error.value)
    assert message.startswith("probes=spectrum: layer block.doubling (Doubling) cannot be differentiated")
    assert "once_differentiable" in message
    assert "\n" not in message


@pytest.mark.usefixtures("own_network")
def test_an_operation_outside_of_the_layers_is_the_networks(tmp_path):
    source = FIRST_DERIVATIVE_ONLY.replace("self.head(self.block(", "Twice.apply(self.head(")
    (tmp_path / "onlyonce.py").write_text(source)
    with pytest.raises(UserError, match=r"^probes=spectrum: the network \(Net\) cannot be differentiated"):
        train(tmp_path / "run", *KEYS, epochs=1)


def test_too_many_images_are_out_of_memory(monkeypatch):
    def fail(self):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Hessian, "check", fail)
    with pytest.raises(OutOfMemory, match=r"^probe\.images takes more memory than the device has left"):
        Spectrum().check(make_moment(tiny_network(nn.Identity)).setup)


def test_a_network_that_can_be_differentiated_twice_has_no_such_layer():
    network = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True), nn.Linear(5, 3))
    assert undifferentiable_layer(network, torch.randn(6, 4)) is None


def test_an_error_of_another_kind_stays_as_it_is():
    class Failing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, logits):
            return logits.sum()

        @staticmethod
        @once_differentiable
        def backward(ctx, gradient):
            return gradient.expand(12, 3).clone()

    moment = make_moment(tiny_network(nn.Identity), loss=lambda logits, _: Failing.apply(logits).square())
    with pytest.raises(RuntimeError, match="once_differentiable"):
        Spectrum().check(moment.setup)


@pytest.mark.parametrize("norm", get_args(norms.NormName))
def test_every_norm_has_second_derivatives(norm, tmp_path):
    probe = "probes=[{_target_: bnexp.probes.spectrum.Spectrum, steps: 5, count: 2}]"
    keys = ("model=conv", f"model.norm={norm}", "model.widths=[4,8]", "probe.images=20")
    rows = read_probe(train(tmp_path / "run", *keys, probe, epochs=1), "spectrum")
    assert [row["rank"] for row in rows] == ["1", "2"]
    assert float(rows[0]["eigenvalue"]) > 0
