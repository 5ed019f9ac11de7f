"""The speed of several seeds that are trained as one network, against one seed alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from bench.recipes import prepare_trainer, recipe_config
from bench.table import Row, Table, measure_in_turn, median, median_ratio, ratio_range
from bnexp.compute.device import prepare_device
from bnexp.config.schema import Config
from bnexp.data import DataSplits, load_dataset
from bnexp.data.fused_batches import FusedData
from bnexp.data.network_input import NetworkInput
from bnexp.training import build
from bnexp.training.fused.trainer import FusedMeter, FusedTrainer, memory_format
from bnexp.training.fused.unit import fused_trainer
from bnexp.training.metrics import Meter
from bnexp.training.trainer import Trainer

REPLICAS = (1, 2, 4, 8, 16)


def fused(models: list[str], repeats: int, scale: float) -> list[Table]:
    """Training steps and evaluation: images/s of all replicas together, for each number of them."""
    training, evaluation = [], []
    for name in models:
        config = recipe_config(name, scale / 4, "device.threads=1")
        steps: dict[str, Callable[[], float]] = {}
        passes: dict[str, Callable[[], float]] = {}
        trainer, splits = prepare_trainer(config)
        steps["alone"] = partial(_single_speed, trainer, splits, config)
        passes["alone"] = partial(_single_evaluation_speed, trainer, splits, config)
        for replicas in REPLICAS:
            together, data = prepare_fused(config, replicas)
            steps[f"R={replicas}"] = partial(_fused_speed, together, data, config)
            passes[f"R={replicas}"] = partial(_fused_evaluation_speed, together, data, config)
        for rows, measurements in ((training, steps), (evaluation, passes)):
            for measure in measurements.values():
                measure()  # warm-up: kernels, allocator, cached floats
            rows.append(_row(name, measure_in_turn(measurements, repeats)))
    note = (
        f"Images/s of all R seeds together in processor time, medians of {repeats}, one thread. A ratio"
        " is the median of the ratios to neighbouring measurements of one seed alone, with their range."
    )
    return [
        Table("Fused seeds: training", note, training),
        Table("Fused seeds: evaluation", note, evaluation),
    ]


def prepare_fused(config: Config, replicas: int) -> tuple[FusedTrainer, FusedData]:
    """A new fused trainer of the first seeds, and its data."""
    device = prepare_device(config.device)
    dataset = load_dataset(config.dataset.name, config.dataset.root, config.dataset.resize)
    configs = [replace(config, seed=seed) for seed in range(replicas)]
    splits = [build.split_dataset(dataset, part, device) for part in configs]
    inputs = [NetworkInput.of_splits(images) for images in splits]
    networks = [build.model(part, data) for part, data in zip(configs, inputs, strict=True)]
    trainer = fused_trainer(config, networks, splits[0], device)
    return trainer, FusedData(splits, range(replicas), memory_format(trainer.model))


def _row(name: str, speeds: dict[str, list[float]]) -> Row:
    row: Row = {"model": name, "alone": median(speeds["alone"])}
    for label in list(speeds)[1:]:
        row[label] = median(speeds[label])
        ratio = median_ratio(speeds[label], speeds["alone"])
        row[f"{label} / alone"] = f"{ratio:.2f} ({ratio_range(speeds[label], speeds['alone'])})"
    return row


def _single_speed(trainer: Trainer, splits: DataSplits, config: Config) -> float:
    meter = Meter(config.tracking.every)
    trainer.model.train()
    start = time.process_time()
    for batch in splits.train.epoch(config.batch_size, config.seed, 1):
        meter.add(trainer.step(batch))
        if meter.is_full:
            meter.read()
    return len(splits.train) / (time.process_time() - start)


def _fused_speed(trainer: FusedTrainer, data: FusedData, config: Config) -> float:
    meter = FusedMeter(config.tracking.every)
    trainer.model.train()
    start = time.process_time()
    for batch in data.train.epoch(config.batch_size, 1):
        meter.add(trainer.step(batch))
        if meter.is_full:
            meter.read_all()
    return trainer.replicas * len(data.train) / (time.process_time() - start)


def _single_evaluation_speed(trainer: Trainer, splits: DataSplits, config: Config) -> float:
    start = time.process_time()
    trainer.classify(splits.test, config.eval_batch_size)
    return len(splits.test) / (time.process_time() - start)


def _fused_evaluation_speed(trainer: FusedTrainer, data: FusedData, config: Config) -> float:
    start = time.process_time()
    trainer.classify_all(data.test, config.eval_batch_size)
    return trainer.replicas * len(data.test) / (time.process_time() - start)
