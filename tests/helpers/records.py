"""The record of a run: everything in its folder that must not depend on how often the run was stopped."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

# Measured times and speeds; rng_states: those within an epoch, which only an interrupted run has.
IGNORED_KEYS = ("train_s", "images_per_s", "epoch_s", "rng_states")


def record(run: Path) -> dict[str, Any]:
    """Weights, states, metrics, step losses and events, without measured times and speeds."""
    checkpoints = {
        path.name: _flatten(torch.load(path, weights_only=True)) for path in run.glob("checkpoints/*.pt")
    }
    with (run / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if k not in IGNORED_KEYS} for row in csv.DictReader(file)]
    summary = json.loads((run / "summary.json").read_text())
    return {
        "checkpoints": checkpoints,
        "metrics": rows,
        "steps": (run / "steps.csv").read_bytes(),
        "events": _count_events(run),
        "summary": {key: summary[key] for key in ("status", "config_hash", "best", "epochs", "parameters")}
        | {"final": {k: v for k, v in summary["final"].items() if k not in IGNORED_KEYS}},
    }


def _flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Nested values by their path, tensors as dtype, shape and bytes."""
    if isinstance(value, torch.Tensor):
        return {path: (str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes())}
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {path: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        if name not in IGNORED_KEYS:
            flat |= _flatten(inner, f"{path}/{name}")
    return flat


def _count_events(run: Path) -> Counter:
    """How often each event occurs: a missing or a repeated one makes two runs differ."""
    counts: Counter = Counter()
    for path in run.glob("events.out.tfevents.*"):
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                is_time = value.tag in IGNORED_KEYS or value.tag.startswith("_hparams_")
                counts[value.tag, event.step, b"" if is_time else value.SerializeToString()] += 1
    return counts
