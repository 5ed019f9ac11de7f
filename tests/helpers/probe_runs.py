"""Runs with probes, trained in this process."""

from __future__ import annotations

import csv
from pathlib import Path

from bnexp.signals import StopSignal
from bnexp.training.run import train as train_run
from helpers.fused_runs import make_run

STEPS = 20  # of one epoch


def train(root: Path, *overrides: str, epochs: int = 2, stop: StopSignal | None = None) -> Path:
    """Trains the run in ``root``, or carries it on; returns its folder."""
    texts = ("batch_size=10", f"epochs={epochs}", "tracking.tensorboard=false", *overrides)
    run = make_run(root, 0, texts)
    train_run(run.config, run.folder, run.job, run.share, stop or StopSignal())
    run.folder.update(status="finished")
    return root / "0"


def read_probe(folder: Path, name: str) -> list[dict[str, str]]:
    """The rows of probes/NAME.csv."""
    with (folder / "probes" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
