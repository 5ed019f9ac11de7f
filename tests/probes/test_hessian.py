"""Products with the Hessian and Lanczos, against the whole matrix and its eigenvalues in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bnexp.errors import UserError
from bnexp.probes.hessian import Hessian, lanczos
from bnexp.probes.loss_function import LossFunction
from helpers.probe_moments import make_moment, tiny_network

NORMS = [nn.Identity, nn.BatchNorm1d]


def whole_hessian(moment):
    """The Hessian (P, P) by torch.func, and the gradient (P,)."""
    network = moment.network.train()
    shapes = {name: value.shape for name, value in network.named_parameters()}

    def loss(vector):
        parts = vector.split([shape.numel() for shape in shapes.values()])
        values = {name: part.view(shapes[name]) for name, part in zip(shapes, parts, strict=True)}
        buffers = {name: value.clone() for name, value in network.named_buffers()}
        logits = torch.func.functional_call(network, {**buffers, **values}, (moment.images,))
        return moment.setup.loss(logits, moment.labels)

    point = nn.utils.parameters_to_vector(network.parameters()).detach()
    return torch.autograd.functional.hessian(loss, point), torch.autograd.functional.jacobian(loss, point)


def hessian_of(moment):
    moment.network.train()
    return Hessian(LossFunction(moment.network, moment.setup.loss, moment.images, moment.labels))


@pytest.mark.parametrize("norm", NORMS)
def test_products_and_gradient_are_those_of_the_whole_matrix(norm):
    moment = make_moment(tiny_network(norm))
    matrix, gradient = whole_hessian(moment)
    hessian = hessian_of(moment)
    torch.testing.assert_close(hessian.gradient, gradient, rtol=1e-10, atol=1e-12)
    products = torch.stack([hessian @ vector for vector in torch.eye(len(matrix), dtype=torch.float64)])
    torch.testing.assert_close(products, matrix, rtol=1e-8, atol=1e-10)


def test_a_loss_that_is_linear_in_the_parameters_has_a_hessian_of_zeros():
    network = nn.Linear(4, 3).double()
    moment = make_moment(network, loss=lambda logits, labels: logits.sum())
    hessian = hessian_of(moment)
    vector = torch.ones_like(hessian.gradient)
    assert torch.equal(hessian @ vector, torch.zeros_like(vector))
    pairs = lanczos(hessian.__matmul__, vector, 5)
    assert pairs.values.tolist() == [0]


def symmetric(size, eigenvalues):
    stream = torch.Generator().manual_seed(0)
    columns, _ = torch.linalg.qr(torch.randn(size, size, generator=stream, dtype=torch.float64))
    return columns @ torch.diag(eigenvalues) @ columns.T, columns


def test_lanczos_over_the_whole_space_gives_every_eigenvalue_once():
    values = torch.linspace(-3, 40, 60, dtype=torch.float64)
    matrix, _ = symmetric(60, values)
    start = torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pairs = lanczos(matrix.__matmul__, start, 100)
    torch.testing.assert_close(pairs.values, values.flip(0), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(pairs.basis @ pairs.basis.T, torch.eye(60, dtype=torch.float64))


def test_lanczos_ends_in_an_invariant_space():
    values = torch.zeros(50, dtype=torch.float64)
    values[:3] = torch.tensor([7.0, 5.0, -2.0])
    matrix, columns = symmetric(50, values)
    start = torch.ones(50, dtype=torch.float64)
    pairs = lanczos(matrix.__matmul__, start, 20)
    torch.testing.assert_close(
        pairs.values, torch.tensor([7.0, 5.0, 0, -2.0], dtype=torch.float64), rtol=1e-10, atol=1e-10
    )
    shares = (columns[:, :2].T @ start).square() / 50
    torch.testing.assert_close(pairs.squared_cosines(start)[:2], shares, rtol=1e-8, atol=1e-10)


def test_the_residual_of_few_steps_is_that_of_the_vectors_and_bounds_the_error():
    values = torch.logspace(0, -2, 200, dtype=torch.float64)
    values[0] = 30
    matrix, _ = symmetric(200, values)
    start = torch.randn(200, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    pairs = lanczos(matrix.__matmul__, start, 12)
    vectors = pairs.vectors @ pairs.basis
    residuals = (vectors @ matrix - pairs.values[:, None] * vectors).norm(dim=1)
    torch.testing.assert_close(pairs.residuals, residuals, rtol=1e-6, atol=1e-10)
    errors = (pairs.values[:, None] - values).abs().min(1).values
    assert (errors <= pairs.residuals + 1e-9).all()
    assert pairs.residuals[0] < 1e-6 < 1e-3 < pairs.residuals[5]  # the greatest eigenvalue converges first


def test_lanczos_refuses_numbers_that_are_not_finite():
    with pytest.raises(UserError, match="not finite"):
        lanczos(lambda vector: vector * float("nan"), torch.ones(3, dtype=torch.float64), 2)
