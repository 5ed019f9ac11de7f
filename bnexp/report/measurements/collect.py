"""All measurements of a verdict: one for each probe of its runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bnexp.report.analysis.groups import Group, Grouping
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.measurements.activations import read_activations
from bnexp.report.measurements.branches import read_branches
from bnexp.report.measurements.gap import read_gap
from bnexp.report.measurements.gradients import read_gradients
from bnexp.report.measurements.landscape import read_landscape
from bnexp.report.measurements.measurement import Arm, Measurement, Panel, curve_over_seeds
from bnexp.report.measurements.precise import read_precise
from bnexp.report.measurements.rank import read_rank
from bnexp.report.measurements.shift import read_shift
from bnexp.report.measurements.spectrum import read_spectrum
from bnexp.report.read.probe_tables import ProbeTable

READINGS: dict[str, Callable[[Sequence[Arm]], Measurement]] = {
    "activations": read_activations,
    "branches": read_branches,
    "gap": read_gap,
    "gradients": read_gradients,
    "landscape": read_landscape,
    "precise": read_precise,
    "rank": read_rank,
    "shift": read_shift,
    "spectrum": read_spectrum,
}
MAX_PANELS = 6


def measurements(verdict: Verdict) -> list[Measurement]:
    """In the order of the probes' names. A group without a probe's table is no arm of it."""
    groups = verdict.grouping.groups
    names = dict.fromkeys(name for group in groups for run in group.runs for name in run.probes)
    results = []
    for name in names:
        arms = [arm for group in groups if (arm := _arm(group, name, verdict.grouping)).tables]
        results.append(READINGS[name](arms) if name in READINGS else _read_own_probe(name, arms))
    return results


def _arm(group: Group, probe: str, grouping: Grouping) -> Arm:
    tables = {run.pair_key: run.probes[probe] for run in group.runs if probe in run.probes}
    settings = dict(group.runs[0].settings)
    is_baseline = grouping.baseline_of(group) is None
    return Arm(group.name, grouping.groups.index(group), group.block, is_baseline, settings, tables)


def _read_own_probe(name: str, arms: Sequence[Arm]) -> Measurement:
    """A probe that bnexp does not know: each column of numbers over the steps, mean over the other rows."""
    table = next(iter(arms[0].tables.values()))
    columns = [
        column for column, cell in table.rows[0].items() if column != "step" and isinstance(cell, float)
    ]
    panels = [_own_panel(column, arms) for column in columns[:MAX_PANELS]]
    caption = f"What the probe {name} measured, mean over the rows of a step. Bands: least to greatest seed."
    return Measurement(name, f"What does the probe {name} show?", [], [], panels, caption)


def _own_panel(column: str, arms: Sequence[Arm]) -> Panel:
    curves = [curve_over_seeds(arm, lambda table: _mean_by_step(table, column)) for arm in arms]
    return Panel(column, "step", column, curves)


def _mean_by_step(table: ProbeTable, column: str) -> dict[float, float]:
    values: dict[float, list[float]] = {}
    for row in table.rows:
        values.setdefault(float(row["step"]), []).append(float(row[column]))
    return {step: sum(cells) / len(cells) for step, cells in values.items()}
