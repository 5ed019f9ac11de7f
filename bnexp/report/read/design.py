"""``design.json``: what a sweep with ``seed=auto`` has planned, written before its first job.

The report reads it: planned looks need other tests than looks that nobody planned.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bnexp.errors import UserError, one_line
from bnexp.files import write_json
from bnexp.report.read.runs import Run

DESIGN_FILE = "design.json"


@dataclass(frozen=True)
class Design:
    """Seeds 0, 1, ... of each arm, with a look after ``looks`` seeds each; ``reached``: the last so far."""

    looks: tuple[int, ...]
    arms: tuple[str, ...]  # what distinguishes them: "model.norm=batch"
    metric: str = "test/accuracy"
    epoch: str = "auto"  # report.epoch
    delta: float | None = None  # the smallest difference of interest, in points
    reached: int = 0

    def planned_runs(self, runs: Sequence[Run]) -> list[Run]:
        """The runs that count at the last look. Later ones wait for their look, others were not planned."""
        return [run for run in runs if run.seed < self.reached]

    def is_same_plan(self, other: Design) -> bool:
        return (self.looks, set(self.arms)) == (other.looks, set(other.arms))


def write_design(sweep: Path, design: Design) -> None:
    """Writes ``design.json``, complete or not at all. Raises WriteError."""
    write_json(sweep / DESIGN_FILE, asdict(design))


def read_design(sweep: Path) -> Design | None:
    """The design of a sweep's folder; None for a sweep with seeds that the user chose.

    Raises UserError for a damaged file.
    """
    path = sweep / DESIGN_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        looks = tuple(int(look) for look in values["looks"])
        if not looks or list(looks) != sorted(set(looks)) or looks[0] < 2:
            raise ValueError(f"looks {looks}")
        return Design(
            looks=looks,
            arms=tuple(map(str, values["arms"])),
            metric=str(values["metric"]),
            epoch=str(values["epoch"]),
            delta=None if values["delta"] is None else float(values["delta"]),
            reached=min(max(0, int(values["reached"])), looks[-1]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(one_line(f"{path}: damaged ({error})")) from None
