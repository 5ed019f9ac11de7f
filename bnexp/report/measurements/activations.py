"""The probe ``activations``: whether the distribution of an activation function's input stays steady."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from bnexp.report.measurements.measurement import (
    Arm,
    Measurement,
    Panel,
    compare_sentences,
    comparisons,
    curve_over_seeds,
    measured_numbers,
)
from bnexp.report.read.probe_tables import ProbeTable

PERCENTILES = {"p15": "15th", "p50": "50th", "p85": "85th"}
MIN_STEPS = 4  # measured steps for a drift


def read_activations(arms: Sequence[Arm]) -> Measurement:
    """The percentiles of the last layer's middle unit over the steps, and how far they drift."""
    numbers = measured_numbers(arms, "drift of the percentiles", drift)
    sentences = [
        f"Drift of the last layer's input, {number.arm}: its percentiles move by {number.estimate} times the"
        " distance from the 15th to the 85th."
        for number in numbers
    ]
    for arm, baseline in comparisons(arms):
        sentences += compare_sentences(
            "Drift of the percentiles",
            drift,
            (arm, baseline),
            claim="smaller" if "batch" in str(arm.settings.get("model.norm")) else "",
            source="Ioffe & Szegedy (2015, figure 1)",
        )
    panels = [
        Panel(
            arm.name,
            "step",
            "input of the middle unit",
            [
                curve_over_seeds(arm, lambda table, name=name: _by_step(table, name), label)  # type: ignore[misc]
                for name, label in PERCENTILES.items()
            ],
        )
        for arm in arms
    ]
    return Measurement(
        "activations",
        "Does the input of the last activation function stay steady?",
        sentences,
        numbers,
        panels,
        "The 15th, 50th and 85th percentile of what goes into the last activation function, at its middle"
        " unit, over the same training images at each measured step. Bands: least to greatest seed.",
    )


def drift(table: ProbeTable) -> float:
    """How far the percentiles move: the mean over them of the standard deviation over the measured steps.

    It is relative to the mean distance of the 15th from the 85th percentile.
    """
    if len(table.steps) < MIN_STEPS:
        return math.nan
    columns = {name: [*_by_step(table, name).values()] for name in PERCENTILES}
    width = statistics.fmean(columns["p85"]) - statistics.fmean(columns["p15"])
    moves = statistics.fmean(statistics.pstdev(values) for values in columns.values())
    return moves / width if width > 0 else math.nan


def _by_step(table: ProbeTable, column: str) -> dict[float, float]:
    """A column of the last layer by step."""
    last = table.rows[-1]["layer"]
    return {float(row["step"]): float(row[column]) for row in table.where(layer=last)}
