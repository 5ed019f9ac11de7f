"""The functions: their formulas, their known minima, and functions of the user's own."""

from __future__ import annotations

import math

import pytest
import torch

from bnexp.config.schema import Component
from bnexp.descent.functions import make_function
from bnexp.errors import UserError
from helpers.descents import config_of

# The value at (2) or at (2, 3), worked out from the formulas.
VALUES = {
    "square": 4.0,
    "cosh": math.cosh(0.5 * 2),
    "wave": 2 * math.cos(0.3 * math.pi),
    "cubic": 8.0,
    "tanh": math.tanh(2),
    "ellipse": 4 + 2 * 9.0,
    "saddle": 4 - 9.0,
    "ripple": 4 + 0.5 * math.cos(6 * math.pi),
    "rosenbrock": (1 - 2) ** 2 + 100 * (3 - 4) ** 2.0,
}
WITH_MINIMUM = ("square", "cosh", "wave", "ellipse", "ripple", "rosenbrock")


def function_of(name: str):
    return make_function(config_of(f"function={name}").function)


@pytest.mark.parametrize("name", VALUES)
def test_the_value_is_that_of_the_formula(name):
    function = function_of(name)
    point = torch.tensor([2.0, 3.0][: len(function.variables)], dtype=torch.float64)
    assert function.value(point).item() == pytest.approx(VALUES[name], abs=1e-12)


@pytest.mark.parametrize("name", VALUES)
def test_the_grid_has_the_value_at_each_place(name):
    function = function_of(name)
    points = torch.randn(7, len(function.variables), dtype=torch.float64)
    expected = torch.stack([function.value(point) for point in points])
    torch.testing.assert_close(function.grid(*points.unbind(1)), expected)


@pytest.mark.parametrize("x", [-30.0, -7.3, -1.0, -0.1, 0.0, 0.4, 2.0, 10.0, 26.8])
@pytest.mark.parametrize("name", WITH_MINIMUM)
def test_the_known_minimum_has_no_gradient_and_a_positive_curvature(name, x):
    function = function_of(name)
    minimum = function.minimum((x, x)[: len(function.variables)])
    point = torch.tensor(minimum, dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(function.value, point)
    assert gradient.abs().max() < 1e-9
    assert torch.linalg.eigvalsh(torch.autograd.functional.hessian(function.value, point)).min() > 0.1


@pytest.mark.parametrize("c", [0.2, -0.7, 3.0])
@pytest.mark.parametrize("x", [-11.0, -0.2, 0.3, 5.0, 40.0, 3e5])
def test_no_local_minimum_of_the_wave_is_nearer(c, x):
    function = make_function(config_of("function=wave", f"function.c={c}").function)
    (nearest,) = function.minimum((x,))
    reach = abs(nearest - x) * 0.999
    places = torch.linspace(x - reach, x + reach, 20001, dtype=torch.float64)
    values = function.grid(places)
    is_minimum = (values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])
    assert not is_minimum.any()


@pytest.mark.parametrize("x", [1e9, -1e18, 1e300])
def test_far_out_no_minimum_of_the_wave_is_known(x):
    assert function_of("wave").minimum((x,)) is None


@pytest.mark.parametrize("name", ["cubic", "tanh", "saddle"])
def test_functions_without_a_minimum_name_none(name):
    assert function_of(name).minimum((0.0, 0.0)) is None


def branch(x):
    return x**2 if x > 0 else -x


def with_keys(x1, x2, a: float, *, b: float = 2.0):
    return a * x1 + b * x2


def custom(name: str, **keys):
    return make_function(Component("function", f"{__name__}.{name}", keys))


def test_the_variables_are_the_parameters_without_a_key_or_a_default():
    function = custom("with_keys", a=3.0)
    assert function.variables == ("x1", "x2")
    assert function.value(torch.tensor([1.0, 1.0])).item() == 5
    assert custom("with_keys").variables == ("x1", "x2", "a")


def test_a_function_that_takes_single_numbers_only_has_a_grid_too():
    places = torch.tensor([-2.0, 3.0], dtype=torch.float64)
    assert custom("branch").grid(places).tolist() == [2, 9]


def test_a_key_that_the_function_does_not_take_is_an_error():
    with pytest.raises(UserError, match=r"function\.c: unknown key"):
        custom("branch", c=1.0)
