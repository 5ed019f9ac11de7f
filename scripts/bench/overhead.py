"""What torch's wrappers around the optimizer step and the backward pass cost a training step."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

from torch import Tensor

from bench.recipes import prepare_trainer, recipe_config
from bench.table import Row, Table, measure_in_turn, median, median_ratio, ratio_range
from bnexp.compute.torch_overhead import unwrapped_step
from bnexp.config.schema import Config
from bnexp.training import trainer as trainer_module

# What each variant puts in place of functions of bnexp.compute.torch_overhead. "neither" replaces one by
# itself: patch.multiple needs at least one name.
VARIANTS: dict[str, dict[str, Callable]] = {
    "neither": {"unwrapped_step": unwrapped_step},
    "optimizer step": {"unwrapped_step": lambda optimizer: optimizer.step},
    "backward pass": {"unwrapped_backward": Tensor.backward},
}


def overhead(models: list[str], repeats: int, scale: float) -> list[Table]:
    """Images/s of bnexp's step without torch's wrappers, and with the wrappers of one call."""
    rows: list[Row] = []
    for name in models:
        config = recipe_config(name, scale)
        measurements = {variant: partial(_images_per_s, config, variant) for variant in VARIANTS}
        for measure in measurements.values():
            measure()  # warm-up
        rates = measure_in_turn(measurements, repeats)
        for variant in ("optimizer step", "backward pass"):
            rows.append(
                {
                    "model": name,
                    "wrapped": variant,
                    "images/s wrapped": median(rates[variant]),
                    "images/s unwrapped": median(rates["neither"]),
                    "unwrapped/wrapped": median_ratio(rates["neither"], rates[variant]),
                    "from, to": ratio_range(rates["neither"], rates[variant]),
                }
            )
    note = (
        f"Images/s of one epoch's steps without logging, medians of {repeats}; the ratios are of paired ones."
    )
    return [Table("torch's wrappers", note, rows)]


def _images_per_s(config: Config, variant: str) -> float:
    with patch.multiple(trainer_module, **VARIANTS[variant]):
        trainer, splits = prepare_trainer(config)
    trainer.begin_epoch(seed=0, epoch=1, rng_states=[])
    start = time.perf_counter()
    for batch in splits.train.epoch(config.batch_size, 0, 1):
        trainer.step(batch)
    trainer.device.synchronize()
    return len(splits.train) / (time.perf_counter() - start)
