"""Running against precise batch norm statistics, epoch by epoch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor

from bnexp.errors import UserError, bad_choice
from bnexp.models.population_statistics import (
    BatchNormLayer,
    ChannelStatistics,
    batch_norms,
    input_statistics,
    population_statistics,
    precise_statistics,
    statistics_shift,
    training_batches,
)
from bnexp.probes.dropout_variance import dropout_variances
from bnexp.probes.probe import Moment, Probe, Row, Setup

MAX_IMAGES = 10_000  # Wu & Johnson 2021: statistics of 1,000 to 10,000 images are as good as those of all
NETWORK = "all"  # the layer column of the row of the whole network


class Precise(Probe):
    """Accuracy with running and with precise statistics and the variance shift of each layer, after an epoch.

    Row ``all``: ``accuracy_running`` and ``accuracy_precise`` on the validation images, or on the test images
    where there is no validation set (Wu & Johnson 2021). Precise statistics are those of
    ``population_statistics`` from the training batches that hold 10,000 images, or all images if there are
    fewer. The batches are the same after each epoch.

    Each batch norm layer has a row; row ``all`` has the greatest value of the layers:

    - ``variance_shift``: max(v_moving/v_real, v_real/v_moving), mean over channels (Li et al. 2019,
      "Understanding the disharmony between dropout and batch normalization by variance shift", section 4).
      v_moving is the running variance, v_real that of the same training images in eval mode. Both plus eps.
    - ``largest_shift``: that of the worst channel
    - ``expected_shift``: 1 + (variance that dropout adds) / v_real, mean over channels, by the formula of
      Li et al.: only for a layer that reads a Linear behind a Dropout
    """

    name, index = "precise", ("layer",)

    def check(self, setup: Setup) -> None:
        self._layers(setup)

    def _layers(self, setup: Setup) -> dict[str, BatchNormLayer]:
        norms = batch_norms(setup.network)
        if not norms:
            raise UserError("probes: precise measures batch norm layers, and this network has none")
        for name in setup.keys.layers:
            if name not in norms:
                raise bad_choice("probe.layers", name, norms)
        return {name: norms[name] for name in setup.keys.layers or norms}

    @torch.no_grad()
    def after_epoch(self, moment: Moment) -> list[Row]:
        network, setup = moment.network, moment.setup
        precise = population_statistics(network, _batches(setup))
        network.eval()
        real = input_statistics(network, _batches(setup))
        added = dropout_variances(network, _batches(setup))
        layers = {
            name: _shifts(norm, real[name], added.get(name))
            for name, norm in self._layers(setup).items()
            if name in real
        }
        accuracies = {"accuracy_running": _accuracy(setup)}
        with precise_statistics(network, precise):
            accuracies["accuracy_precise"] = _accuracy(setup)
        rows = {NETWORK: accuracies | _greatest(layers.values()), **layers}
        return [{"layer": name, **values} for name, values in rows.items()]


def _batches(setup: Setup) -> Iterator[Tensor]:
    count = -(-min(MAX_IMAGES, len(setup.data.train)) // setup.batch_size)
    return training_batches(setup.data.train, setup.batch_size, count, setup.seed)


def _shifts(norm: BatchNormLayer, real: ChannelStatistics, added: Tensor | None) -> dict[str, float]:
    shift = statistics_shift(norm, real)
    shifts = {"variance_shift": shift.mean_variance, "largest_shift": shift.variance}
    if added is not None:
        shifts["expected_shift"] = float((1 + added / (real.variance.cpu() + norm.eps)).mean())
    return shifts


def _greatest(rows: Collection[Mapping[str, float]]) -> dict[str, float]:
    """The greatest value of each column."""
    columns = dict.fromkeys(column for row in rows for column in row)
    return {column: max(row[column] for row in rows if column in row) for column in columns}


def _accuracy(setup: Setup) -> float:
    """On the validation images, or on the test images where there are none."""
    (split,) = setup.data.watched.values()
    batches = split.in_order(setup.eval_batch_size)
    return sum(int((setup.network(x).argmax(1) == labels).sum()) for x, labels in batches) / len(split)
