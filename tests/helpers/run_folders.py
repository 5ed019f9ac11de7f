"""Run folders made by hand, as a run of bnexp leaves them, and comparisons of them."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from bnexp.report.analysis.verdict import Comparison, compare
from bnexp.report.read.runs import read_runs

CONFIG = {
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


def write_run(
    root: Path, accuracy: float | None, *, status: str = "finished", folder: str | None = None, **keys: object
) -> Path:
    """One run's folder; keys such as ``model_norm="batch"`` go into the configuration."""
    config = json.loads(json.dumps(CONFIG))
    words = []
    for key, value in keys.items():
        group, _, name = key.partition("_")
        inside = config[group] if group in config and name and isinstance(config[group], dict) else config
        inside[name if inside is not config else key] = value
        words.append(f"{group}.{name}={value}" if inside is not config else f"{key}={value}")
    run = root / (folder or ",".join(words).replace("/", "_") or "run")
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    final = (
        {} if accuracy is None else {"train/loss": 0.1, "test/accuracy": accuracy, "test/loss": 1 - accuracy}
    )
    summary = {
        "status": status, "overrides": words, "seed": config["seed"], "epochs": config["epochs"],
        "parameters": 79510, "best": None, "final": final,
        "time": {"images_per_s": 1000.0, "total_s": 30.0},
        "error": None if status == "finished" else "what went wrong",
    }  # fmt: skip
    (run / "summary.json").write_text(json.dumps(summary))
    rows = [HEADER]
    for epoch in range(1, config["epochs"] + 1):
        at = "" if accuracy is None else accuracy - 0.01 * (config["epochs"] - epoch)
        loss = "" if accuracy is None else 1 - at
        rows.append(f"{epoch},{0.1 * config['epochs'] / epoch},0.9,,,{loss},{at},0.1,1000,2.0")
    (run / "metrics.csv").write_text("\n".join(rows) + "\n")
    return run


def write_sweep(root: Path, groups: dict[str, list[float | None]], **keys: object) -> Path:
    """A sweep over ``model.norm``: accuracies in per cent by seed; None is a run that diverged."""
    for norm, values in groups.items():
        for seed, value in enumerate(values):
            write_run(
                root, None if value is None else value / 100, status="finished" if value else "diverged",
                **{"model_norm": norm, "seed": seed, **keys},
            )  # fmt: skip
    return root


def compare_groups(root: Path, groups: dict[str, list[float | None]], **words: object) -> Comparison:
    runs, problems = read_runs([write_sweep(root, groups)])
    return compare(runs, problems, **words)
