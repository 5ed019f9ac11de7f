"""``design.json``: what a sweep that plans its seeds or tunes has planned, written before its first job.

The report reads it: planned looks need other tests than looks that nobody planned, and a tuned value is no
confounder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bnexp.errors import UserError, one_line
from bnexp.files import write_json
from bnexp.report.read.runs import DESIGN_FILE, Run


@dataclass(frozen=True)
class Interval:
    """The values of a key to try: ``optimizer.lr`` from 0.001 to 10, on a logarithmic scale."""

    key: str  # as typed, perhaps with a plus
    low: float
    high: float
    is_log: bool
    is_integer: bool = False

    @property
    def name(self) -> str:
        return self.key.lstrip("+")

    def value_at(self, position: float) -> float:
        """The value at a position from 0 to 1, with three digits: a rate need not be known better."""
        value = self.low + position * (self.high - self.low)
        if self.is_log:
            value = self.low * (self.high / self.low) ** position
        return round(value) if self.is_integer else float(f"{value:.3g}")

    def assignment(self, value: float) -> str:
        """The override that sets a value."""
        return f"{self.key}={round(value) if self.is_integer else value}"

    def position_of(self, value: float) -> float:
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class TuningDesign:
    """What each arm tries: ``trials`` points, each with the same ``seeds``. The verdict uses other seeds."""

    intervals: tuple[Interval, ...]
    trials: int
    seeds: tuple[int, ...]
    search: str = "sobol"
    is_widened: bool = False  # a best value lay at an edge: every arm got as many trials again beyond it


@dataclass(frozen=True)
class Design:
    """What a sweep has planned.

    With ``looks``: seeds 0, 1, ... of each arm, with a look after so many seeds each; ``reached`` is the last
    one so far. Without: seeds that the user chose.
    """

    looks: tuple[int, ...]
    arms: tuple[str, ...]  # what distinguishes them: "model.norm=batch"
    config_hashes: tuple[str, ...] = ()  # of the jobs with the first seed: whether a plan is the same
    metric: str = "test/accuracy"
    epoch: str = "auto"  # report.epoch
    delta: float | None = None  # the smallest difference of interest, in points
    reached: int = 0
    tuning: TuningDesign | None = None

    def counting_runs(self, runs: Sequence[Run]) -> list[Run]:
        """The runs that count at the last look. Later ones wait for their look, others were not planned."""
        return [run for run in runs if not self.looks or run.seed < self.reached]

    def is_same_plan(self, other: Design) -> bool:
        return (self.looks, set(self.config_hashes)) == (other.looks, set(other.config_hashes))


def write_design(sweep: Path, design: Design) -> None:
    """Writes ``design.json``, complete or not at all. Raises WriteError."""
    write_json(sweep / DESIGN_FILE, asdict(design))


def read_design(sweep: Path) -> Design | None:
    """The design of a sweep's folder; None for a sweep that plans and tunes nothing.

    Raises UserError for a damaged file.
    """
    path = sweep / DESIGN_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        looks = tuple(int(look) for look in values["looks"])
        if list(looks) != sorted(set(looks)) or min(looks, default=2) < 2:
            raise ValueError(f"looks {looks}")
        tuning = values["tuning"]
        return Design(
            looks=looks,
            arms=tuple(map(str, values["arms"])),
            config_hashes=tuple(map(str, values["config_hashes"])),
            metric=str(values["metric"]),
            epoch=str(values["epoch"]),
            delta=None if values["delta"] is None else float(values["delta"]),
            reached=min(max(0, int(values["reached"])), max(looks, default=0)),
            tuning=None if tuning is None else _parse_tuning(tuning),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(one_line(f"{path}: damaged ({error})")) from None


def _parse_tuning(values: Mapping[str, Any]) -> TuningDesign:
    return TuningDesign(
        intervals=tuple(Interval(**interval) for interval in values["intervals"]),
        trials=int(values["trials"]),
        seeds=tuple(map(int, values["seeds"])),
        search=str(values["search"]),
        is_widened=bool(values["is_widened"]),
    )
