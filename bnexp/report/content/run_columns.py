"""The runs as a table, for runs.csv, curves.csv and Python: one row a run, or one a run, epoch and metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bnexp.report.analysis.settings import ABSENT, tabulate_settings
from bnexp.report.read.runs import Run


def key_columns(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Each key that differs between the runs, as saved; None where a run has no such key. Then the seed."""
    varying, _, _ = tabulate_settings(runs)
    columns: dict[str, list[Any]] = {
        key: [_value(run, key, text) for run, text in zip(runs, texts, strict=True)]
        for key, texts in varying.items()
    }
    columns["seed"] = [run.seed for run in runs]
    if any(run.fold is not None for run in runs):
        columns["fold"] = [run.fold for run in runs]
    return columns


def run_columns(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The keys, the outcome, final and best metrics (accuracies from 0 to 1), cost and folder of each run."""
    final, best = ({key: None for run in runs for key in metrics(run)} for metrics in (_final, _best))
    return {
        **key_columns(runs),
        "status": ["diverged" if run.diverged else "finished" for run in runs],
        **{f"final {key}": [run.final.get(key) for run in runs] for key in final},
        **{f"best {key}": [run.best.get(key) for run in runs] for key in best},
        "images_per_s": [run.images_per_s for run in runs],
        "total_s": [run.total_s for run in runs],
        "parameters": [run.parameters for run in runs],
        "folder": [run.folder for run in runs],
    }


def curve_columns(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Long form: a row for each run, epoch and metric of metrics.csv; empty cells are left out."""
    keys = key_columns(runs)
    columns: dict[str, list[Any]] = {name: [] for name in (*keys, "epoch", "metric", "value")}
    for row, run in enumerate(runs):
        epochs = [int(epoch) for epoch in run.curves.get("epoch", ())]
        for metric, values in run.curves.items():
            if metric == "epoch":
                continue
            points = [(e, value) for e, value in zip(epochs, values, strict=True) if value == value]
            for key, cells in keys.items():
                columns[key] += [cells[row]] * len(points)
            columns["epoch"] += [epoch for epoch, _ in points]
            columns["metric"] += [metric] * len(points)
            columns["value"] += [value for _, value in points]
    return columns


def _final(run: Run) -> Sequence[str]:
    return tuple(run.final)


def _best(run: Run) -> Sequence[str]:
    return tuple(run.best)


def _value(run: Run, key: str, text: str) -> Any:
    """A number as it is, everything else as it is typed; None where the run has no such key."""
    if text == ABSENT:
        return None
    value = run.settings[key]
    return value if type(value) in (int, float) else text
