"""When two configurations are the same experiment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Where null, these keys of a scheduler are the whole run: its learning rates follow from ``epochs``.
RUN_LENGTH_KEYS = ("T_max", "total_iters", "total_steps")
# What a run is called, where its files lie, what its verdict calls small: these change no number in it.
NON_IDENTITY_KEYS = ("name", "tags", "tracking", "checkpoint", "on_failure")
NON_IDENTITY_DATASET_KEYS = ("root", "delta")


def experiment(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration changes a number: two runs that share it are the same experiment."""
    kept = {key: value for key, value in config.items() if key not in NON_IDENTITY_KEYS}
    dataset = dict(config.get("dataset", {}))
    kept["dataset"] = {key: dataset[key] for key in dataset if key not in NON_IDENTITY_DATASET_KEYS}
    return kept


def config_hash(config: Mapping[str, Any]) -> str:
    """Twelve hex digits that two runs share exactly when they are the same experiment."""
    text = json.dumps(experiment(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def can_resume(summary: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether ``config`` may carry on the run of ``summary``: the same experiment, or more epochs of it."""
    before = int(summary.get("epochs") or 0)
    same = config_hash(dict(config) | {"epochs": before}) == summary.get("config_hash")
    return same and int(config["epochs"]) >= before
