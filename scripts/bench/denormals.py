"""Whether denormal numbers slow the late epochs of a network with sigmoids."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from bench.recipes import parse_overrides, prepare_trainer, scale_images
from bench.table import Row, Table, measure_in_turn, median, median_ratio, ratio_quartiles
from bnexp.data import DataSplits
from bnexp.training.progress import Progress
from bnexp.training.trainer import Trainer

RECIPE = ("experiment=fashion_lenet", "model.norm=none", "device.threads=1")
IMAGES = 60_000
EPOCHS = (1, 10, 20)  # after each of these the steps are measured
STEPS = 12  # of one measurement


def denormals(models: list[str], repeats: int, scale: float) -> list[Table]:
    """Images/s of the steps after some epochs, with denormal numbers and with zeros in their place."""
    config = parse_overrides([*RECIPE, f"dataset.train_size={scale_images(IMAGES, scale)}"])
    trainer, splits = prepare_trainer(config)
    rows: list[Row] = []
    for epoch in range(1, EPOCHS[-1] + 1):
        trainer.begin_epoch(config.seed, epoch, [])
        for batch in splits.train.epoch(config.batch_size, config.seed, epoch):
            trainer.step(batch)
        if epoch not in EPOCHS:
            continue
        state = copy.deepcopy(trainer.state(Progress()))  # the state itself is trained on
        measurements = {
            name: partial(_images_per_s, trainer, state, splits, config.batch_size, flush)
            for name, flush in (("kept", False), ("flushed", True))
        }
        speeds = measure_in_turn(measurements, repeats)
        share = 100 * denormal_share(trainer)
        trainer.restore(state)
        rows.append(
            {
                "after epoch": epoch,
                "denormal, %": share,
                "kept": median(speeds["kept"]),
                "flushed": median(speeds["flushed"]),
                "flushed / kept": median_ratio(speeds["flushed"], speeds["kept"]),
                "quartiles": ratio_quartiles(speeds["flushed"], speeds["kept"]),
            }
        )
    note = (
        f"`{' '.join(RECIPE)}` on {len(splits.train):,} images. Images/s in processor time, medians of"
        f" {repeats} of {STEPS} steps. flushed: `torch.set_flush_denormal(True)`. denormal: the share of"
        " gradients and of Adam's moments that are denormal numbers, below 1.2e-38 and not 0."
    )
    return [Table("Denormal numbers in LeNet with sigmoids", note, rows)]


def _images_per_s(
    trainer: Trainer, state: dict[str, Any], splits: DataSplits, batch_size: int, flush: bool
) -> float:
    trainer.restore(state)
    batches = list(islice(splits.train.epoch(batch_size, seed=1, epoch=1), STEPS))
    torch.set_flush_denormal(flush)
    start = time.process_time()
    for batch in batches:
        trainer.step(batch)
    seconds = time.process_time() - start
    torch.set_flush_denormal(False)
    return sum(batch.size for batch in batches) / seconds


def denormal_share(trainer: Trainer) -> float:
    """The share of denormal numbers among the gradients and the optimizer's moments."""
    values = torch.cat([tensor.flatten() for tensor in _gradients_and_moments(trainer)]).abs()
    return float(((values > 0) & (values < torch.finfo(values.dtype).tiny)).double().mean())


def _gradients_and_moments(trainer: Trainer) -> Iterator[Tensor]:
    for parameter in trainer.parameters:
        if parameter.grad is not None:
            yield parameter.grad
        yield from (value for value in trainer.optimizer.state[parameter].values() if value.dim())
