"""The speed of training and evaluation in this process: against ceilings, by batch size, by data size."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from bench.recipes import (
    RECIPES,
    prepare_trainer,
    recipe_config,
    scale_images,
    time_bare_step,
    time_tutorial_loop,
    time_whole_loop,
)
from bench.table import Row, Table, measure_in_turn, median, median_ratio, ratio_range
from bnexp.config.schema import Config
from bnexp.data import Split
from bnexp.training.trainer import Trainer

BATCH_SIZES = (16, 64, 256, 1024, 4096)
DATA_SIZES = (1_000, 4_000, 15_000, 60_000)


def train(models: list[str], repeats: int, scale: float) -> list[Table]:
    """bnexp's whole loop, the bare step and the tutorials' loop."""
    rows: list[Row] = []
    for name in models:
        config = recipe_config(name, scale)
        with tempfile.TemporaryDirectory() as folder:
            measurements: dict[str, Callable[[], float]] = {
                "a": partial(_whole_loop_speed, config, Path(folder), RECIPES[name].epoch_images),
                "b": partial(time_bare_step, config),
                "c": partial(time_tutorial_loop, name, config, scale),
            }
            measurements["a"]()  # warm-up: caches, allocator, thread pool
            time_tutorial_loop(name, config, scale / 8)
            speeds = measure_in_turn(measurements, repeats)
        rows.append(
            {
                "model": name,
                "threads": torch.get_num_threads(),
                "a: bnexp": median(speeds["a"]),
                "b: ceiling": median(speeds["b"]),
                "c: tutorial": median(speeds["c"]),
                "a/b": median_ratio(speeds["a"], speeds["b"]),
                "a/b from, to": ratio_range(speeds["a"], speeds["b"]),
                "a/c": median_ratio(speeds["a"], speeds["c"]),
                "a/c from, to": ratio_range(speeds["a"], speeds["c"]),
            }
        )
    note = (
        f"Images/s, medians of {repeats}; a ratio is the median of the ratios of neighbouring measurements."
        " a: bnexp's whole loop with all its recording, over a full epoch; b: the same step on one fixed"
        " batch, without a loop around it; c: a transform for each image, a DataLoader, and loss.item() at"
        " each step."
    )
    return [Table("Training", note, rows)]


def _whole_loop_speed(config: Config, folder: Path, epoch_images: int) -> float:
    return time_whole_loop(config, folder).images_per_s(epoch_images)


def evaluate(models: list[str], repeats: int, scale: float) -> list[Table]:
    """The evaluation of the test set, against forward and loss of batches that are in memory."""
    rows: list[Row] = []
    for name in models:
        large = RECIPES[name].images < 1000
        overrides = ["eval_batch_size=64", "dataset.test_size=128"] if large else []
        config = recipe_config(name, min(scale, 0.1), *overrides)
        trainer, images = prepare_trainer(config)
        size = config.eval_batch_size
        passes = max(1, round(scale * (20 if name.startswith("mlp") else 1)))
        measurements: dict[str, Callable[[], float]] = {
            "a": partial(_evaluation_speed, trainer, images.test, size, passes)
        }
        measurements["a"]()  # warm-up: from the second evaluation on the batches are kept in memory
        batches = list(images.test.in_order(size))
        measurements["b"] = partial(_forward_speed, trainer, batches, passes)
        measurements["c"] = partial(_forward_speed, trainer, batches[:1] * len(batches), passes)
        measurements["b"]()  # warm-up
        speeds = measure_in_turn(measurements, repeats)
        rows.append(
            {
                "model": name,
                "a: bnexp": median(speeds["a"]),
                "b: ceiling": median(speeds["b"]),
                "c: one batch": median(speeds["c"]),
                "a/b": median_ratio(speeds["a"], speeds["b"]),
                "a/b from, to": ratio_range(speeds["a"], speeds["b"]),
                "a/c": median_ratio(speeds["a"], speeds["c"]),
            }
        )
    note = (
        "Images/s over the test set. a: bnexp's evaluation; b: forward and loss of the same batches, ready in"
        " memory; c: forward and loss of one batch, repeated, which stays in the processor's cache."
    )
    return [Table("Evaluation", note, rows)]


def _evaluation_speed(trainer: Trainer, batches: Split, size: int, passes: int) -> float:
    start = time.perf_counter()
    for _ in range(passes):
        trainer.classify(batches, size)
    return passes * len(batches) / (time.perf_counter() - start)


@torch.inference_mode()
def _forward_speed(trainer: Trainer, batches: list[tuple[Tensor, Tensor]], passes: int) -> float:
    trainer.model.eval()
    start = time.perf_counter()
    for _ in range(passes):
        for pixels, labels in batches:
            trainer.loss(trainer.model(pixels), labels)
    return passes * sum(len(labels) for _, labels in batches) / (time.perf_counter() - start)


def growth(models: list[str], repeats: int, scale: float) -> list[Table]:
    """The speed by batch size and by number of images."""
    batch_rows = [_batch_size_row(name, size, repeats, scale) for name in models for size in BATCH_SIZES]
    data_rows = [_data_size_row(name, count, repeats, scale) for name in models for count in DATA_SIZES]
    batch_note = "Images/s of the whole loop, and of the bare step as the ceiling."
    data_note = "One epoch of the whole loop. Last column: checkpoint, metrics and events, which do not grow."
    return [
        Table("Growth with the batch size", batch_note, batch_rows),
        Table("Growth with the data", data_note, data_rows),
    ]


def _batch_size_row(name: str, size: int, repeats: int, scale: float) -> Row:
    config = recipe_config(name, scale, f"batch_size={size}")
    with tempfile.TemporaryDirectory() as folder:
        measurements: dict[str, Callable[[], float]] = {
            "loop": partial(_whole_loop_speed, config, Path(folder), RECIPES[name].epoch_images),
            "step": partial(time_bare_step, config),
        }
        speeds = measure_in_turn(measurements, repeats)
    return {
        "model": name,
        "batch size": str(size),
        "threads": torch.get_num_threads(),
        "images/s": median(speeds["loop"]),
        "ceiling": median(speeds["step"]),
        "ratio": median_ratio(speeds["loop"], speeds["step"]),
    }


def _data_size_row(name: str, count: int, repeats: int, scale: float) -> Row:
    config = recipe_config(name, scale, f"dataset.train_size={scale_images(count, scale)}")
    with tempfile.TemporaryDirectory() as folder:
        epochs = [time_whole_loop(config, Path(folder)) for _ in range(repeats)]
    seconds = median([epoch.steps_s + epoch.once_s for epoch in epochs])
    return {
        "model": name,
        "images": epochs[0].images,
        "epoch, s": seconds,
        "images/s": epochs[0].images / seconds,
        "once an epoch, s": median([epoch.once_s for epoch in epochs]),
    }
