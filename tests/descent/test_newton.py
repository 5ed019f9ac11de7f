"""Newton's method and its diagonal: steps held against linear algebra, and the errors."""

from __future__ import annotations

import pytest
import torch

from bnexp.descent.newton import Newton, Preconditioned, SingularHessian, hessian_of


def closure_of(function, *parameters):
    def closure():
        loss = function(*parameters)
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters, create_graph=True), strict=True
        ):
            parameter.grad = gradient
        return loss

    return closure


def parameter(values):
    return torch.nn.Parameter(torch.tensor(values, dtype=torch.float64))


def quadratic():
    """A positive definite matrix A (5, 5), a vector b, and the minimum of x^T A x / 2 - b^T x."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    matrix = root @ root.T + torch.eye(5, dtype=torch.float64)
    vector = torch.randn(5, generator=generator, dtype=torch.float64)
    return matrix, vector, torch.linalg.inv(matrix) @ vector


@pytest.mark.parametrize("lr", [1.0, 0.3])
def test_a_newton_step_goes_the_share_lr_of_the_line_to_the_minimum_of_a_quadratic(lr):
    matrix, vector, minimum = quadratic()
    x = parameter([3.0, -1, 2, 0, 5])
    expected = x.detach() + lr * (minimum - x.detach())
    Newton([x], lr=lr).step(closure_of(lambda x: x @ matrix @ x / 2 - vector @ x, x))
    torch.testing.assert_close(x.detach(), expected)


def test_newton_sees_several_parameters_as_one_vector():
    matrix, vector, minimum = quadratic()
    first, second = parameter([[3.0, -1]]), parameter([2.0, 0, 5])

    def function(first, second):
        x = torch.cat([first.flatten(), second])
        return x @ matrix @ x / 2 - vector @ x

    Newton([first, second]).step(closure_of(function, first, second))
    torch.testing.assert_close(torch.cat([first.flatten(), second]).detach(), minimum)


def test_the_preconditioned_step_divides_by_the_diagonal():
    matrix, vector, _ = quadratic()
    x = parameter([3.0, -1, 2, 0, 5])
    expected = x.detach() - 0.5 * (matrix @ x.detach() - vector) / matrix.diagonal()
    Preconditioned([x], lr=0.5).step(closure_of(lambda x: x @ matrix @ x / 2 - vector @ x, x))
    torch.testing.assert_close(x.detach(), expected)


def test_the_preconditioned_step_goes_downhill_where_the_curvature_is_negative():
    x = parameter([1.0])
    Preconditioned([x], lr=0.1).step(closure_of(lambda x: -(x**2).sum(), x))
    assert x.item() > 1  # Newton would go to the maximum at 0


def test_a_constant_gradient_has_a_hessian_of_zeros():
    x = parameter([1.0, 2.0])
    gradient = torch.autograd.grad((3 * x).sum(), x, create_graph=True)[0]
    assert hessian_of(gradient, [x]).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("optimizer", "function", "start", "eigenvalue"),
    [
        (Newton, lambda x: (x**3).sum(), [0.0], "the eigenvalue 0:"),
        (Newton, lambda x: (x[0] + x[1]) ** 2, [1.0, 2.0], r"the eigenvalue (0|-?\d\.?\d*e-\d+):"),
        (Newton, lambda x: x.sum(), [1.0], "the eigenvalue 0:"),
        (Preconditioned, lambda x: x[0] ** 2 + x[1], [1.0, 1.0], "the eigenvalue 0:"),
    ],
)
def test_a_singular_hessian_is_one_line_with_the_eigenvalue_and_moves_nothing(
    optimizer, function, start, eigenvalue
):
    x = parameter(start)
    with pytest.raises(SingularHessian, match=eigenvalue):
        optimizer([x], lr=1.0).step(closure_of(function, x))
    assert x.tolist() == start


def test_a_hessian_that_is_not_finite_gives_no_point():
    x = parameter([1e200])
    Newton([x]).step(closure_of(lambda x: (x**4).sum(), x))
    assert x.isnan().all()
