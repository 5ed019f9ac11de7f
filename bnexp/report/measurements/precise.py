"""The probe ``precise``: running against precise batch norm statistics, and the variance shift of dropout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from bnexp.report.measurements.measurement import (
    Arm,
    Estimate,
    Measurement,
    Number,
    Panel,
    compare_sentences,
    comparisons,
    curve_over_seeds,
    estimate,
)
from bnexp.report.measurements.theory import initial_share
from bnexp.report.read.probe_tables import Cell, ProbeTable

NETWORK = "all"  # the layer column of the row of the whole network
MOMENTUM = 0.1  # of the batch norm layers of bnexp's networks
MIN_SHARE = 0.001  # of the initial statistics, to be told
WU, LI = "Wu & Johnson (2021)", "Li et al. (2019)"
GAP = "precise minus running accuracy in points"
SHIFT = "variance shift"


def read_precise(arms: Sequence[Arm]) -> Measurement:
    """How far both accuracies are apart after the first and the last epoch; the shift beside its theory."""
    first = [Number(f"{GAP}, first epoch", arm.name, arm.estimate(_first_gap)) for arm in arms]
    last = [Number(f"{GAP}, last epoch", arm.name, arm.estimate(_last_gap)) for arm in arms]
    sentences = [
        _gap_sentence(arm, early.estimate, late.estimate)
        for arm, early, late in zip(arms, first, last, strict=True)
    ]
    sentences += _batch_size_sentences(arms)
    shifts = [*filter(None, (_shift_number(arm, _shift_layer(arms)) for arm in arms))]
    sentences += [_shift_sentence(number) for number in shifts]
    for arm, baseline in comparisons(arms):
        if _has_theory(arm) and not _has_theory(baseline):
            sentences += compare_sentences(
                "Greatest variance shift of a layer after the last epoch",
                _last_shift,
                (arm, baseline),
                claim="greater",
                source=LI,
            )
    panels = [
        _by_epoch("running statistics", "accuracy", "accuracy_running", arms),
        _by_epoch("precise statistics", "accuracy", "accuracy_precise", arms),
        _by_epoch("running variance against real variance", SHIFT, "variance_shift", arms, y_scale="log"),
    ]
    if shifts:
        curves = [curve_over_seeds(arm, _shift_by_layer) for arm in arms]
        panels[2] = Panel("each layer after the last epoch", "batch norm layer", SHIFT, curves)
    return Measurement(
        "precise",
        "Do the running statistics of batch norm fit the network?",
        sentences,
        [*first, *last, *shifts],
        panels,
        "Accuracy on the validation images (test images without them) after each epoch, with running"
        " statistics and with precise statistics of the weights as they are. Variance shift: the larger over"
        " the smaller of running and real variance, mean over the channels; by epoch, that of the layer where"
        " it is greatest. Bands: least to greatest seed.",
    )


def _network(table: ProbeTable) -> list[dict[str, Cell]]:
    """The rows of the whole network, one for each epoch."""
    return [dict(row) for row in table.where(layer=NETWORK)]


def _gap(row: dict[str, Cell]) -> float:
    return 100 * (float(row["accuracy_precise"]) - float(row["accuracy_running"]))


def _first_gap(table: ProbeTable) -> float:
    return _gap(_network(table)[0])


def _last_gap(table: ProbeTable) -> float:
    return _gap(_network(table)[-1])


def _last_shift(table: ProbeTable) -> float:
    return float(_network(table)[-1]["variance_shift"])


def _gap_sentence(arm: Arm, early: Estimate, late: Estimate) -> str:
    table = next(iter(arm.tables.values()))
    text = f"Precise minus running accuracy, {_label(arm)}: {early} points after epoch 1{_initial_share(arm)}"
    epochs = len(table.steps)
    return f"{text}; {late} points after epoch {epochs}." if epochs > 1 else f"{text}."


def _initial_share(arm: Arm) -> str:
    """What the theory says of the initial statistics after the first epoch, where that is worth telling.

    Networks of torchvision and of the user's own may have another momentum.
    """
    target = str(arm.settings.get("model._target_"))
    steps = next(iter(arm.tables.values())).steps[0]
    share = initial_share(MOMENTUM, steps)
    if not target.startswith("bnexp.models.") or target.endswith(".from_torchvision") or share < MIN_SHARE:
        return ""
    return f", where {100 * share:.2g} % of the initial statistics is left (theory: 0.9^{steps})"


def _label(arm: Arm) -> str:
    """The arm's name; a bare batch size says what it is."""
    size = str(arm.settings["batch_size"])
    return f"batch_size={size}" if arm.name == size else arm.name


def _batch_size_sentences(arms: Sequence[Arm]) -> list[str]:
    """Whether large batches have the greater gap after the first epoch, as Wu & Johnson report."""
    by_size = {int(arm.settings["batch_size"]): arm for arm in arms}
    if len(by_size) < 2 or len(by_size) < len(arms):
        return []
    small, large = (by_size[size].per_seed(_first_gap) for size in (min(by_size), max(by_size)))
    difference = estimate([large[key] - small[key] for key in large if key in small])
    text = (
        f"After epoch 1 the gap with batch_size={max(by_size)} is that with batch_size={min(by_size)} plus"
        f" {difference} points"
    )
    if math.isnan(difference.low):
        return [f"{text}; too few seeds to hold against {WU}, who report it greater."]
    if difference.low > 0:
        return [f"{text}: greater, as {WU} report."]
    outcome = "smaller" if difference.high < 0 else "not decided"
    return [f"{text}: {outcome}. {WU} report it greater; that does not show here."]


def _layers(table: ProbeTable) -> list[str]:
    """The batch norm layers, in the order of the network."""
    return [str(row["layer"]) for row in table.at(table.steps[-1]) if row["layer"] != NETWORK]


def _has_theory(arm: Arm) -> bool:
    return any(_theory_layers(table) for table in arm.tables.values())


def _theory_layers(table: ProbeTable) -> list[str]:
    """The layers that have an expected shift after the last epoch."""
    rows = table.at(table.steps[-1])
    return [
        str(row["layer"])
        for row in rows
        if row["layer"] != NETWORK and isinstance(row.get("expected_shift"), float)
    ]


def _shift_layer(arms: Sequence[Arm]) -> str | None:
    """The first layer behind dropout: deeper ones also have the shift of those below them."""
    layers = [name for arm in arms for table in arm.tables.values() for name in _theory_layers(table)[:1]]
    return layers[0] if layers else None


def _shift_number(arm: Arm, layer: str | None) -> Number | None:
    """The shift of ``layer`` after the last epoch beside what the formula of Li et al. expects."""
    if layer is None:
        return None
    measured = arm.estimate(lambda table: _last_cell(table, layer, "variance_shift"))
    expected = arm.estimate(lambda table: _last_cell(table, layer, "expected_shift"))
    if not measured.n:
        return None
    is_without = (
        not arm.settings.get("model.dropout", 1) or arm.settings.get("model.dropout_layers") == "last"
    )
    theory = expected.mean if expected.n else 1.0 if is_without else None
    return Number(f"variance shift of {layer}", arm.name, measured, theory, "" if theory is None else LI)


def _last_cell(table: ProbeTable, layer: str, column: str) -> float:
    """A number of a layer after the last epoch; nan where it has none."""
    cells = [row.get(column) for row in table.at(table.steps[-1]) if row["layer"] == layer]
    return cells[0] if cells and isinstance(cells[0], float) else math.nan


def _shift_sentence(number: Number) -> str:
    theory = "" if number.expected is None else f"theory {number.expected:.4g} ({number.source}), "
    return f"V{number.name[1:]}, {number.arm}: {theory}measured {number.estimate}."


def _by_epoch(
    title: str, y_label: str, column: str, arms: Sequence[Arm], y_scale: Literal["linear", "log"] = "linear"
) -> Panel:
    def values(table: ProbeTable) -> dict[float, float]:
        return {float(epoch): float(row[column]) for epoch, row in enumerate(_network(table), 1)}

    return Panel(title, "epoch", y_label, [curve_over_seeds(arm, values) for arm in arms], y_scale=y_scale)


def _shift_by_layer(table: ProbeTable) -> dict[float, float]:
    return {
        float(place): _last_cell(table, layer, "variance_shift")
        for place, layer in enumerate(_layers(table), 1)
    }
