"""Each formula of the literature against a simulation that does not use it."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from bnexp.report.measurements import theory


@pytest.mark.parametrize(("batch_size", "growth"), [(32, 1.522), (64, 1.493), (128, 1.480)])
def test_gradient_growth_has_the_published_values(batch_size, growth):
    assert theory.gradient_growth(batch_size) == pytest.approx(growth, abs=5e-4)


def test_gradient_growth_of_large_batches():
    assert theory.gradient_growth(10**7) == pytest.approx(math.pi / (math.pi - 1), rel=1e-6)
    assert theory.gradient_growth(64, "linear") == pytest.approx(62 / 61)


def simulated_growth(batch_size: int, activation, *, width=600, depth=30, draws=6) -> float:
    """The growth of the squared gradient in a deep network with batch norm, in float64.

    exp of the slope over the layers above the tenth, mean over random weights.
    """
    slopes = []
    for draw in range(draws):
        stream = torch.Generator().manual_seed(draw)
        values, outputs = torch.randn(batch_size, width, generator=stream, dtype=torch.float64), []
        for _ in range(depth):
            weight = torch.randn(width, width, generator=stream, dtype=torch.float64) / width**0.5
            z = (values @ weight).requires_grad_()
            outputs.append(z)
            values = activation((z - z.mean(0)) / z.var(0, correction=0).sqrt())
        noise = torch.randn(values.shape, generator=stream, dtype=torch.float64)
        gradients = torch.autograd.grad((values * noise).sum(), outputs)
        logs = np.array([math.log(gradient.square().sum()) for gradient in gradients])
        slopes.append(np.polyfit(np.arange(10, depth), logs[10:], 1)[0])
    return math.exp(-np.mean(slopes))


@pytest.mark.parametrize("batch_size", [8, 32])
def test_gradient_growth_is_that_of_a_simulated_network(batch_size):
    measured = simulated_growth(batch_size, torch.relu)
    assert theory.gradient_growth(batch_size) == pytest.approx(measured, rel=0.02)


def test_gradient_growth_is_that_of_a_simulated_linear_network():
    measured = simulated_growth(8, lambda x: x)
    assert theory.gradient_growth(8, "linear") == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize("arguments", [(3,), (32, "tanh")])
def test_gradient_growth_has_no_formula_for_these(arguments):
    with pytest.raises(ValueError, match=r"at least 4 images, not 3|no formula for tanh"):
        theory.gradient_growth(*arguments)


@pytest.mark.parametrize("keep_probability", [0.5, 0.8, 1.0])
def test_dropout_variance_is_that_of_sampled_units(keep_probability):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=12)
    x = rng.normal(loc=1, scale=rng.uniform(0.5, 2, 12), size=(400_000, 12))
    mask = (rng.random(x.shape) < keep_probability) / keep_probability
    added = (x * mask @ weights).var() - (x @ weights).var()
    expected = theory.dropout_variance(keep_probability, weights, (x**2).mean(0))
    assert expected == pytest.approx(added, rel=0.02, abs=1e-12)


@pytest.mark.parametrize("keep_probability", [0.5, 0.8])
def test_dropout_variance_ratio_is_that_of_sampled_inputs(keep_probability):
    rng = np.random.default_rng(0)
    x = rng.normal(size=400_000)
    mask = (rng.random(x.shape) < keep_probability) / keep_probability
    assert theory.dropout_variance_ratio(keep_probability) == pytest.approx(
        (x * mask).var() / x.var(), rel=0.02
    )


@pytest.mark.parametrize("value", [0, -0.1, 1.1, math.nan])
def test_a_keep_probability_is_a_probability(value):
    with pytest.raises(ValueError, match=r"^the keep probability must be"):
        theory.dropout_variance_ratio(value)
    with pytest.raises(ValueError, match=r"^the keep probability must be"):
        theory.dropout_variance(value, [1], [1])


@pytest.mark.parametrize("lr", [0.1, 2 / 60])
def test_gradient_descent_shrinks_below_the_stability_limit_and_grows_above(lr):
    def last_distance(eigenvalue: float) -> float:
        x = 1.0
        for _ in range(200):
            x -= lr * eigenvalue * x
        return abs(x)

    limit = theory.stability_limit(lr)
    assert last_distance(0.99 * limit) < 0.1
    assert last_distance(1.01 * limit) > 10


@pytest.mark.parametrize(("momentum", "steps"), [(0.1, 15), (0.1, 0), (0.25, 4)])
def test_initial_share_is_that_of_a_batch_norm(momentum, steps):
    norm = nn.BatchNorm1d(1, momentum=momentum).double()
    norm.running_mean.fill_(5.0)
    for _ in range(steps):
        norm(torch.tensor([[-1.0], [1.0]], dtype=torch.float64))  # a batch of mean 0
    assert theory.initial_share(momentum, steps) == pytest.approx(float(norm.running_mean) / 5, rel=1e-12)


def test_initial_share_after_an_epoch_of_large_batches():
    assert theory.initial_share(0.1, 60_000 // 4096 + 1) == pytest.approx(0.21, abs=0.005)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_branch_share_is_that_of_simulated_residual_blocks(batch_norm):
    rng = np.random.default_rng(0)
    width, images, blocks = 500, 400, 8
    values, shares = rng.normal(size=(images, width)), []
    for _ in range(blocks):
        branch = values
        if batch_norm:
            branch = (branch - branch.mean(0)) / branch.std(0)
        weights = rng.normal(size=(width, width)) * math.sqrt(1 / width)
        branch = branch @ weights
        output = values + branch
        shares.append(branch.var(0).mean() / output.var(0).mean())
        values = output
    expected = [theory.branch_share(block, batch_norm=batch_norm) for block in range(1, blocks + 1)]
    assert shares == pytest.approx(expected, rel=0.05)


def test_blocks_count_from_1():
    with pytest.raises(ValueError, match=r"^blocks count from 1, not 0$"):
        theory.branch_share(0, batch_norm=False)


@pytest.mark.parametrize(("images", "width"), [(8, 64), (8, 256), (32, 256)])
def test_orthogonality_floor_is_that_of_a_simulated_network(images, width):
    stream, squares = torch.Generator().manual_seed(0), []
    values = torch.randn(images, width, generator=stream, dtype=torch.float64) + 1
    for layer in range(400):
        z = values @ torch.randn(width, width, generator=stream, dtype=torch.float64) / width**0.5
        values = (z - z.mean(0)) / z.std(0, correction=0)
        gram = values @ values.T
        if layer >= 80:
            squares.append((gram / gram.trace() - torch.eye(images) / images).square().sum())
    measured = math.sqrt(sum(squares) / len(squares))
    assert theory.orthogonality_floor(images, width) == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize(("images", "width"), [(2, 100), (32, 127)])
def test_orthogonality_floor_needs_small_deviations(images, width):
    with pytest.raises(ValueError, match=r"^the formula needs 3 images and 4 features an image"):
        theory.orthogonality_floor(images, width)
