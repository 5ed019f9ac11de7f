"""Which configurations are the same experiment, and which may resume a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from bnexp.files import FILE_DIGITS, path_digest

PAIRING_KEYS = ("seed", "dataset.fold")  # runs that agree in them, and differ elsewhere, are twins
# Where one of these scheduler keys is null, the scheduler takes it from ``epochs``. Its learning rates then
# depend on the length of the whole run.
RUN_LENGTH_KEYS = ("T_max", "total_iters", "total_steps")
# These keys change no number of a run: its name, its files, what a sweep does after it, the epoch that its
# verdict compares (report.epoch), the difference that the verdict calls small (dataset.delta), and how a
# sweep chooses its jobs.
NON_IDENTITY_KEYS = ("name", "tags", "tracking", "checkpoint", "on_failure", "report", "sweep")
NON_IDENTITY_DATASET_KEYS = ("root", "delta")
# Keys that came later: (group, how its _target_ begins) -> each key with its default. Runs without the key
# have trained as the default says, so it changes no hash.
LATER_KEYS: dict[tuple[str, str], dict[str, Any]] = {
    ("loss", ""): {"weight": None},
    ("model", "bnexp.models."): {
        "depth": 1,
        "dropout_layers": "all",
        "norm_images": None,
        "norm_position": "before",
        "residual": "none",
    },
}


def experiment(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that changes the numbers of a run."""
    identity = {key: value for key, value in config.items() if key not in NON_IDENTITY_KEYS}
    if not identity.get("probes"):  # without probes the keys of probes change nothing
        identity.pop("probes", None)
        identity.pop("probe", None)
    dataset = dict(config.get("dataset", {}))
    for (group, target), defaults in LATER_KEYS.items():
        keys = identity.get(group)
        if isinstance(keys, Mapping) and str(keys.get("_target_", "")).startswith(target):
            identity[group] = {
                key: value for key, value in keys.items() if key not in defaults or value != defaults[key]
            }
    identity["dataset"] = {key: dataset[key] for key in dataset if key not in NON_IDENTITY_DATASET_KEYS}
    return identity


def config_hash(config: Mapping[str, Any], fingerprints: Mapping[str, str] | None = None) -> str:
    """Twelve hex digits; two runs share them exactly if they are the same experiment.

    ``fingerprints`` are those of what a configuration names but does not hold: images, the user's own code.
    """
    identity = experiment(config) | ({"fingerprints": dict(fingerprints)} if fingerprints else {})
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def checkpoint_identity(config: Mapping[str, Any], fingerprints: Mapping[str, str]) -> str:
    """``config_hash`` without epochs and patience: a resumed run may have others."""
    early_stopping = dict(config.get("early_stopping", {})) | {"patience": None}
    return config_hash(dict(config) | {"epochs": None, "early_stopping": early_stopping}, fingerprints)


def is_as_recorded(summary: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether ``config`` has the values of the run of ``summary``, as far as they are its identity.

    ``epochs`` and patience are compared for a run that recorded no ``checkpoint_identity``.
    """
    fingerprints = summary.get("fingerprints") or {}
    if recorded := summary.get("checkpoint_identity"):
        return checkpoint_identity(config, fingerprints) == recorded
    recorded = summary.get("config_hash")
    return recorded is None or config_hash(config, fingerprints) == recorded


def can_resume(
    summary: Mapping[str, Any], config: Mapping[str, Any], fingerprints: Mapping[str, str]
) -> bool:
    """Whether ``config`` may resume the run of ``summary``: the same experiment, perhaps for longer.

    It may have more epochs and another ``early_stopping.patience``.
    """
    epochs = int(summary.get("epochs") or 0)
    recorded: dict[str, Any] = {"epochs": epochs}
    if (
        "patience" in summary and "early_stopping" in config
    ):  # how long a run waits for a better epoch may change, as its length
        recorded["early_stopping"] = dict(config["early_stopping"]) | {"patience": summary["patience"]}
    # An older run recorded no fingerprints, and its hash knows none.
    known_fingerprints = fingerprints if "fingerprints" in summary else None
    is_same = config_hash(dict(config) | recorded, known_fingerprints) == summary.get("config_hash")
    return is_same and int(config["epochs"]) >= epochs and not changed_files(summary)


def describe_changes(
    summary: Mapping[str, Any], config: Mapping[str, Any], fingerprints: Mapping[str, str]
) -> str:
    """What is no longer as it was when the run of ``summary`` trained: its images, its own code; or ""."""
    recorded = summary.get("fingerprints") or {}
    texts = []
    for group in sorted({*recorded, *fingerprints} if "fingerprints" in summary else ()):
        if recorded.get(group) == fingerprints.get(group):
            continue
        if group == "dataset":
            texts.append(f"the images in {config['dataset'].get('root')} are no longer those of this run")
        else:
            texts.append(
                f"the file of {group}._target_={config[group]['_target_']}, or one that it imports,"
                " has changed since this run"
            )
    texts += [f"{path}, which this run has read, has changed since then" for path in changed_files(summary)]
    return "; ".join(texts)


def changed_files(summary: Mapping[str, Any]) -> list[str]:
    """The data files that the run's own code has read and that have other contents now.

    Also the folders that its keys name, where they hold other files now. A missing file is not
    among them: the code itself says so.
    """
    paths = []
    for path, digest in (summary.get("files") or {}).items():
        with suppress(OSError):
            if path_digest(path).hex()[:FILE_DIGITS] != digest:
                paths.append(path)
    return paths
