"""Functions of one and two variables, their known minima, and a function of the user's own.

A function takes one float64 tensor for each variable, all of one shape, and returns its value at each place:
the same code gives the value at a point and the picture's contours. The functions are those of Zhang et al.,
"Dive into Deep Learning" (2023), chapters 12.2 to 12.4; Rosenbrock's is of 1960.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bnexp.config.instantiate import import_target
from bnexp.config.schema import Component
from bnexp.config.validation import check_arguments
from bnexp.errors import UserError
from bnexp.training.blame import blamed_on


def square(x: Tensor) -> Tensor:
    """x^2"""
    return x**2


def cosh(x: Tensor, *, c: float) -> Tensor:
    """cosh(c x)"""
    return torch.cosh(c * x)


def wave(x: Tensor, *, c: float) -> Tensor:
    """x cos(c x)"""
    return x * torch.cos(c * x)


def cubic(x: Tensor) -> Tensor:
    """x^3"""
    return x**3


def tanh(x: Tensor) -> Tensor:
    """tanh(x)"""
    return torch.tanh(x)


def ellipse(x1: Tensor, x2: Tensor) -> Tensor:
    """x1^2 + 2 x2^2"""
    return x1**2 + 2 * x2**2


def saddle(x1: Tensor, x2: Tensor) -> Tensor:
    """x1^2 - x2^2"""
    return x1**2 - x2**2


def ripple(x1: Tensor, x2: Tensor) -> Tensor:
    """x1^2 + 0.5 cos(2 pi x2)"""
    return x1**2 + 0.5 * torch.cos(2 * math.pi * x2)


def rosenbrock(x1: Tensor, x2: Tensor) -> Tensor:
    """(1 - x1)^2 + 100 (x2 - x1^2)^2"""
    return (1 - x1) ** 2 + 100 * (x2 - x1**2) ** 2


Point = tuple[float, ...]
MAX_WAVE = 1e6  # beyond it the minima of x cos(c x) are not computed


def _wave_minimum(point: Point, c: float) -> Point | None:
    """The local minimum of x cos(c x) that is nearest to ``point``.

    With u = |c| x the minima are among the roots of cos u = u sin u, one in each interval of length pi; for
    u > 0 they are the second, fourth, ... root, for u < 0 the first, third, ... one. None far out, where
    rounding hides them.
    """
    if c == 0:
        raise UserError("function.c=0: x cos(0) is a straight line, which has no minimum")
    u = abs(c) * point[0]
    if abs(u) > MAX_WAVE:
        return None
    k = int(abs(u) / math.pi)
    numbers = {0, 1, *range(max(0, k - 2), k + 3)}  # of the roots near u, and of the first ones
    minima = [_stationary(k) if k % 2 else -_stationary(k) for k in sorted(numbers)]
    return (min(minima, key=lambda root: abs(root - u)) / abs(c),)


def _stationary(k: int) -> float:
    """The u between k pi and (k + 1/2) pi where the derivative of u cos u, cos u - u sin u, is 0."""
    from scipy.optimize import brentq

    return float(
        brentq(lambda u: math.cos(u) - u * math.sin(u), k * math.pi, (k + 0.5) * math.pi, xtol=1e-14)
    )


# The nearest local minimum to a point, of the functions that have one; ``keys`` are those of the function.
MINIMA: dict[Callable[..., Tensor], Callable[[Point, Mapping[str, float]], Point | None]] = {
    square: lambda point, keys: (0.0,),
    cosh: lambda point, keys: (0.0,),
    wave: lambda point, keys: _wave_minimum(point, keys["c"]),
    ellipse: lambda point, keys: (0.0, 0.0),
    ripple: lambda point, keys: (0.0, math.floor(point[1]) + 0.5),
    rosenbrock: lambda point, keys: (1.0, 1.0),
}


@dataclass(frozen=True)
class PlainFunction:
    """A function as an objective: the loss of every step is the value itself."""

    function: Callable[..., Tensor]
    keys: Mapping[str, float]
    variables: tuple[str, ...]
    name: str  # the function's target, for messages

    steps_per_epoch = 1

    def loss(self, point: Tensor, step: int) -> Tensor:
        """The value at ``point`` (d,), a tensor without dimensions, in every step."""
        return self.value(point)

    def value(self, point: Tensor) -> Tensor:
        """The value at ``point`` (d,). Raises UserError where the user's own function fails."""
        with blamed_on(f"function._target_={self.name}", f"fails at {_format(point)}"):
            value = self.function(*point.unbind(), **self.keys)
            if not isinstance(value, Tensor) or value.numel() != 1:
                raise TypeError("must return a tensor with one number, computed from its arguments")
            return value.reshape(())

    def grid(self, *coordinates: Tensor) -> Tensor:
        """The values at many places, of the shape of each coordinate."""
        try:
            values = self.function(*coordinates, **self.keys)
            if values.shape == coordinates[0].shape:
                return values
        except Exception:  # a user's own function may take single numbers only
            pass
        places = torch.stack([coordinate.flatten() for coordinate in coordinates], 1)
        return torch.stack([self.value(place) for place in places]).reshape(coordinates[0].shape)

    def minimum(self, point: Point) -> Point | None:
        """The known local minimum that is nearest to ``point``; None if none is known."""
        nearest = MINIMA.get(self.function)
        return nearest(point, self.keys) if nearest else None


def make_function(component: Component) -> PlainFunction:
    """The function that a configuration names. Its variables are the parameters without a key or a default.

    Raises UserError for a key that it does not take, and for a function without variables.
    """
    function = import_target(component)
    parameters = inspect.signature(function).parameters
    variables = tuple(
        name
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
        and name not in component.keys
    )
    keys = check_arguments(function, component.keys, "function", caller_arguments=variables)
    name = str(component.target)
    if not variables:
        raise UserError(f"function._target_={name}: must take a number for each variable, as in f(x1, x2)")
    return PlainFunction(function, keys, variables, name)


def _format(point: Tensor) -> str:
    return ", ".join(f"{coordinate:.6g}" for coordinate in point.tolist())
