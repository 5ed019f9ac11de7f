r"""Newton's method, and its diagonal, as torch optimizers.

Both use the second derivatives of the loss. Near a point x, with gradient g and Hessian H (the matrix of the
second derivatives), Taylor's formula is

    f(x + d) = f(x) + g^T d + d^T H d / 2 + ...

Its right side is stationary where H d = -g. That d is Newton's step. Where H has a negative eigenvalue the
step leads to a maximum or a saddle, not to a minimum: see Boyd and Vandenberghe, "Convex Optimization"
(2004), section 9.5.

The closure that ``step`` gets computes the gradient so that it can be differentiated again:

    def closure():
        loss = f(x)
        (x.grad,) = torch.autograd.grad(loss, x, create_graph=True)
        return loss
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from bnexp.errors import UserError

Closure = Callable[[], Any]


class SingularHessian(UserError):
    """Newton's step does not exist: an eigenvalue of the Hessian is 0."""


class HessianOptimizer(Optimizer, ABC):
    """x <- x - lr * d, with a direction d that follows from the gradient and the Hessian."""

    needs_hessian = True

    def __init__(self, params: Any, lr: float = 1.0) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Closure) -> Any:  # type: ignore[override]
        """One step. ``closure`` returns the loss, and leaves gradients that can be differentiated."""
        parameters = _parameters(self)
        with torch.enable_grad():
            loss = closure()
            gradient = _flat([parameter.grad for parameter in parameters])  # g: (d,)
            hessian = hessian_of(gradient, parameters)  # H: (d, d)
        _move(parameters, self.direction(gradient, hessian), self.param_groups[0]["lr"])
        return loss

    @abstractmethod
    def direction(self, gradient: Tensor, hessian: Tensor) -> Tensor:
        """The direction (d,) of a step, from g (d,) and H (d, d). Raises SingularHessian."""


class Newton(HessianOptimizer):
    """x <- x - lr * H^(-1) g, with the Hessian H of all parameters together.

    A quadratic function is at its minimum after one step with lr = 1, however elongated it is. A smaller lr
    damps the step, where the function is not quadratic. The cost grows with the cube of the number of
    parameters: this is for a few hundred. Raises SingularHessian.
    """

    def direction(self, gradient: Tensor, hessian: Tensor) -> Tensor:
        """H^(-1) g; not a number where H has an element that is not finite."""
        if not hessian.isfinite().all():
            return torch.full_like(gradient, torch.nan)
        eigenvalues = torch.linalg.eigvalsh(hessian)
        smallest = eigenvalues[eigenvalues.abs().argmin()]
        if smallest.abs() <= len(gradient) * torch.finfo(gradient.dtype).eps * eigenvalues.abs().max():
            raise SingularHessian(
                f"optimizer=newton: the Hessian is singular here, with the eigenvalue {smallest.item():.3g}:"
                " no Newton step exists"
            )
        return torch.linalg.solve(hessian, gradient)


class Preconditioned(HessianOptimizer):
    """x_i <- x_i - lr * g_i / |H_ii|: each parameter has a learning rate of its own, from its curvature.

    It costs little more memory than the gradient, and undoes the different scales of the parameters. It
    does not see that parameters act together (the other elements of H). The magnitude |H_ii| makes the step
    go downhill where the curvature is negative. Raises SingularHessian where an H_ii is 0.
    """

    def direction(self, gradient: Tensor, hessian: Tensor) -> Tensor:
        curvature = hessian.diagonal().abs()  # |H_ii|: (d,)
        if curvature.min() == 0:
            raise SingularHessian(
                "optimizer=preconditioned: the diagonal of the Hessian is singular here, with the eigenvalue"
                " 0: no step exists"
            )
        return gradient / curvature


def hessian_of(gradient: Tensor, parameters: list[Tensor]) -> Tensor:
    """The Hessian (d, d), row after row: row i is the gradient of the i-th element of ``gradient`` (d,)."""
    if not gradient.requires_grad:  # of a linear function: the gradient is constant
        return gradient.new_zeros(len(gradient), len(gradient))
    rows = [
        _flat(
            torch.autograd.grad(
                element, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        )
        for element in gradient
    ]
    return torch.stack(rows).detach()


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _move(parameters: list[Tensor], direction: Tensor, lr: float) -> None:
    """Takes lr * direction off the parameters; ``direction`` (d,) has them one after the other."""
    parts = direction.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.sub_(lr * part.reshape(parameter.shape))
