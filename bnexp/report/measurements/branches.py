"""The probe ``branches``: how much of a residual block's output comes from its branch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bnexp.report.measurements.measurement import Arm, Measurement, Number, Panel, curve_over_seeds, estimate
from bnexp.report.measurements.theory import branch_share
from bnexp.report.read.probe_tables import ProbeTable

SOURCE = "De & Smith 2020, section 3"


def read_branches(arms: Sequence[Arm]) -> Measurement:
    """The share of the last block's branch beside the theory, and the share by block."""
    numbers = [*filter(None, map(_last_share_number, arms))]
    return Measurement(
        "branches",
        "How much of a residual block's output comes from its branch?",
        [_sentence(number) for number in numbers],
        numbers,
        [
            Panel(
                "share of the branch",
                "block",
                "branch / output, mean squares",
                [curve_over_seeds(arm, _shares) for arm in arms],
                x_scale="log",
                y_scale="log",
            ),
            Panel(
                "size of what the blocks give",
                "block",
                "mean square of a block's output",
                [curve_over_seeds(arm, _squares) for arm in arms],
                x_scale="log",
                y_scale="log",
            ),
        ],
        "At the first weights: the mean square of a branch's output over that of its block's output, and the"
        " latter alone. A share of 0 is not drawn. Bands: least to greatest seed.",
    )


def last_share(table: ProbeTable) -> float:
    """The share of the last block's branch."""
    return float(table.rows[-1]["share"])


def _last_share_number(arm: Arm) -> Number | None:
    values = [*arm.per_seed(last_share).values()]
    if not values:
        return None
    blocks = int(float(next(iter(arm.tables.values())).rows[-1]["block"]))
    expected = expected_share(arm, blocks)
    return Number(
        f"share of the branch of block {blocks}", arm.name, estimate(values), expected,
        "" if expected is None else SOURCE,
    )  # fmt: skip


def expected_share(arm: Arm, block: int) -> float | None:
    """The theory's share; None where no theory here covers the arm.

    The branches of skipinit and fixup start with a share of 0 by construction. With batch norm the theory
    holds for any weights that give each branch the same variance. Without a norm a branch must keep the
    variance of its input, as ReLUs with ``init=kaiming`` do.
    """
    norm = arm.settings.get("model.norm")
    if arm.settings.get("model.residual") != "plain":
        return None
    if norm in ("batch", "batch_manual"):
        return branch_share(block, batch_norm=True)
    keeps_variance = (
        arm.settings.get("model.init") == "kaiming" and arm.settings.get("model.activation") == "relu"
    )
    return branch_share(block, batch_norm=False) if norm == "none" and keeps_variance else None


def _sentence(number: Number) -> str:
    theory = "" if number.expected is None else f"theory {number.expected:.4g} ({number.source}), "
    name = number.name.replace("share of the branch", "Share of the branch")
    return f"{name} in its output, {number.arm}: {theory}measured {number.estimate}."


def _shares(table: ProbeTable) -> dict[float, float]:
    return {float(row["block"]): float(row["share"]) or math.nan for row in table.rows}


def _squares(table: ProbeTable) -> dict[float, float]:
    return {float(row["block"]): float(row["output_square"]) for row in table.rows}
