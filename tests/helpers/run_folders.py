"""Run folders as bnexp leaves them, written without training, and comparisons of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bnexp.report.analysis.verdict import Verdict, compare
from bnexp.report.read.runs import read_runs

CONFIG: dict[str, Any] = {
    "name": "${hydra:runtime.choices.model}",
    "tags": [],
    "seed": 0,
    "epochs": 3,
    "batch_size": 64,
    "tracking": {"every": 100},
    "model": {"_target_": "bnexp.models.MLP", "norm": "none", "hidden": [100]},
    "dataset": {"name": "mnist", "root": "${oc.env:BNEXP_DATA_DIR,data}", "val_size": 0, "fold": None},
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
    "device": {"threads": None, "precision": "fp32"},
}
HEADER = (
    "epoch,train/loss,train/accuracy,val/loss,val/accuracy,test/loss,test/accuracy,lr,images_per_s,epoch_s"
)
Accuracies = Sequence[float | None]  # in percent, by seed; None: the run diverged


def write_run(
    root: Path,
    accuracy: float | None,
    *,
    status: str = "finished",
    folder: str | None = None,
    best: float | None = None,
    curve: Sequence[float] | None = None,
    record: Mapping[str, Any] | None = None,
    **keys: object,
) -> Path:
    """One run's folder. ``model_norm="batch"`` sets the key model.norm; ``accuracy`` is between 0 and 1.

    ``best`` is the test accuracy at the epoch that validation chose, ``curve`` the watched accuracy of each
    epoch: of val where there is a best epoch, else of test. ``record`` adds keys to summary.json.
    """
    config, overrides = json.loads(json.dumps(CONFIG)), []
    for name, value in keys.items():
        group, _, key = name.partition("_")
        if key and isinstance(config.get(group), dict):
            config[group][key] = value
            overrides.append(f"{group}.{key}={value}")
        else:
            config[name] = value
            overrides.append(f"{name}={value}")
    run = root / (folder or ",".join(overrides).replace("/", "_") or "run")
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    final = {}
    if accuracy is not None:
        final = {"train/loss": 0.1, "test/accuracy": accuracy, "test/loss": 1 - accuracy}
    summary = {
        "status": status,
        "overrides": overrides,
        "seed": config["seed"],
        "epochs": config["epochs"],
        "parameters": 79510,
        "best": None if best is None else {"epoch": 1, "val/accuracy": best, "test/accuracy": best},
        "final": final,
        "time": {"images_per_s": 1000.0, "total_s": 30.0},
        "error": None if status == "finished" else "what went wrong",
    }
    (run / "summary.json").write_text(json.dumps(summary | dict(record or {})))
    text = _metrics(accuracy, config["epochs"])
    if curve is not None:
        text = "\n".join([HEADER, *_curve_rows(curve, "test" if best is None else "val")]) + "\n"
    (run / "metrics.csv").write_text(text)
    return run


def _metrics(accuracy: float | None, epochs: int) -> str:
    """metrics.csv: test accuracy rises by one point an epoch; empty cells for a diverged run."""
    rows = [HEADER]
    for epoch in range(1, epochs + 1):
        test_accuracy = "" if accuracy is None else accuracy - 0.01 * (epochs - epoch)
        test_loss = "" if accuracy is None else 1 - test_accuracy
        rows.append(f"{epoch},{0.1 * epochs / epoch},0.9,,,{test_loss},{test_accuracy},0.1,1000,2.0")
    return "\n".join(rows) + "\n"


def _curve_rows(curve: Sequence[float], split: str) -> list[str]:
    cells = [f",,{1 - x},{x}" if split == "test" else f"{1 - x},{x},," for x in curve]
    return [f"{epoch},0.1,0.9,{cell},0.1,1000,2.0" for epoch, cell in enumerate(cells, 1)]


def write_sweep(root: Path, groups: Mapping[str, Accuracies], **keys: object) -> Path:
    """A sweep over ``model.norm`` and seeds."""
    for norm, accuracies in groups.items():
        for seed, accuracy in enumerate(accuracies):
            write_run(
                root,
                None if accuracy is None else accuracy / 100,
                status="diverged" if accuracy is None else "finished",
                **{"model_norm": norm, "seed": seed, **keys},
            )
    return root


def compare_groups(root: Path, groups: Mapping[str, Accuracies], **options: Any) -> Verdict:
    """The comparison of a sweep over ``model.norm``."""
    runs, problems = read_runs([write_sweep(root, groups)])
    return compare(runs, problems, **options)


NONE = (97.0, 97.2, 96.9, 97.1, 97.0)  # accuracies of five seeds without a norm


def shifted(*differences: float) -> list[float]:
    """Accuracies of the first seeds of ``NONE``, each changed by its difference."""
    return [round(accuracy + difference, 4) for accuracy, difference in zip(NONE, differences, strict=False)]


def forget_identity(run: Path) -> None:
    """The run's summary no longer says which configuration it had: any may stand in the folder."""
    path = run / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(
        json.dumps(summary | {"config_hash": None, "checkpoint_identity": None}), encoding="utf-8"
    )
