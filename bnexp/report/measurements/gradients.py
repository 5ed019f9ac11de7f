"""The probe ``gradients``: how the gradient grows with depth, and how heavy its tails are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnexp.report.measurements.measurement import (
    Arm,
    Curve,
    Measurement,
    Number,
    Panel,
    compare_sentences,
    comparisons,
    curve_over_seeds,
    estimate,
    is_batch_norm_against_other,
)
from bnexp.report.measurements.theory import gradient_growth
from bnexp.report.read.probe_tables import Cell, ProbeTable

MIN_DEPTH = 4  # hidden layers for a growth
FIRST_LAYERS = 10  # left out of the growth: there the activations still depend on the images
SOURCE = "Yang et al. 2019, equation 25"
INIT_VARIANCE = {"default": 1 / 3, "kaiming": 2.0, "lecun": 1.0}  # of the weights, times fan_in
MEAN_SLOPE_SQUARE = {"relu": 0.5, "linear": 1.0}  # of the activation function
TAILS = {"abs_p50": 0.5, "abs_p90": 0.1, "abs_p99": 0.01, "abs_p999": 0.001}  # share of greater values


def read_gradients(arms: Sequence[Arm]) -> Measurement:
    """Growth by depth beside the theory, and the tails of the middle layer, both at the first step."""
    numbers = [*filter(None, map(_growth_number, arms))]
    sentences = [_growth_sentence(number) for number in numbers]
    for arm, baseline in comparisons(arms):
        has_claim = is_batch_norm_against_other(arm, baseline)
        for quantity, value in (("Kurtosis", _kurtosis), ("Greatest over median value", _max_over_median)):
            sentences += compare_sentences(
                f"{quantity} of the middle layer's gradient at the first step",
                value,
                (arm, baseline),
                claim="smaller" if has_claim else "",
                source="Bjorck et al. (2018)",
            )
    tails = Panel(
        "values of the middle layer's gradient",
        "absolute value / median",
        "share of greater values",
        [_tail_curve(arm) for arm in arms],
        x_scale="log",
        y_scale="log",
    )
    curves = [curve_over_seeds(arm, _relative_squares) for arm in arms]
    if max((len(curve.x) for curve in curves), default=0) < 2:  # one hidden layer has no depth to show
        caption = (
            "At the first measured step: the gradient of the loss with respect to the middle layer's weights."
        )
        return Measurement(
            "gradients", "How heavy are the gradient's tails?", sentences, numbers, [tails], caption
        )
    growth = Panel("gradient by depth", "layer", "squared norm, last hidden layer = 1", curves, y_scale="log")
    return Measurement(
        "gradients",
        "How does the gradient change with depth?",
        sentences,
        numbers,
        [growth, tails],
        "At the first measured step. Left: mean over images of the squared norm of a random gradient of the"
        " logits, at each layer's output before its norm. Right: the gradient of the loss with respect to the"
        " middle layer's weights. Bands: least to greatest seed.",
    )


def growth_per_layer(table: ProbeTable) -> float:
    """By which factor the squared gradient grows from a layer to the one below, at the first measured step.

    It is exp of the slope of its logarithm over the hidden layers, without the first ones. nan where there
    are too few.
    """
    squares = _hidden_squares(table)
    first = min(FIRST_LAYERS, len(squares) // 3)
    points = [(depth, math.log(value)) for depth, value in enumerate(squares) if depth >= first and value > 0]
    if len(points) < MIN_DEPTH:
        return math.nan
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return math.exp(-slope)


def expected_growth(settings: Mapping[str, Any]) -> tuple[float, str] | None:
    """The theory's growth for these settings, and its source; None where no theory here covers them."""
    activation = settings.get("model.activation")
    is_plain = (
        str(settings.get("model._target_")).endswith(".MLP")
        and activation in MEAN_SLOPE_SQUARE
        and not settings.get("model.dropout")
        and settings.get("model.residual", "none") == "none"
        and settings.get("model.norm_position", "before") == "before"
        and settings.get("model.norm_images") is None
    )
    if not is_plain:
        return None
    norm, init = settings.get("model.norm"), settings.get("model.init")
    if norm in ("batch", "batch_manual"):
        return gradient_growth(int(settings["batch_size"]), str(activation)), SOURCE
    if norm == "none" and init in INIT_VARIANCE:
        return INIT_VARIANCE[str(init)] * MEAN_SLOPE_SQUARE[str(activation)], "He et al. 2015b, equation 14"
    return None


def _growth_number(arm: Arm) -> Number | None:
    values = list(arm.per_seed(growth_per_layer).values())
    if not values:
        return None
    expected, source = expected_growth(arm.settings) or (None, "")
    return Number("gradient growth per layer", arm.name, estimate(values), expected, source)


def _growth_sentence(number: Number) -> str:
    theory = "" if number.expected is None else f"theory {number.expected:.4g} ({number.source}), "
    return f"Gradient growth per layer, {number.arm}: {theory}measured {number.estimate}."


def _layers(table: ProbeTable) -> list[Mapping[str, Cell]]:
    """The rows of the first measured step, by depth."""
    return sorted(table.at(table.steps[0]), key=lambda row: row["depth"])


def _hidden_squares(table: ProbeTable) -> list[float]:
    """The squared random gradient at each hidden layer; the last layer, which gives the logits, is none."""
    return [float(row["random_square"]) for row in _layers(table)[:-1]]


def _relative_squares(table: ProbeTable) -> dict[float, float]:
    squares = _hidden_squares(table)
    return {depth: value / squares[-1] for depth, value in enumerate(squares, 1) if squares[-1] > 0}


def _middle(table: ProbeTable) -> Mapping[str, Cell]:
    layers = _layers(table)
    return layers[len(layers) // 2]


def _kurtosis(table: ProbeTable) -> float:
    return float(_middle(table)["kurtosis"])


def _max_over_median(table: ProbeTable) -> float:
    row = _middle(table)
    median = float(row["abs_p50"])
    return float(row["abs_max"]) / median if median > 0 else math.nan


def _tail_curve(arm: Arm) -> Curve:
    """The share of greater values against the value: its points are the means over the seeds."""
    medians = {
        name: estimate([*arm.per_seed(lambda table, name=name: _relative(table, name)).values()])  # type: ignore[misc]
        for name in TAILS
    }
    values, shares = [medians[name].mean for name in TAILS], list(TAILS.values())
    return Curve(arm.name, arm.index, values, shares, shares, shares)


def _relative(table: ProbeTable, name: str) -> float:
    row = _middle(table)
    return float(row[name]) / float(row["abs_p50"]) if row["abs_p50"] else math.nan
