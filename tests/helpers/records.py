"""All that a run leaves behind and that must not depend on how often it was stopped."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

CLOCKS = ("train_s", "images_per_s", "epoch_s", "noise")


def record(run: Path) -> dict[str, Any]:
    """Weights, states, metrics, step losses and events, without what a clock has measured."""
    checkpoints = {
        path.name: _flat(torch.load(path, weights_only=True)) for path in run.glob("checkpoints/*.pt")
    }
    with (run / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(file)]
    summary = json.loads((run / "summary.json").read_text())
    return {
        "checkpoints": checkpoints,
        "metrics": rows,
        "steps": (run / "steps.csv").read_bytes(),
        "events": _events(run),
        "summary": {key: summary[key] for key in ("status", "config_hash", "best", "epochs", "parameters")}
        | {"final": {k: v for k, v in summary["final"].items() if k not in CLOCKS}},
    }


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested values by path; tensors as their exact bytes."""
    if isinstance(value, torch.Tensor):
        return {path: (str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes())}
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {path: value}
    found: dict[str, Any] = {}
    for name, inner in value.items():
        if name not in CLOCKS:
            found |= _flat(inner, f"{path}/{name}")
    return found


def _events(run: Path) -> Counter:
    """How often each event is there: one that is doubled, or missing, makes two runs differ."""
    found: Counter = Counter()
    for path in run.glob("events.out.tfevents.*"):
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                timed = value.tag in CLOCKS or value.tag.startswith("_hparams_")
                found[value.tag, event.step, b"" if timed else value.SerializeToString()] += 1
    return found
