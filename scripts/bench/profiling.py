"""Shares of an epoch's time: its parts, and what each kind of recording costs."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench import recipes
from bench.recipes import RECIPES, prepare_trainer, recipe_config
from bench.table import Row, Table, median
from bnexp.config.schema import Config
from bnexp.data import Batch, DataSplits
from bnexp.runs.console_logger import ConsoleLogger
from bnexp.runs.csv_logger import CsvLogger
from bnexp.runs.loggers import LoggerGroup
from bnexp.runs.tensorboard_logger import TensorBoardLogger
from bnexp.training.checkpoint import Checkpoints
from bnexp.training.metrics import Meter
from bnexp.training.trainer import Trainer

EPOCH_PARTS = ("batches", "forward", "loss", "backward", "update", "reading and recording")
STEP_LOGGERS = {"steps.csv": CsvLogger, "console": ConsoleLogger, "TensorBoard, steps": TensorBoardLogger}
EPOCH_LOGGERS = {"metrics.csv": CsvLogger, "TensorBoard, epoch": TensorBoardLogger}


def profile(models: list[str], repeats: int, scale: float) -> list[Table]:
    """The share of each part of the whole loop in an epoch."""
    note = (
        "Per cent of a full epoch. batches: order, gather, normalise. other: Python between the calls, and"
        ' these measurements. The table "Recording" splits recording up.'
    )
    return [Table("Profile", note, _median_shares(_part_shares, models, repeats, scale))]


def recording(models: list[str], repeats: int, scale: float) -> list[Table]:
    """The share of each kind of recording in an epoch: the time spent in its calls."""
    note = (
        "Per cent of a full epoch, by the time spent in the calls. steps.csv: the loss of every step."
        " reading: copying losses and numbers of correct images from the device, once a window of steps."
    )
    return [Table("Recording", note, _median_shares(_recording_shares, models, repeats, scale))]


def _median_shares(
    measure: Callable[[Config, int], dict[str, float]], models: list[str], repeats: int, scale: float
) -> list[Row]:
    """A row for each model: medians in per cent. The first measurement is a warm-up and not counted."""
    rows: list[Row] = []
    for name in models:
        config = recipe_config(name, scale)
        repeated = [measure(config, RECIPES[name].epoch_images) for _ in range(repeats + 1)][1:]
        medians = {part: median([shares[part] for shares in repeated]) for part in repeated[0]}
        rows.append({"model": name} | medians)
    return rows


class CallTimer(defaultdict[str, float]):
    """Seconds spent in calls, by part."""

    def __init__(self) -> None:
        super().__init__(float)

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with the time of its calls added to ``part``."""

        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self[part] += time.perf_counter() - start

        return call

    def wrap_iterator(
        self, part: str, make_iterator: Callable[..., Iterator[Any]]
    ) -> Callable[..., Iterator[Any]]:
        """The same for a function that returns an iterator: the time to produce its items."""

        def iterate(*args: Any) -> Iterator[Any]:
            produce = self.wrap(part, partial(next, make_iterator(*args), None))
            while (item := produce()) is not None:
                yield item

        return iterate


def _part_shares(config: Config, epoch_images: int) -> dict[str, float]:
    timer = CallTimer()

    def prepare_timed(config: Config) -> tuple[Trainer, DataSplits]:
        trainer, splits = prepare_trainer(config)
        trainer.training_network = timer.wrap("forward", trainer.training_network)
        trainer.loss.forward = timer.wrap("loss", trainer.loss.forward)
        trainer.backward = timer.wrap("backward", trainer.backward)
        trainer.optimizer_step = timer.wrap("update", trainer.optimizer_step)
        splits.train.epoch = timer.wrap_iterator("batches", splits.train.epoch)
        return trainer, splits

    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(recipes, "prepare_trainer", prepare_timed),
        patch.object(Batch, "tensors", timer.wrap("batches", Batch.tensors)),
        patch.object(Meter, "read", timer.wrap("reading and recording", Meter.read)),
        patch.object(LoggerGroup, "steps", timer.wrap("reading and recording", LoggerGroup.steps)),
    ):
        epoch = recipes.time_whole_loop(config, Path(folder))
    scale = epoch_images / epoch.images  # from the measured steps to those of a full epoch
    epoch_s = epoch_images / epoch.images_per_s(epoch_images)
    seconds = {part: timer[part] * scale for part in EPOCH_PARTS}
    seconds["reading and recording"] += epoch.once_s
    shares = {part: 100 * value / epoch_s for part, value in seconds.items()}
    return shares | {"other": 100 - sum(shares.values())}


def _recording_shares(config: Config, epoch_images: int) -> dict[str, float]:
    timer = CallTimer()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as patches:
        for part, logger in STEP_LOGGERS.items():
            patches.enter_context(patch.object(logger, "steps", timer.wrap(part, logger.steps)))
        for part, logger in EPOCH_LOGGERS.items():
            patches.enter_context(patch.object(logger, "epoch", timer.wrap(part, logger.epoch)))
        patches.enter_context(patch.object(Checkpoints, "save", timer.wrap("checkpoint", Checkpoints.save)))
        patches.enter_context(patch.object(Meter, "read", timer.wrap("read", Meter.read)))
        epoch = recipes.time_whole_loop(config, Path(folder))
    epoch_s = epoch_images / epoch.images_per_s(epoch_images)
    scale = epoch_images / epoch.images  # for what grows with the number of steps
    seconds = {part: timer[part] * scale for part in STEP_LOGGERS}
    seconds |= {part: timer[part] for part in (*EPOCH_LOGGERS, "checkpoint")}
    shares = {part: 100 * value / epoch_s for part, value in seconds.items()}
    shares["all recording"] = sum(shares.values())
    shares["reading"] = 100 * timer["read"] * scale / epoch_s
    return shares
