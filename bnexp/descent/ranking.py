"""Several descents of one function, the fastest first."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bnexp.descent.outcome import Outcome
from bnexp.descent.path import DescentPath
from bnexp.descent.regression import Regression
from bnexp.descent.settings import DescentConfig

CSV_COLUMNS = (
    "function", "rank", "descent", "state", "steps_to_tolerance", "epochs_to_tolerance", "steps", "value",
    "gradient_norm", "distance", "gap", "seconds", "folder",
)  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One descent of several; ``label`` has the settings that distinguish it."""

    label: str
    config: DescentConfig
    path: DescentPath
    outcome: Outcome
    folder: str = ""  # the name of its folder

    @property
    def function(self) -> str:
        """The function with its keys: descents that share it are drawn and ranked together."""
        target = str(self.config.function.target)
        name = target if not target.startswith("bnexp.") else target.rpartition(".")[2].lower()
        keys = ", ".join(
            f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in self.config.function.keys.items()
            if value is not None
        )
        return f"{name} ({keys})" if keys else name


def rank(arms: Sequence[Arm]) -> dict[str, list[Arm]]:
    """The descents of each function, best first.

    Those that reach the tolerance come first, by the passes over the examples until then (of a plain function
    the steps). The others follow by their last value. Those that diverge are last. Ties keep their order.
    Without a known minimum the last value alone decides: it may fall without end.
    """
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        groups.setdefault(arm.function, []).append(arm)
    return {function: sorted(group, key=_rank_key(group)) for function, group in groups.items()}


def _rank_key(group: Sequence[Arm]) -> Callable[[Arm], tuple[bool, float, float]]:
    has_minimum = any(arm.outcome.gap is not None for arm in group)

    def key(arm: Arm) -> tuple[bool, float, float]:
        reached = arm.outcome.epochs_to_tolerance
        is_last = has_minimum and arm.outcome.state == "diverges"
        return is_last, math.inf if reached is None else reached, arm.path.last.value

    return key


def ranking_lines(function: str, arms: Sequence[Arm], tolerance: float) -> Iterator[str]:
    """The table of one function for the terminal. The last column is the outcome in a sentence."""
    is_regression = isinstance(arms[0].path.objective, Regression)
    unit = "epochs" if is_regression else "steps"
    if any(arm.outcome.gap is not None for arm in arms):
        yield f"{function}: ranked by the {unit} until the value stays within {tolerance:g} of the minimum's"
    else:
        yield f"{function}: no minimum is known, so ranked by the last value"
    titles = ["", "", unit, "value", "distance", *(["s/epoch"] if is_regression else []), "outcome"]
    rows = [titles, *(_cells(number, arm, is_regression) for number, arm in enumerate(arms, 1))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, label, *numbers, outcome in rows:
        cells = [f"{number:>{widths[0]}}", f"{label:<{widths[1]}}"]
        cells += [f"{cell:>{width}}" for cell, width in zip(numbers, widths[2:-1], strict=True)]
        yield "  ".join([*cells, outcome]).rstrip()


def _cells(number: int, arm: Arm, is_regression: bool) -> list[str]:
    outcome, last = arm.outcome, arm.path.last
    reached = outcome.epochs_to_tolerance
    duration = "-" if reached is None else f"{reached:.3g}" if is_regression else f"{reached:.0f}"
    return [
        str(number), arm.label, duration,
        f"{last.value:.5g}", "-" if outcome.distance is None else f"{outcome.distance:.3g}",
        *([f"{seconds_per_epoch(arm.path):.2g}"] if is_regression else []), outcome.sentence,
    ]  # fmt: skip


def seconds_per_epoch(path: DescentPath) -> float:
    """Of the steps alone, without the evaluation of the rows."""
    row = path.rows[-1]
    return row.seconds / row.epoch if row.epoch else math.nan


def ranking_csv(groups: dict[str, list[Arm]]) -> str:
    """One row for each descent."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(CSV_COLUMNS)
    for function, arms in groups.items():
        for number, arm in enumerate(arms, 1):
            outcome, last = arm.outcome, arm.path.last
            writer.writerow([
                function, number, arm.label, outcome.state, outcome.steps_to_tolerance,
                outcome.epochs_to_tolerance, arm.path.rows[-1].step, last.value, last.gradient_norm,
                outcome.distance, outcome.gap, arm.path.rows[-1].seconds, arm.folder,
            ])  # fmt: skip
    return text.getvalue()
