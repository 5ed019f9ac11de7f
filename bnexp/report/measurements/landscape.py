"""The probe ``landscape``: how smooth the loss is along the gradient, and which rates lower it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

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
from bnexp.report.read.probe_tables import Cell, ProbeTable

Rows = Sequence[Mapping[str, Cell]]
FACTORS, MIN_FACTORS = (0.5, 4.001), 4  # of the learning rate, with rounding; fewer have no range
SANTURKAR, BJORCK = "Santurkar et al. (2018, figure 4)", "Bjorck et al. (2018)"


def in_paper(rows: Rows) -> list[Mapping[str, Cell]]:
    """The rows of a step whose eta Santurkar et al. measure, from 1/2 to 4 times the learning rate."""
    low, high = FACTORS
    return [row for row in rows if low <= float(row["lr_factor"]) <= high]


def loss_range(rows: Rows) -> float:
    """Greatest minus smallest L(W - eta · g) of a step; inf where one of them is not finite."""
    return _range([float(row["moved_loss"]) for row in rows])


def gradient_range(rows: Rows) -> float:
    """Greatest minus smallest ||g(W) - g(W - eta · g)|| of a step."""
    return _range([float(row["gradient_distance"]) for row in rows])


def smoothness(rows: Rows) -> float:
    """The effective smoothness of a step: its maximum over eta."""
    values = [float(row["smoothness"]) for row in rows]
    return _maximum(values)


QUANTITIES: dict[str, Callable[[Rows], float]] = {
    "range of the loss": loss_range,
    "range of the gradient's change": gradient_range,
    "effective smoothness": smoothness,
}


def read_landscape(arms: Sequence[Arm]) -> Measurement:
    """Three quantities over the measured steps, and the rates that lower the loss at the first step."""
    medians = {name: _median_over_steps(number) for name, number in QUANTITIES.items()}
    numbers = [
        number
        for name, median in medians.items()
        for number in measured_numbers(arms, f"{name}, median over the measured steps", median)
    ]
    sentences = [text for arm in arms if (text := _overflow_sentence(arm))]
    for arm, baseline in comparisons(arms):
        has_claim = is_batch_norm_against_other(arm, baseline)
        for name, number in medians.items():
            claim: Claim = "smaller" if has_claim else ""
            quantity = f"{name.capitalize()} along the gradient, median over the measured steps"
            sentences += compare_sentences(quantity, number, (arm, baseline), claim=claim, source=SANTURKAR)
        sentences += compare_sentences(
            "Greatest measured learning rate that lowers the loss at the first step",
            greatest_rate,
            (arm, baseline),
            claim="greater" if has_claim else "",
            source=BJORCK,
        )
        sentences += compare_sentences(
            "Greatest L(W - eta g) / L(W) at the first step", greatest_ratio, (arm, baseline), claim=""
        )
    return Measurement(
        "landscape",
        "How smooth is the loss along the gradient?",
        sentences,
        numbers,
        _panels(arms),
        "Along the gradient g of each measured step, eta from 1/2 to 4 times the learning rate, same batch:"
        " the range of L(W - eta g), the range of ||g(W) - g(W - eta g)||,"
        " the greatest ||g(W) - g(W - eta g)|| / (eta ||g||), and at the first step L(W - eta g) / L(W)."
        " Bands: least to greatest seed.",
    )


def greatest_rate(table: ProbeTable) -> float:
    """The greatest measured multiple of the learning rate up to which the first step's loss is lower.

    nan where the smallest raises the loss already, or the greatest still lowers it: the grid is too short.
    """
    rows = sorted(table.at(table.steps[0]), key=lambda row: row["lr_factor"])
    is_lower = [float(row["moved_loss"]) < float(row["loss"]) for row in rows]
    count = is_lower.index(False) if False in is_lower else 0
    return float(rows[count - 1]["lr_factor"]) if count else math.nan


def greatest_ratio(table: ProbeTable) -> float:
    """The greatest L(W - eta · g) / L(W) of the first measured step; inf where one is not finite."""
    return _maximum([*_loss_ratios(table).values()])


def _panels(arms: Sequence[Arm]) -> list[Panel]:
    panels = []
    if any(len(_by_step(table, loss_range)) > 1 for arm in arms for table in arm.tables.values()):
        panels = [
            Panel(
                name,
                "step",
                name,
                [
                    curve_over_seeds(arm, lambda table, number=number: _by_step(table, number))  # type: ignore[misc]
                    for arm in arms
                ],
                y_scale="log",
            )
            for name, number in QUANTITIES.items()
        ]
    ratios = [curve_over_seeds(arm, _loss_ratios) for arm in arms]
    label = "multiple of the learning rate"
    lines = [(1.0, "no change")]
    first = Panel("first step", label, "L(W - eta g) / L(W)", ratios, "log", "log", lines)
    return [*panels, first]


def _maximum(values: Sequence[float]) -> float:
    return max(values) if all(map(math.isfinite, values)) else math.inf


def _range(values: Sequence[float]) -> float:
    return max(values) - min(values) if all(map(math.isfinite, values)) else math.inf


def _by_step(table: ProbeTable, number: Callable[[Rows], float]) -> dict[float, float]:
    rows = {float(step): in_paper(table.at(step)) for step in table.steps}
    return {step: number(group) for step, group in rows.items() if len(group) >= MIN_FACTORS}


def _median_over_steps(number: Callable[[Rows], float]) -> Callable[[ProbeTable], float]:
    return lambda table: statistics.median([*_by_step(table, number).values()] or [math.nan])


def _loss_ratios(table: ProbeTable) -> dict[float, float]:
    rows = table.at(table.steps[0])
    return {
        float(row["lr_factor"]): float(row["moved_loss"]) / float(row["loss"]) for row in rows if row["loss"]
    }


def _overflow_sentence(arm: Arm) -> str:
    rows = [row for table in arm.tables.values() for row in table.rows]
    count = sum(not math.isfinite(float(row["moved_loss"])) for row in rows)
    if not count:
        return ""
    return f"{arm.name}: the loss is not a finite number at {count} of {len(rows)} points along the gradient."
