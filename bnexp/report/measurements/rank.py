"""The probe ``rank``: whether the images of a batch become parallel with depth, at the first weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import linear_regression

from bnexp.report.measurements.measurement import (
    Arm,
    Measurement,
    Number,
    Panel,
    compare_sentences,
    comparisons,
    curve_over_seeds,
    estimate,
)
from bnexp.report.measurements.theory import orthogonality_floor
from bnexp.report.read.probe_tables import ProbeTable
from bnexp.report.read.runs import PairKey

MIN_WIDTHS = 3  # for a slope
MIN_DEPTH = 20  # layers, for a floor
BATCH_NORMS = ("batch", "batch_manual")
ORTHOGONALISE = "Daneshmand et al. (2021)"
FLOOR = f"linearised; its order width^(-1/2) is that of {ORTHOGONALISE}"
COLLAPSE = "the limit of great depth, Daneshmand et al. (2020)"
REPORTED_SLOPE = -0.46  # of the floor against the width, Daneshmand et al. 2021
GAP, SOFT_RANK = "orthogonality gap of the last layer", "soft rank of the last layer"


def read_rank(arms: Sequence[Arm]) -> Measurement:
    """Gap and soft rank of the last layer beside their theory, and the floor against the width."""
    gaps = [_gap_number(arm) for arm in arms]
    ranks = [_rank_number(arm) for arm in arms]
    slopes = [*filter(None, (_slope_number(norm, group) for norm, group in _by_norm(arms).items()))]
    numbers = [number for number in (*gaps, *ranks, *slopes) if number.estimate.n]
    sentences = [_sentence(number) for number in numbers if number.expected is not None]
    for arm, baseline in comparisons(arms):
        if _is_batch_norm(arm) and not _is_batch_norm(baseline):
            sentences += compare_sentences(
                "Orthogonality gap of the last layer", _last_gap, (arm, baseline),
                claim="smaller", source=ORTHOGONALISE,
            )  # fmt: skip
    panels = [
        Panel("distance from orthogonal images", "layer", "orthogonality gap",
              [curve_over_seeds(arm, _by_depth("orthogonality_gap")) for arm in arms], y_scale="log"),
        Panel("number of directions", "layer", "soft rank",
              [curve_over_seeds(arm, _by_depth("soft_rank")) for arm in arms], y_scale="log"),
    ]  # fmt: skip
    return Measurement(
        "rank",
        "Do the images stay apart in deep layers?",
        sentences,
        numbers,
        panels,
        "At the first weights, for what goes into each layer with weights; layer 0 are the images. The gap is"
        " 0 for orthogonal images, the soft rank 1 for parallel ones. Bands: least to greatest seed.",
    )


def _gap_number(arm: Arm) -> Number:
    expected = _expected_gap(arm)
    return Number(GAP, arm.name, arm.estimate(_last_gap), expected, "" if expected is None else FLOOR)


def _rank_number(arm: Arm) -> Number:
    expected = 1.0 if _is_deep_linear(arm) and arm.settings.get("model.norm") == "none" else None
    return Number(SOFT_RANK, arm.name, arm.estimate(_last_rank), expected, COLLAPSE if expected else "")


def _expected_gap(arm: Arm) -> float | None:
    """The floor of a deep linear network with batch norm; None where the theory does not cover the arm."""
    row = _last_row(next(iter(arm.tables.values())))
    if not (_is_deep_linear(arm) and _is_batch_norm(arm)):
        return None
    try:
        return orthogonality_floor(int(row["images"]), int(row["width"]))
    except ValueError:
        return None


def _is_deep_linear(arm: Arm) -> bool:
    settings = arm.settings
    return (
        str(settings.get("model._target_")).endswith(".MLP")
        and settings.get("model.activation") == "linear"
        and settings.get("model.residual", "none") == "none"
        and settings.get("model.norm_images") is None
        and _last_row(next(iter(arm.tables.values())))["depth"] >= MIN_DEPTH
    )


def _is_batch_norm(arm: Arm) -> bool:
    return str(arm.settings.get("model.norm")) in BATCH_NORMS


def _slope_number(norm: str, arms: Sequence[Arm]) -> Number | None:
    """The slope of log gap against log width over the arms of one norm, fitted for each seed."""
    points: dict[PairKey, list[tuple[float, float]]] = {}
    for arm in arms:
        for key, gap in arm.per_seed(_last_gap).items():
            width = _last_row(arm.tables[key])["width"]
            points.setdefault(key, []).append((math.log(width), math.log(gap)))
    complete = [line for line in points.values() if len({x for x, _ in line}) == len(arms)]
    if len(arms) < MIN_WIDTHS or not complete:
        return None
    slopes = estimate([linear_regression(*zip(*line, strict=True)).slope for line in complete])
    has_theory = all(_is_deep_linear(arm) and _is_batch_norm(arm) for arm in arms)
    source = ORTHOGONALISE if has_theory else ""
    return Number(
        f"slope of the {GAP} against width", norm, slopes, REPORTED_SLOPE if has_theory else None, source
    )


def _by_norm(arms: Sequence[Arm]) -> dict[str, list[Arm]]:
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        groups.setdefault(f"model.norm={arm.settings.get('model.norm')}", []).append(arm)
    return groups


def _sentence(number: Number) -> str:
    kind = "reported" if number.expected == REPORTED_SLOPE else "theory"
    subject = f"{number.name[0].upper()}{number.name[1:]}, {number.arm}"
    return f"{subject}: {kind} {number.expected:.4g} ({number.source}), measured {number.estimate}."


def _rows(table: ProbeTable) -> list[dict[str, float]]:
    """The rows of the first weights by depth, without the names."""
    rows = [
        {column: float(cell) for column, cell in row.items() if column != "layer"}
        for row in table.at(table.steps[0])
    ]
    return sorted(rows, key=lambda row: row["depth"])


def _last_row(table: ProbeTable) -> dict[str, float]:
    return _rows(table)[-1]


def _last_gap(table: ProbeTable) -> float:
    return _last_row(table)["orthogonality_gap"]


def _last_rank(table: ProbeTable) -> float:
    return _last_row(table)["soft_rank"]


def _by_depth(column: str) -> Callable[[ProbeTable], dict[float, float]]:
    return lambda table: {row["depth"]: row[column] for row in _rows(table)}
