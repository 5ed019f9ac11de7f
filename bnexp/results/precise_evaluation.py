"""``bnexp-eval --precise-bn N``: a split evaluated with precise statistics in the batch norm layers."""

from __future__ import annotations

from torch import nn

from bnexp.data import DataSplits, Split
from bnexp.errors import UserError, bad_value
from bnexp.models.population_statistics import (
    StatisticsShift,
    batch_norms,
    population_statistics,
    precise_statistics,
    statistics_shift,
    training_batches,
)
from bnexp.seeding import seed_global
from bnexp.training.trainer import Trainer

OPTION = "--precise-bn"


def check(network: nn.Module, train: Split, batch_size: int, count: int) -> None:
    """Raises UserError where the network has no batch norm, or an epoch has not ``count`` batches."""
    if not batch_norms(network):
        raise bad_value(OPTION, count, "the run's network has no batch norm with running statistics")
    available = train.steps(batch_size)
    if not 1 <= count <= available:
        images = f"the batches of {batch_size} in {len(train)} training images"
        raise bad_value(OPTION, count, f"must be at least 1 and at most {available}, {images}")


def describe(
    trainer: Trainer, splits: DataSplits, split: Split, sizes: tuple[int, int], count: int
) -> list[str]:
    """The lines to print: accuracy and loss of ``split`` with precise statistics, and each layer's shift.

    ``sizes`` are the images of a training batch and of an evaluation batch. The network is left as it was.
    """
    batch_size, eval_batch_size = sizes
    try:
        batches = training_batches(splits.train, batch_size, count, trainer.seed)
        seed_global(trainer.seed, "population statistics")  # a network may draw in eval mode too
        with trainer.device.autocast():
            statistics = population_statistics(trainer.model, batches)
    except UserError as error:
        raise bad_value(OPTION, count, str(error)) from None
    with precise_statistics(trainer.model, statistics):
        loss, accuracy, _ = trainer.classify(split, eval_batch_size)
    norms = batch_norms(trainer.model)
    shifts = {name: statistics_shift(norms[name], precise) for name, precise in statistics.items()}
    source = f"{count} training {'batch' if count == 1 else 'batches'} of {batch_size}"
    return [
        f"accuracy {accuracy:.4f}, loss {loss:.4f} with precise batch norm statistics, from {source}",
        "largest difference of the running statistics: means in standard deviations, variances as a ratio",
        *_table(shifts),
    ]


def _table(shifts: dict[str, StatisticsShift]) -> list[str]:
    names = [name or "(itself)" for name in shifts]
    width = max(map(len, [*names, "layer"]))
    return [
        f"{'layer':<{width}}  {'mean':>9}  {'variance':>9}",
        *(
            f"{name:<{width}}  {shift.mean:>9.4g}  {shift.variance:>9.4g}"
            for name, shift in zip(names, shifts.values(), strict=True)
        ),
    ]
