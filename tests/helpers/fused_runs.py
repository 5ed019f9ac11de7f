"""Runs of several seeds in folders of their own, as a sweep hands them to ``train_fused``.

``python -m helpers.fused_runs FOLDER SEEDS [key=value ...]`` trains them in a process of its own.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from bnexp.cli.composed_config import resolve_config
from bnexp.config.schema import parse
from bnexp.runs.folder import RunFolder
from bnexp.runs.job import Job, MachineShare
from bnexp.signals import StopSignal
from bnexp.training.fused.run import train_fused
from bnexp.training.fused.unit import FusedRun

OVERRIDES = ("device=cpu", "device.threads=1", "dataset.train_size=200", "dataset.test_size=50", "epochs=3")


def make_run(root: Path, seed: int, overrides: Sequence[str] = ()) -> FusedRun:
    """A run in ``root/SEED``; it goes on from what is there."""
    texts = [*OVERRIDES, *overrides, f"seed={seed}", "name=fused"]
    with initialize_config_module("bnexp.conf", version_base="1.3"):
        composed = compose("config", overrides=texts, return_hydra_config=False)
    values = resolve_config(composed)
    path = root / str(seed)
    path.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(path, values, texts)
    text = OmegaConf.to_yaml(OmegaConf.create(values))
    job = Job(str(path), values, "", texts, {}, {}, {}, text)
    return FusedRun(parse(values), folder, job, MachineShare())


def train(
    root: Path, seeds: Sequence[int], overrides: Sequence[str] = (), stop: StopSignal | None = None
) -> list[str]:
    """Trains the seeds together; returns their statuses."""
    return train_fused([make_run(root, seed, overrides) for seed in seeds], stop or StopSignal())


def summary(path: Path) -> dict:
    return json.loads((path / "summary.json").read_text())


def rows(path: Path, name: str = "metrics.csv") -> list[dict[str, str]]:
    with (path / name).open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    with StopSignal() as signal:
        seeds = [int(seed) for seed in sys.argv[2].split(",")]
        print(train(Path(sys.argv[1]), seeds, sys.argv[3:], signal))
