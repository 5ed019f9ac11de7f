"""The bare step of small convolutional networks by memory layout, number of channels and threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from bench.recipes import prepare_trainer, recipe_config
from bench.table import Row, Table, measure_in_turn, median, median_ratio, ratio_quartiles
from bnexp.compute.process_tuning import set_threads
from bnexp.training import components
from bnexp.training.fused.layers import fuse

BATCH_SIZES = (64, 256)  # of the shipped recipes
THREADS = (1, 2)
MULTIPLES = (1, 8, 16)  # the channels of each convolution are rounded up to a multiple; 1: as they are
SLICE_S = 0.08  # seconds of one measurement: short, so that neighbours meet the same load of the machine


def layouts(models: list[str], repeats: int, scale: float) -> list[Table]:
    """Images/s in torch's default layout, and what the other layouts gain."""
    rows = [
        _row(name, size, threads, repeats, scale)
        for name in models
        if not name.startswith("mlp")  # without maps there is one layout
        for size in BATCH_SIZES
        for threads in THREADS
    ]
    note = (
        f"Forward, backward and update on one fixed batch of noise. nchw: images/s, the median of {repeats}."
        " The others: times as fast as the neighbouring measurement of nchw, the median with the quartiles;"
        " nchw again shows the noise of the machine. 8, 16: channels rounded up to a multiple (a wider"
        " network, as fast as one padded with zeros). One thread: processor time; two threads: elapsed time."
        " In channels_last the layers are those of seeds trained together, with R=1: torch's batch norm is"
        " less accurate there."
    )
    return [Table("Memory layouts of single networks", note, rows)] if rows else []


def _row(name: str, size: int, threads: int, repeats: int, scale: float) -> Row:
    measurements = {
        f"{layout}{multiple if multiple > 1 else ''}": prepare_step(name, size, memory_format, multiple)
        for layout, memory_format in (
            ("nchw", torch.contiguous_format), ("channels_last", torch.channels_last)
        )
        for multiple in MULTIPLES
    }  # fmt: skip
    measurements["nchw again"] = prepare_step(name, size, torch.contiguous_format, 1)
    set_threads(threads, 0)
    speeds = measure_in_turn(
        {label: partial(_images_per_s, step, size, threads, scale) for label, step in measurements.items()},
        repeats + 1,
    )
    speeds = {label: values[1:] for label, values in speeds.items()}  # without the first turn, a warm-up
    row: Row = {"model": name, "batch size": str(size), "threads": threads, "nchw": median(speeds["nchw"])}
    for label in list(speeds)[1:]:
        ratio = median_ratio(speeds[label], speeds["nchw"])
        row[label] = f"{ratio:.2f} ({ratio_quartiles(speeds[label], speeds['nchw'])})"
    return row


def prepare_step(
    name: str, size: int, memory_format: torch.memory_format, multiple: int
) -> Callable[[], None]:
    """One step of a recipe's network on a fixed batch, its channels rounded up to a ``multiple``."""
    config = recipe_config(name, 0.01, f"batch_size={size}")
    widths = [-(-width // multiple) * multiple for width in config.model.keys["widths"]]
    config = recipe_config(name, 0.01, f"batch_size={size}", f"model.widths={widths}")
    trainer, splits = prepare_trainer(config)
    network, loss = trainer.model, trainer.loss
    if memory_format is torch.channels_last:
        network = fuse([network]).to(memory_format=memory_format)  # type: ignore[call-overload]
    network.train()
    optimizer = components.optimizer_of(config.optimizer, network)
    image_shape = (splits.train.in_channels, splits.train.image_size, splits.train.image_size)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, *image_shape, generator=generator).contiguous(memory_format=memory_format)
    labels = torch.randint(0, len(splits.classes), (size,), generator=generator)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(network(images), labels).backward()
        optimizer.step()

    return step


def _images_per_s(step: Callable[[], None], size: int, threads: int, scale: float) -> float:
    """On one thread, of processor time: other processes on the machine take none of it."""
    clock = time.process_time if threads == 1 else time.perf_counter
    start, steps = clock(), 0
    while (seconds := clock() - start) < SLICE_S * scale or steps == 0:
        step()
        steps += 1
    return steps * size / seconds
