"""On a GPU: whole runs of the command, in several precisions, with and without graphs."""

from __future__ import annotations

import csv
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.commands import MAIN, run_python
from bench.recipes import parse_overrides, scale_images, time_bare_step
from bench.table import Row, Table, median

RESNET = ("model=resnet", "dataset=cifar10", "dataset.augment=[flip,crop]", "optimizer=momentum")


@dataclass(frozen=True)
class GpuRecipe:
    overrides: tuple[str, ...]
    images: int
    target_s: float | None = None  # the training time to reach on a data centre's GPU


GPU_RECIPES = {
    "MLP, MNIST, 10 epochs": GpuRecipe(("experiment=mnist_mlp",), 60_000, 0.8),
    "conv, MNIST, 5 epochs": GpuRecipe(("experiment=mnist_conv",), 60_000, 0.6),
    "resnet, CIFAR-10 at 96 px, 20 epochs": GpuRecipe(("experiment=cifar10_resnet96",), 50_000, 30.0),
    "resnet, CIFAR-10, flip and crop, batch 512, 5 epochs": GpuRecipe(
        (*RESNET, "batch_size=512", "epochs=5", "dataset.val_size=0"), 50_000
    ),
}
VARIANTS = {
    "fp32": ("device.graphs=false",),
    "fp32, graph": ("device.graphs=true",),
    "bf16": ("device.precision=bf16", "device.graphs=false"),
    "bf16, graph": ("device.precision=bf16", "device.graphs=true"),
    "bf16, compiled": ("device.precision=bf16", "device.compile=true"),
}


def gpu(models: list[str], repeats: int, scale: float) -> list[Table]:
    """Each recipe in each variant. Without a GPU: the first variant on the CPU, which tests this code."""
    has_gpu = torch.cuda.is_available()
    variants = VARIANTS if has_gpu else {"fp32": VARIANTS["fp32"]}
    rows = [_measure(name, variant, repeats, scale) for name in GPU_RECIPES for variant in variants]
    place = torch.cuda.get_device_name() if has_gpu else "the CPU, because there is no GPU"
    note = (
        f"On {place}. Whole commands; the ceiling is the bare step on a fixed batch, without a graph. Extra"
        " time of the first epoch: beyond the median epoch; it is paid once, for compiling, capturing, and"
        " cuDNN's search for the fastest kernels."
    )
    return [Table("GPU", note, rows)]


def _measure(name: str, variant: str, repeats: int, scale: float) -> Row:
    recipe = GPU_RECIPES[name]
    overrides = [*recipe.overrides, *VARIANTS[variant]]
    if scale < 1:
        count = scale_images(recipe.images, scale)
        # The first epoch and one after it.
        overrides += [f"dataset.train_size={count}", f"dataset.test_size={min(count, 10_000)}", "epochs=2"]
    runs = [_run(overrides) for _ in range(repeats)]
    ceiling = median([time_bare_step(parse_overrides(overrides)) for _ in range(repeats)])
    images_per_s = median([run["images_per_s"] for run in runs])
    return {
        "run": name,
        "variant": variant,
        "training, s": median([run["train_s"] for run in runs]),
        "target, s": recipe.target_s,
        "extra time of the first epoch, s": median([run["first_epoch_extra_s"] for run in runs]),
        "images/s after it": images_per_s,
        "ceiling": ceiling,
        "ratio": images_per_s / ceiling,
        "test accuracy": median([run["accuracy"] for run in runs]),
    }


def _run(overrides: list[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        run_python(MAIN, *overrides, "hydra.run.dir=run", folder=folder)
        summary = json.loads(Path(folder, "run", "summary.json").read_text())
        with Path(folder, "run", "metrics.csv").open() as file:
            speeds = [float(row["images_per_s"]) for row in csv.DictReader(file)]
    images = summary["images"]["train"]
    images_per_s = median(speeds[1:] or speeds)
    return {
        "train_s": summary["time"]["train_s"],
        "first_epoch_extra_s": images / speeds[0] - images / images_per_s,
        "images_per_s": images_per_s,
        "accuracy": summary["final"]["test/accuracy"],
    }
