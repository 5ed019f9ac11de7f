"""The Hessian of a loss as a matrix that multiplies vectors, and its greatest eigenvalues (Lanczos)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bnexp.errors import UserError
from bnexp.probes.loss_function import LossFunction

BREAKDOWN = 1e-10  # a new direction that is shorter, relative to the eigenvalues, is rounding


class Hessian:
    """The second derivatives (P, P) of a loss at the network's parameters, all P of them as one vector.

    The matrix is never built: a product costs about two forward and two backward passes. Vectors are float64
    on the CPU; the network computes in the precision of its parameters. The gradient's graph stays in memory
    for all products, with the activations of all images at once. The images cannot be split into parts: batch
    norm takes its statistics over all of them, and the Hessian of the mean loss is then not the mean of the
    parts' Hessians.
    """

    def __init__(self, function: LossFunction) -> None:
        leaves = {name: value.detach().requires_grad_() for name, value in function.parameters.items()}
        self._leaves = list(leaves.values())
        with torch.enable_grad():
            self._gradients = torch.autograd.grad(
                function(leaves), self._leaves, create_graph=True, allow_unused=True, materialize_grads=True
            )

    @property
    def gradient(self) -> Tensor:
        """The gradient (P,)."""
        return _flat(self._gradients)

    def check(self) -> None:
        """Raises what autograd raises where an operation of the network has no second derivative.

        A product alone would not raise for a function that is marked ``once_differentiable``: autograd skips
        the operations that do not lead to the parameters, and takes such a function's gradient as constant.
        """
        gradients = [gradient for gradient in self._gradients if gradient.requires_grad]
        if gradients:
            torch.autograd.backward(gradients, [*map(torch.ones_like, gradients)], retain_graph=True)

    def __matmul__(self, vector: Tensor) -> Tensor:
        """The product (P,) with a vector (P,): the derivative of gradient · vector."""
        parts = vector.split([leaf.numel() for leaf in self._leaves])
        pairs = [
            (gradient, part.view_as(gradient).to(gradient))
            for gradient, part in zip(self._gradients, parts, strict=True)
            if gradient.requires_grad  # the loss is linear in the others
        ]
        if not pairs:
            return torch.zeros_like(vector)
        gradients, factors = zip(*pairs, strict=True)
        products = torch.autograd.grad(
            gradients, self._leaves, factors, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return _flat(products)


@dataclass(frozen=True)
class RitzPairs:
    """Approximate eigenpairs of a symmetric matrix (P, P), the greatest eigenvalue first.

    ``values`` (m,); ``vectors`` (m, m): row r times ``basis`` (m, P) is the unit eigenvector of rank r;
    ``residuals`` (m,): ||H v - lambda v||, so that an eigenvalue lies within that distance of lambda.
    """

    values: Tensor
    vectors: Tensor
    basis: Tensor
    residuals: Tensor

    def squared_cosines(self, vector: Tensor) -> Tensor:
        """The share (m,) of a vector's squared norm that lies along each eigenvector."""
        return (self.vectors @ (self.basis @ vector)).square() / vector.square().sum()


def lanczos(product: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> RitzPairs:
    """Eigenpairs of the symmetric matrix behind ``product`` from ``steps`` products (Lanczos 1950).

    Each new direction is made orthogonal to all before it, twice (full reorthogonalisation): without it,
    rounding repeats eigenvalues. The result has fewer than ``steps`` pairs where the directions span an
    invariant space before. ``start`` (P,) is any float64 vector but 0; the basis takes m · P · 8 bytes.
    Raises UserError for products that are not finite.
    """
    size = min(steps, len(start))
    basis = torch.zeros(size, len(start), dtype=torch.float64)
    diagonal, off_diagonal = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    basis[0] = start / start.norm()
    for step in range(size):
        image = product(basis[step])
        diagonal[step] = basis[step] @ image
        known = basis[: step + 1]
        for _ in range(2):
            image = image - known.T @ (known @ image)
        off_diagonal[step] = image.norm()
        if not off_diagonal[step].isfinite():
            raise UserError("the second derivatives of the loss are not finite numbers")
        scale = max(float(diagonal.abs().max()), float(off_diagonal.max()))
        if step + 1 == size or off_diagonal[step] <= BREAKDOWN * scale:
            size = step + 1
            break
        basis[step + 1] = image / off_diagonal[step]
    between = off_diagonal[: size - 1]
    matrix = diagonal[:size].diag() + between.diag(1) + between.diag(-1)
    values, columns = torch.linalg.eigh(matrix)
    residuals = off_diagonal[size - 1] * columns[-1].abs()
    return RitzPairs(values.flip(0), columns.T.flip(0), basis[:size], residuals.flip(0))


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten().cpu().double() for tensor in tensors])
