"""The probe ``shift``: whether internal covariate shift is smaller with batch norm."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from bnexp.report.measurements.measurement import (
    Arm,
    Claim,
    Measurement,
    Panel,
    compare_sentences,
    comparisons,
    curve_over_seeds,
    is_batch_norm_against_other,
    measured_numbers,
)
from bnexp.report.read.probe_tables import ProbeTable

SOURCE = "Santurkar et al. (2018, section 2.2)"


def distance(table: ProbeTable) -> float:
    """||G - G'||: the median over the measured steps and the layers above the first."""
    return _median([*_values(table, "gradient_distance").values()])


def relative_distance(table: ProbeTable) -> float:
    """||G - G'|| / ||G||, the median as in ``distance``."""
    norms = _values(table, "gradient_norm")
    values = _values(table, "gradient_distance")
    return _median([values[key] / norms[key] for key in values if norms[key] > 0])


def cosine(table: ProbeTable) -> float:
    """The cosine of G and G', the median as in ``distance``."""
    return _median([*_values(table, "cosine").values()])


def read_shift(arms: Sequence[Arm]) -> Measurement:
    """The shift of the layers above the first, which has nothing below it."""
    name = "cosine of the gradients before and after the layers below move"
    numbers = measured_numbers(arms, name, cosine)
    sentences = [
        f"Cosine of a layer's gradients before and after the layers below move, {number.arm}:"
        f" {number.estimate}."
        for number in numbers
    ]
    for arm, baseline in comparisons(arms):
        claim: Claim = "not smaller" if is_batch_norm_against_other(arm, baseline) else ""
        for quantity, number in (
            ("Internal covariate shift ||G - G'||", distance),
            ("Internal covariate shift relative to the gradient, ||G - G'|| / ||G||", relative_distance),
        ):
            sentences += compare_sentences(quantity, number, (arm, baseline), claim=claim, source=SOURCE)
    columns = {"gradient_distance": "||G - G'||", "cosine": "cosine of G and G'"}
    panels = [
        Panel(
            f"{label}, median over layers",
            "step",
            label,
            [curve_over_seeds(arm, _median_by_step(column)) for arm in arms],
            y_scale="log" if column == "gradient_distance" else "linear",
        )
        for column, label in columns.items()
    ]
    return Measurement(
        "shift",
        "Is internal covariate shift smaller?",
        sentences,
        numbers,
        panels,
        "G: the gradient of a layer's weights at a measured step. G': the same after the layers below have"
        " taken the step. Median over the layers above the first. Bands: least to greatest seed.",
    )


def _values(table: ProbeTable, column: str) -> dict[tuple[float, str], float]:
    """The finite values of a column by step and layer, without the first layer."""
    first = table.rows[0]["layer"]
    return {
        (float(row["step"]), str(row["layer"])): float(row[column])
        for row in table.rows
        if row["layer"] != first and math.isfinite(float(row[column]))
    }


def _median_by_step(column: str) -> Callable[[ProbeTable], dict[float, float]]:
    def points(table: ProbeTable) -> dict[float, float]:
        by_step: dict[float, list[float]] = {}
        for (step, _), value in _values(table, column).items():
            by_step.setdefault(step, []).append(value)
        return {step: statistics.median(values) for step, values in by_step.items()}

    return points


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else math.nan
