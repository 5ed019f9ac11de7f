"""Arms of a measurement, and sweeps with tables of probes, written without training."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnexp.report.measurements.measurement import Arm
from bnexp.report.read.probe_tables import ProbeTable

Rows = Sequence[Mapping[str, Any]]


def arm(
    name: str, tables: Sequence[Rows], *, is_baseline: bool = False, index: int = 1, **settings: Any
) -> Arm:
    """An arm with one table a seed; ``model_norm="batch"`` is the setting model.norm."""
    dotted = {
        key if key == "batch_size" else key.replace("_", ".", 1): value for key, value in settings.items()
    }
    by_seed = {(seed, None): ProbeTable(tuple(rows)) for seed, rows in enumerate(tables)}
    return Arm(name, 0 if is_baseline else index, "", is_baseline, dotted, by_seed)


def write_probe(run: Path, name: str, rows: Rows) -> None:
    """probes/NAME.csv of a run's folder."""
    (run / "probes").mkdir(exist_ok=True)
    with (run / "probes" / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
