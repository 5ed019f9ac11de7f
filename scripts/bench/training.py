"""Training and evaluation in this process: against their ceilings, what recording costs, how it grows."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from bench import recipes
from bench.recipes import RECIPES, bare_step, prepare, recipe_keys, scaled, tutorial, whole_loop
from bench.table import Row, Table, interleaved, median, ratio, spread
from bnexp.config.schema import Config
from bnexp.runs.console_logger import ConsoleLogger
from bnexp.runs.csv_logger import CsvLogger
from bnexp.runs.tensorboard_logger import TensorBoardLogger
from bnexp.training.build import DataSplits
from bnexp.training.checkpoint import Checkpoints
from bnexp.training.metrics import Meter
from bnexp.training.trainer import Trainer

BATCH_SIZES = (16, 64, 256, 1024, 4096)
DATA_SIZES = (1_000, 4_000, 15_000, 60_000)


def train(models: list[str], repeats: int, scale: float) -> list[Table]:
    """bnexp's whole loop, the bare step and the tutorials' way."""
    rows: list[Row] = []
    for name in models:
        keys = recipe_keys(name, scale)
        with tempfile.TemporaryDirectory() as folder:
            ours = partial(_rate, keys, Path(folder), RECIPES[name].epoch)
            ours(), tutorial(name, keys, scale / 8)  # warm: caches, allocator, thread pool
            ways: dict[str, Callable[[], float]] = {
                "a": ours,
                "b": partial(bare_step, keys),
                "c": partial(tutorial, name, keys, scale),
            }
            found = interleaved(ways, repeats)
        rows.append(
            {
                "model": name,
                "threads": torch.get_num_threads(),
                "a: bnexp": median(found["a"]),
                "b: ceiling": median(found["b"]),
                "c: tutorial": median(found["c"]),
                "a/b": ratio(found["a"], found["b"]),
                "a/b from, to": spread(found["a"], found["b"]),
                "a/c": ratio(found["a"], found["c"]),
                "a/c from, to": spread(found["a"], found["c"]),
            }
        )
    note = (
        f"Images/s, medians of {repeats}; the ratios are medians of paired ones. a: the whole loop, all its"
        " recording on, over a full epoch; b: the same step on one fixed batch with nothing around it; c: a"
        " transform an image, a DataLoader and loss.item() each step."
    )
    return [Table("Training", note, rows)]


def _rate(keys: Config, folder: Path, epoch: int) -> float:
    return whole_loop(keys, folder).rate(epoch)


def evaluate(models: list[str], repeats: int, scale: float) -> list[Table]:
    """The evaluation of a split against the forward pass of one fixed batch."""
    rows: list[Row] = []
    for name in models:
        large = RECIPES[name].images < 1000
        words = ["eval_batch_size=64", "dataset.test_size=128"] if large else []
        keys = recipe_keys(name, min(scale, 0.1), *words)
        trainer, images = prepare(keys)
        size = keys.eval_batch_size
        passes = max(1, round(scale * (20 if name.startswith("mlp") else 1)))

        def ours(trainer=trainer, images=images, passes=passes, size=size) -> float:
            started = time.perf_counter()
            for _ in range(passes):
                trainer.evaluate(images.test, size)
            return passes * len(images.test) / (time.perf_counter() - started)

        @torch.inference_mode()
        def bare(batches: list[tuple[Tensor, Tensor]], trainer=trainer, passes=passes) -> float:
            trainer.model.eval()
            started = time.perf_counter()
            for _ in range(passes):
                for pixels, labels in batches:
                    trainer.loss(trainer.model(pixels), labels)
            return passes * sum(len(labels) for _, labels in batches) / (time.perf_counter() - started)

        ours()  # a set that is read again is kept as it is read
        every = list(images.test.in_order(size))
        ways: dict[str, Callable[[], float]] = {
            "a": ours,
            "b": partial(bare, every),
            "c": partial(bare, every[:1] * len(every)),
        }
        ways["b"]()
        found = interleaved(ways, repeats)
        rows.append(
            {
                "model": name,
                "a: bnexp": median(found["a"]),
                "b: ceiling": median(found["b"]),
                "c: one batch": median(found["c"]),
                "a/b": ratio(found["a"], found["b"]),
                "a/b from, to": spread(found["a"], found["b"]),
                "a/c": ratio(found["a"], found["c"]),
            }
        )
    note = (
        "Images/s over the test set, against b: forward and loss of the same batches as they lie in memory,"
        " c: of one of them again and again, which stays in the processor's cache."
    )
    return [Table("Evaluation", note, rows)]


def recording(models: list[str], repeats: int, scale: float) -> list[Table]:
    """What each kind of recording takes of an epoch: the time spent in its calls."""
    rows: list[Row] = []
    for name in models:
        keys = recipe_keys(name, scale)
        shares = [_shares(keys, RECIPES[name].epoch) for _ in range(repeats + 1)][1:]
        row: Row = {"model": name} | {part: median([s[part] for s in shares]) for part in shares[0]}
        rows.append(row)
    note = (
        "Per cent of a full epoch, by the time spent in the calls; steps.csv is every step's loss; reading is"
        " what brings losses and hits from the device to the loggers, once in a window of steps."
    )
    return [Table("Recording", note, rows)]


class Spent(defaultdict[str, float]):
    """Seconds spent in calls, by what they are part of."""

    def __init__(self) -> None:
        super().__init__(float)

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*words: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*words, **named)
            finally:
                self[part] += time.perf_counter() - started

        return run

    def drawn(self, part: str, make: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """The same of what an iterator takes to give its next."""

        def run(*words: Any) -> Iterator[Any]:
            draw = self.timed(part, partial(next, make(*words), None))
            while (item := draw()) is not None:
                yield item

        return run


def profile(models: list[str], repeats: int, scale: float) -> list[Table]:
    """What an epoch of the whole loop is spent on."""
    rows: list[Row] = []
    for name in models:
        keys = recipe_keys(name, scale)
        shares = [_parts(keys, RECIPES[name].epoch) for _ in range(repeats + 1)][1:]
        rows.append({"model": name} | {part: median([s[part] for s in shares]) for part in shares[0]})
    note = (
        "Per cent of a full epoch. batches: order, gather, normalise; the rest is Python between the calls"
        " (and these clocks). Recording is split up in the table of that name."
    )
    return [Table("Profile", note, rows)]


def _parts(keys: Config, epoch: int) -> dict[str, float]:
    spent = Spent()

    def prepared(keys: Config) -> tuple[Trainer, DataSplits]:
        trainer, images = prepare(keys)
        trainer.forward_with_all = spent.timed("forward", trainer.forward_with_all)
        trainer.loss = spent.timed("loss", trainer.loss)
        trainer.backward = spent.timed("backward", trainer.backward)
        trainer.update = spent.timed("update", trainer.update)
        images.train.epoch = spent.drawn("batches", images.train.epoch)
        return trainer, images

    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(recipes, "prepare", prepared),
        patch.object(Meter, "drain", spent.timed("reading and recording", Meter.drain)),
    ):
        found = recipes.whole_loop(keys, Path(folder))
    parts = ("batches", "forward", "loss", "backward", "update", "reading and recording")
    steps, whole = epoch / found.images, epoch / found.rate(epoch)
    seconds = {part: spent[part] * steps for part in parts}
    seconds["reading and recording"] += found.once_s
    shares = {part: 100 * value / whole for part, value in seconds.items()}
    return shares | {"the rest": 100 - sum(shares.values())}


def _shares(keys: Config, epoch: int) -> dict[str, float]:
    spent = Spent()
    stepwise = {"steps.csv": CsvLogger, "console": ConsoleLogger, "TensorBoard, steps": TensorBoardLogger}
    once = {"metrics.csv": CsvLogger, "TensorBoard, epoch": TensorBoardLogger}
    with tempfile.TemporaryDirectory() as folder, patch.object(Meter, "drain", Meter.drain):
        patches = [
            patch.object(kind, "steps", spent.timed(part, kind.steps)) for part, kind in stepwise.items()
        ]
        patches += [patch.object(kind, "epoch", spent.timed(part, kind.epoch)) for part, kind in once.items()]
        patches.append(patch.object(Checkpoints, "save", spent.timed("checkpoint", Checkpoints.save)))
        patches.append(patch.object(Meter, "drain", spent.timed("drain", Meter.drain)))
        for change in patches:
            change.start()
        try:
            found = recipes.whole_loop(keys, Path(folder))
        finally:
            for change in patches:
                change.stop()
    whole = epoch / found.rate(epoch)
    steps = epoch / found.images  # what grows with the steps is brought to a full epoch
    seconds = {part: spent[part] * steps for part in stepwise}
    seconds |= {part: spent[part] for part in (*once, "checkpoint")}
    logged = sum(spent[part] for part in stepwise)
    shares = {part: 100 * value / whole for part, value in seconds.items()}
    shares["all recording"] = sum(shares.values())
    shares["reading"] = 100 * (spent["drain"] - logged) * steps / whole
    return shares


def growth(models: list[str], repeats: int, scale: float) -> list[Table]:
    """Speed by batch size and by the number of images."""
    batches: list[Row] = []
    sizes: list[Row] = []
    for name in models:
        for size in BATCH_SIZES:
            keys = recipe_keys(name, scale, f"batch_size={size}")
            with tempfile.TemporaryDirectory() as folder:
                ways: dict[str, Callable[[], float]] = {
                    "a": partial(_rate, keys, Path(folder), RECIPES[name].epoch),
                    "b": partial(bare_step, keys),
                }
                found = interleaved(ways, repeats)
            batches.append(
                {
                    "model": name,
                    "batch size": str(size),
                    "threads": torch.get_num_threads(),
                    "images/s": median(found["a"]),
                    "ceiling": median(found["b"]),
                    "ratio": ratio(found["a"], found["b"]),
                }
            )
        for count in DATA_SIZES:
            keys = recipe_keys(name, scale, f"dataset.train_size={scaled(count, scale)}")
            with tempfile.TemporaryDirectory() as folder:
                epochs = [whole_loop(keys, Path(folder)) for _ in range(repeats)]
            seconds = median([found.steps_s + found.once_s for found in epochs])
            sizes.append(
                {
                    "model": name,
                    "images": epochs[0].images,
                    "epoch, s": seconds,
                    "images/s": epochs[0].images / seconds,
                    "once an epoch, s": median([found.once_s for found in epochs]),
                }
            )
    return [
        Table("Growth with the batch size", "Images/s of the whole loop and of the bare step.", batches),
        Table(
            "Growth with the data",
            "One epoch of the whole loop; its last column does not grow: checkpoint, metrics, events.",
            sizes,
        ),
    ]
