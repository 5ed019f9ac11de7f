"""What probes cost: nothing but a question a step where there are none, and the time of a measurement."""

from __future__ import annotations

import time
import timeit

from bench.recipes import prepare_trainer, recipe_config
from bench.table import Row, Table, median
from bnexp.config.schema import PROBES
from bnexp.probes.runner import NO_PROBES
from bnexp.runs.loggers import Logger
from bnexp.training.probes import build_probes, probe_runner

CALLS = 100_000
STEPS = 50
MEASURED = [name for name in PROBES if name != "branches"]  # measures residual blocks


def probes(models: list[str], repeats: int, scale: float) -> list[Table]:
    """The question whether a step is measured, beside the step; and milliseconds of one measurement."""
    rows: list[Row] = []
    for name in models:
        step_s = _step_s(name, repeats, scale)
        question = timeit.repeat(lambda: NO_PROBES.is_due(1), number=CALLS, repeat=repeats)
        ask_s = median(question) / CALLS
        rows.append({"model": name, "probe": "none", "us": 1e6 * ask_s, "of a step": f"{ask_s / step_s:.3%}"})
        for probe in MEASURED:
            seconds = median([_measurement_s(name, probe, scale) for _ in range(repeats)])
            rows.append(
                {"model": name, "probe": probe, "us": 1e6 * seconds, "of a step": f"{seconds / step_s:.0%}"}
            )
    note = (
        "Microseconds of the question whether a step is measured, and of all measurements at one moment of"
        f" each kind: start, step, epoch. Medians of {repeats}."
    )
    return [Table("probes", note, rows)]


def _step_s(model: str, repeats: int, scale: float) -> float:
    """Seconds of a training step."""
    trainer, splits = prepare_trainer(recipe_config(model, scale))
    trainer.model.train()
    seconds = []
    for epoch in range(1, repeats + 1):
        batches = [batch for _, batch in zip(range(STEPS), splits.train.epoch(64, 0, epoch), strict=False)]
        start = time.perf_counter()
        for batch in batches:
            trainer.step(batch)
        trainer.device.synchronize()
        seconds.append((time.perf_counter() - start) / len(batches))
    return median(seconds)


def _measurement_s(model: str, probe: str, scale: float) -> float:
    """Seconds of one moment of each kind: at the start, around a step, after an epoch."""
    config = recipe_config(model, scale, f"probes=[{probe}]")
    trainer, splits = prepare_trainer(config)
    runner = probe_runner(config, build_probes(config, trainer, splits), trainer, splits, Logger())
    batch = next(splits.train.epoch(config.batch_size, 0, 1))
    seconds = runner.at_start() + runner.before_step(1, batch)
    trainer.step(batch)
    return seconds + runner.after_step(1, batch) + runner.after_epoch(1)
