"""The probe ``spectrum``: isolated eigenvalues of the Hessian, and the edge of stability."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bnexp.report.measurements.measurement import (
    Arm,
    Claim,
    Measurement,
    Number,
    Panel,
    compare_sentences,
    comparisons,
    curve_over_seeds,
    estimate,
    is_batch_norm_against_other,
    measured_numbers,
)
from bnexp.report.read.probe_tables import ProbeTable

GHORBANI, COHEN = "Ghorbani et al. (2019)", "Cohen et al. (2021)"
RANK = 10  # of the eigenvalue that the greatest is compared with, and of the space for the gradient
MIN_STEPS = 6  # measured steps for a mean over their last third
AT_EDGE = (0.95, 1.25)  # multiples of 2 / lr: "at, or just above"


def isolation(table: ProbeTable) -> float:
    """lambda_1 / lambda_10 at the last measured step; nan unless both are positive."""
    values = _by_rank(table, "eigenvalue")
    return values[1] / values[RANK] if min(values.get(1, 0.0), values.get(RANK, 0.0)) > 0 else math.nan


def gradient_share(table: ProbeTable) -> float:
    """||P_10 g||^2 / ||g||^2 at the last measured step."""
    return _by_rank(table, "gradient_share").get(RANK, math.nan)


def last_third(table: ProbeTable) -> float:
    """The mean of lambda_1 over the last third of the measured steps; nan where there are too few."""
    values = [*_greatest_by_step(table).values()]
    return statistics.fmean(values[-(len(values) // 3) :]) if len(values) >= MIN_STEPS else math.nan


def stability_limit(settings: Mapping[str, Any]) -> float | None:
    """2 / lr where the training is gradient descent: all images a step, no momentum, constant rate."""
    images, lr = settings.get("dataset.train_size"), settings.get("optimizer.lr")
    is_descent = (
        settings.get("optimizer._target_") == "torch.optim.SGD"
        and not settings.get("optimizer.momentum")
        and settings.get("scheduler._target_") is None
        and not settings.get("dataset.val_size")
        and isinstance(images, int)
        and settings["batch_size"] >= images
    )
    return 2 / float(lr) if is_descent and lr else None


def read_spectrum(arms: Sequence[Arm]) -> Measurement:
    """The spectrum at the last measured step; for gradient descent also its greatest value against 2 / lr."""
    isolated = measured_numbers(arms, "lambda_1 / lambda_10", isolation)
    shares = measured_numbers(arms, "share of the gradient in the space of 10 eigenvectors", gradient_share)
    limits = [number for arm in arms if (number := _limit_number(arm))]
    sentences = [f"{number.name}, {number.arm}: {number.estimate}." for number in [*isolated, *shares]]
    sentences += [_limit_sentence(number) for number in limits]
    for arm, baseline in comparisons(arms):
        claim: Claim = "smaller" if is_batch_norm_against_other(arm, baseline) else ""
        for quantity, value in (
            ("Isolation of the greatest eigenvalue, lambda_1 / lambda_10", isolation),
            ("Share of the gradient in the space of 10 eigenvectors", gradient_share),
        ):
            sentences += compare_sentences(quantity, value, (arm, baseline), claim=claim, source=GHORBANI)
    return Measurement(
        "spectrum",
        "What are the greatest eigenvalues of the Hessian?",
        [text[0].upper() + text[1:] if not text.startswith("lambda") else text for text in sentences],
        [*isolated, *shares, *limits],
        _panels(arms, limits),
        "Eigenvalues of the Hessian of the training loss, by Lanczos, and the share ||P g||^2 / ||g||^2 of"
        " the gradient in the space of the eigenvectors up to each rank. Bands: least to greatest seed.",
    )


def _limit_number(arm: Arm) -> Number | None:
    limit, values = stability_limit(arm.settings), [*arm.per_seed(last_third).values()]
    if limit is None or not values:
        return None
    return Number("greatest eigenvalue, mean of the last third", arm.name, estimate(values), limit, COHEN)


def _limit_sentence(number: Number) -> str:
    assert number.expected is not None
    multiple = number.estimate.mean / number.expected
    low, high = AT_EDGE
    text = (
        f"Greatest eigenvalue over the last third of the steps, {number.arm}: {number.estimate},"
        f" {multiple:.2f} times 2 / lr = {number.expected:.4g}"
    )
    if multiple < low:
        return f"{text}: below. {COHEN} report that it rises to 2 / lr; in these steps it does not."
    if multiple > high:
        return f"{text}: above. {COHEN} report it at 2 / lr or just above; that does not show here."
    return f"{text}: at the edge of stability or just above, as {COHEN} report."


def _panels(arms: Sequence[Arm], limits: Sequence[Number]) -> list[Panel]:
    tables = [table for arm in arms for table in arm.tables.values()]
    panels = []
    if any(len(table.steps) > 1 for table in tables):
        curves = [curve_over_seeds(arm, _greatest_by_step) for arm in arms]
        expected = dict.fromkeys(number.expected for number in limits if number.expected is not None)
        lines = [(value, f"2 / lr = {value:.4g}") for value in expected]
        panels.append(Panel("greatest eigenvalue", "step", "lambda_1", curves, lines=lines))
    if any(len(_by_rank(table, "eigenvalue")) >= RANK for table in tables):
        for column, title in (("eigenvalue", "eigenvalue"), ("gradient_share", "share of the gradient")):
            curves = [
                curve_over_seeds(arm, lambda table, column=column: _by_rank(table, column))  # type: ignore[misc]
                for arm in arms
            ]
            panels.append(Panel(f"{title}, last measured step", "rank", title, curves))
    return panels


def _by_rank(table: ProbeTable, column: str) -> dict[float, float]:
    """A column of the last measured step by rank."""
    return {float(row["rank"]): float(row[column]) for row in table.at(table.steps[-1])}


def _greatest_by_step(table: ProbeTable) -> dict[float, float]:
    return {float(row["step"]): float(row["eigenvalue"]) for row in table.where(rank=1)}
