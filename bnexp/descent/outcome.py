"""How a descent ended: its last point, and in a sentence whether it converged, oscillates or diverges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from bnexp.descent.functions import Point
from bnexp.descent.path import DescentPath, PathRow
from bnexp.descent.regression import Regression

FLAT = 0.01  # a path that is shorter than this, relative to where it began, has hardly moved
VANISHING = 0.01  # a gradient norm below it explains why
CURVED = 1e-4  # a smaller eigenvalue, relative to the largest, is taken for 0
STATIONARY = 1e-6  # a gradient this small, absolute or relative to the first, is taken for 0


@dataclass(frozen=True)
class Outcome:
    """``state`` is converged, underway, oscillates, diverges or stalls; ``sentence`` says it in words.

    ``distance`` and ``gap`` are those of the last point and its value from the nearest known minimum; None
    where none is known. ``steps_to_tolerance``: the steps after which the gap stays within the tolerance.
    """

    state: str
    sentence: str
    distance: float | None
    gap: float | None
    steps_to_tolerance: int | None
    epochs_to_tolerance: float | None  # the same in passes over the examples; of a plain function in steps


def judge(path: DescentPath, tolerance: float) -> Outcome:
    """The outcome of a descent; ``tolerance`` is the gap in value that counts as converged."""
    last = path.last
    minimum = path.objective.minimum(last.point)
    distance = gap = None
    if minimum is not None:
        distance = math.dist(last.point, minimum)
        gap = last.value - value_at(path, minimum)
    row = first_within(path, tolerance)
    steps = None if row is None else row.step
    state = _state(path, steps)
    sentence = _sentence(state, path, distance, steps, tolerance)
    return Outcome(state, sentence, distance, gap, steps, None if row is None else row.epoch)


def value_at(path: DescentPath, point: Point) -> float:
    """The objective's value at any point."""
    return float(path.objective.value(torch.tensor(point, dtype=torch.float64)))


def first_within(path: DescentPath, tolerance: float) -> PathRow | None:
    """The first row from which on each value is within ``tolerance`` of the nearest known minimum's."""
    first: PathRow | None = None
    lowest: dict[Point, float] = {}  # the value at each minimum
    for row in path.rows:
        minimum = path.objective.minimum(row.point) if row.is_finite else None
        if minimum is not None and minimum not in lowest:
            lowest[minimum] = value_at(path, minimum)
        if minimum is None or row.value - lowest[minimum] > tolerance:
            first = None
        elif first is None:
            first = row
    return first


def _state(path: DescentPath, steps: int | None) -> str:
    rows, last = path.finite_rows, path.last
    if not path.rows[-1].is_finite:
        return "diverges"
    if steps is not None or last.gradient_norm <= STATIONARY * max(1.0, rows[0].gradient_norm):
        return "converged"
    lengths = _step_lengths(rows)
    if sum(lengths) <= FLAT * max(1.0, math.hypot(*rows[0].point)):
        return "stalls"
    quarter = max(1, len(lengths) // 4)
    is_growing = sum(lengths[-quarter:]) > sum(lengths[:quarter])
    if is_growing and last.gradient_norm > rows[0].gradient_norm:
        return "diverges"
    is_shrinking = lengths[-1] <= 0.5 * lengths[len(lengths) // 2]
    if _turns_back(rows) and not is_shrinking:
        return "oscillates"
    return "underway"


def _step_lengths(rows: Sequence[PathRow]) -> list[float]:
    return [math.dist(before.point, after.point) for before, after in pairwise(rows)]


def _turns_back(rows: Sequence[PathRow]) -> bool:
    """Whether most steps in the second half of a path turn by more than 90° from the step before."""
    moves = [
        [b - a for a, b in zip(before.point, after.point, strict=True)]
        for before, after in pairwise(rows[len(rows) // 2 :])
    ]
    products = [sum(a * b for a, b in zip(*pair, strict=True)) for pair in pairwise(moves)]
    return sum(product < 0 for product in products) > len(products) / 2


def _sentence(
    state: str, path: DescentPath, distance: float | None, steps: int | None, tolerance: float
) -> str:
    first, last = path.rows[0], path.last
    place = "" if distance is None else f", {distance:.3g} from the minimum"
    gradient = f"the gradient is {last.gradient_norm:.2g}"
    if state == "diverges":
        if not path.rows[-1].is_finite:
            return f"diverges: after step {path.rows[-1].step} the value is no finite number"
        direction = "rises" if last.value > first.value else "falls"
        change = f"{direction} from {first.value:.4g} to {last.value:.4g}"
        return f"diverges: the steps grow, and the value {change}"
    if state == "converged" and steps is not None:
        return f"converged to {_kind(path)}: within {tolerance:g} of its value from step {steps} on"
    if state == "converged":
        return f"converged to {_kind(path)}: {gradient} there"
    if state == "stalls":
        size = f"{last.gradient_norm:.2g}"
        reason = f"the learning rate is small (the gradient is {size})"
        if last.gradient_norm < VANISHING:
            reason = f"the gradient vanishes ({size})"
        return f"stalls: hardly moves in {last.step} steps, because {reason}{place}"
    if state == "oscillates" and path.is_stochastic:
        return f"oscillates: the noise of the gradient keeps it moving{place}"
    if state == "oscillates":
        return f"oscillates: it goes from side to side, and the steps do not shrink{place}"
    manner = ", from side to side" if _turns_back(path.finite_rows) and not path.is_stochastic else ""
    return f"has not converged after {last.step} steps{manner}: {gradient}{place}"


def _kind(path: DescentPath) -> str:
    """What the last point is: a known minimum, or by the curvature a minimum, a maximum, a saddle point."""
    eigenvalues = path.hessian
    if isinstance(path.objective, Regression):
        return "the least-squares solution"
    if not eigenvalues:
        return "a stationary point"
    label = "second derivative" if len(eigenvalues) == 1 else "eigenvalues"
    curvature = f"{label} {', '.join(f'{value:.4g}' for value in eigenvalues)}"
    limit = CURVED * max(1.0, *map(abs, eigenvalues))
    if min(eigenvalues) > limit:
        return "a minimum"
    if max(eigenvalues) < -limit:
        return f"a maximum ({curvature})"
    if min(eigenvalues) < -limit and max(eigenvalues) > limit:
        return f"a saddle point ({curvature})"
    return f"a flat point ({curvature})"
