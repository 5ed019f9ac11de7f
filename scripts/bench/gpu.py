"""On a GPU: whole runs as the command makes them, each way that a GPU offers, against the bare step."""

from __future__ import annotations

import csv
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.commands import MAIN, python
from bench.recipes import bare_step, parse, scaled
from bench.table import Row, Table, median

RESNET = ("model=resnet", "dataset=cifar10", "dataset.augment=[flip,crop]", "optimizer=momentum")


@dataclass(frozen=True)
class Whole:
    """A run by its words; ``target`` is what its training may take on a data centre's GPU, in seconds."""

    words: tuple[str, ...]
    images: int
    target: float | None = None


RUNS = {
    "MLP, MNIST, 10 epochs": Whole(("experiment=mnist_mlp",), 60_000, 0.8),
    "conv, MNIST, 5 epochs": Whole(("experiment=mnist_conv",), 60_000, 0.6),
    "resnet, CIFAR-10 at 96 px, 20 epochs": Whole(("experiment=cifar10_resnet96",), 50_000, 30.0),
    "resnet, CIFAR-10, flip and crop, batch 512, 5 epochs": Whole(
        (*RESNET, "batch_size=512", "epochs=5", "dataset.val_size=0"), 50_000
    ),
}
WAYS = {
    "fp32": ("device.graphs=false",),
    "fp32, graph": ("device.graphs=true",),
    "bf16": ("device.precision=bf16", "device.graphs=false"),
    "bf16, graph": ("device.precision=bf16", "device.graphs=true"),
    "bf16, compiled": ("device.precision=bf16", "device.compile=true"),
}


def gpu(models: list[str], repeats: int, scale: float) -> list[Table]:
    """Each run in each way; without a GPU the first way alone, on the CPU."""
    there = torch.cuda.is_available()
    rows: list[Row] = []
    for name, whole in RUNS.items():
        words = list(whole.words)
        if scale < 1:
            count = scaled(whole.images, scale)
            words += [f"dataset.train_size={count}", f"dataset.test_size={min(count, 10_000)}"]
        for way, more in (WAYS if there else {"fp32": WAYS["fp32"]}).items():
            made = [_run([*words, *more]) for _ in range(repeats)]
            ceiling = median([bare_step(parse([*words, *more])) for _ in range(repeats)])
            rate = median([run["rate"] for run in made])
            rows.append(
                {
                    "run": name,
                    "way": way,
                    "training, s": median([run["train_s"] for run in made]),
                    "wanted": whole.target,
                    "first epoch more, s": median([run["first_s"] for run in made]),
                    "images/s after it": rate,
                    "ceiling": ceiling,
                    "ratio": rate / ceiling,
                    "test accuracy": median([run["accuracy"] for run in made]),
                }
            )
    where = torch.cuda.get_device_name() if there else "the CPU: there is no GPU here"
    note = (
        f"On {where}. Whole commands; the ceiling is the bare step, launch by launch, on a fixed batch. What"
        " the first epoch takes more than the median one is what is paid once: compiling, capturing, cuDNN's"
        " search for its fastest kernels."
    )
    return [Table("GPU", note, rows)]


def _run(words: list[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        python(MAIN, *words, "hydra.run.dir=run", folder=folder)
        summary = json.loads(Path(folder, "run", "summary.json").read_text())
        with Path(folder, "run", "metrics.csv").open() as file:
            rates = [float(row["images_per_s"]) for row in csv.DictReader(file)]
    images = summary["images"]["train"]
    rate = median(rates[1:] or rates)
    return {
        "train_s": summary["time"]["train_s"],
        "first_s": images / rates[0] - images / rate,
        "rate": rate,
        "accuracy": summary["final"]["test/accuracy"],
    }
