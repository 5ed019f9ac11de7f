"""The probe ``gap``: how much better a network is on training images than on others."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from bnexp.report.measurements.measurement import (
    Arm,
    Curve,
    Measurement,
    Panel,
    compare_sentences,
    comparisons,
    curve_over_seeds,
    measured_numbers,
)
from bnexp.report.read.probe_tables import ProbeTable

LAST_SHARE = 0.3  # of the epochs: over these a gap is averaged, as report.epoch=mean averages the accuracy
SOURCE = "Luo et al. (2019)"
GAPS = {"loss_gap": "Test loss above training loss", "accuracy_gap": "Training accuracy above test accuracy"}


def read_gap(arms: Sequence[Arm]) -> Measurement:
    """The gaps of the last epochs, and against 1/M where batch norm takes its statistics over M images."""
    numbers = [
        number
        for name, column in (("loss gap", "loss_gap"), ("accuracy gap", "accuracy_gap"))
        for number in measured_numbers(arms, name, last_gap(column))
    ]
    sentences = [
        sentence
        for column, quantity in GAPS.items()
        for arm, baseline in comparisons(arms)
        for sentence in compare_sentences(
            f"{quantity}, last epochs",
            last_gap(column),
            (arm, baseline),
            claim="smaller" if _has_smaller_groups(arm, baseline) else "",
            source=SOURCE,
        )
    ]
    panels = [
        Panel(
            "gap of the loss",
            "step",
            "test loss - training loss",
            [curve_over_seeds(arm, _gap_by_step) for arm in arms],
        )
    ]
    if len(points := _gap_by_inverse_images(arms)) > 1:
        panels.append(Panel("against the noise of the statistics", "1 / images that share them",
                            "test loss - training loss", [_line(points)]))  # fmt: skip
    return Measurement(
        "gap",
        "How much better is the network on its training images?",
        sentences,
        numbers,
        panels,
        "Mean loss on test images minus that on training images, both in eval mode, after each epoch; in the"
        " second panel the mean of the last 30 % of the epochs. Bands: least to greatest seed.",
    )


def last_gap(column: str) -> Callable[[ProbeTable], float]:
    """The mean of a column over the last 30 % of the measured epochs."""

    def number(table: ProbeTable) -> float:
        values = [float(row[column]) for row in table.rows]
        return statistics.fmean(values[-math.ceil(LAST_SHARE * len(values)) :])

    return number


def group_images(arm: Arm) -> int | None:
    """The images that share the statistics of a batch norm; None for another norm."""
    if arm.settings.get("model.norm") not in ("batch", "batch_manual"):
        return None
    return int(arm.settings.get("model.norm_images") or arm.settings["batch_size"])


def _has_smaller_groups(arm: Arm, baseline: Arm) -> bool:
    images, baseline_images = group_images(arm), group_images(baseline)
    return images is not None and baseline_images is not None and images < baseline_images


def _gap_by_step(table: ProbeTable) -> dict[float, float]:
    return {float(row["step"]): float(row["loss_gap"]) for row in table.rows}


def _gap_by_inverse_images(arms: Sequence[Arm]) -> list[tuple[float, list[float]]]:
    """1/M, and the gap of each seed, by M from the greatest on; one arm for each M."""
    points: dict[float, list[float]] = {}
    for arm in arms:
        values = [*arm.per_seed(last_gap("loss_gap")).values()]
        if (images := group_images(arm)) is not None and values:
            points.setdefault(1 / images, values)
    return sorted(points.items())


def _line(points: Sequence[tuple[float, list[float]]]) -> Curve:
    gaps = [values for _, values in points]
    return Curve(
        "batch norm", 0, [x for x, _ in points],
        [statistics.fmean(values) for values in gaps], [*map(min, gaps)], [*map(max, gaps)],
    )  # fmt: skip
