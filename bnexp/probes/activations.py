"""Distributions of what goes into the activation functions."""

from __future__ import annotations

import torch

from bnexp.probes.layers import activation_names, choose_layers, recorded
from bnexp.probes.probe import Moment, Probe, Row, Setup

PERCENTILES = (15, 50, 85)


class Activations(Probe):
    """Percentiles of a typical unit's input by step (Ioffe & Szegedy 2015, figure 1).

    For the input of each activation function: ``p15``, ``p50``, ``p85`` of the layer's middle unit (channel
    C // 2) over ``probe.images`` training images and all pixels; ``mean`` and ``std`` over all units; and
    ``mean_of_means``, the mean over units of the absolute value of a unit's own mean. The network is in
    training mode: a batch norm takes the statistics of these images.
    """

    name, index = "activations", ("layer",)

    def check(self, setup: Setup) -> None:
        self._layers(setup)

    def _layers(self, setup: Setup) -> list[str]:
        names = activation_names(setup.network)
        return choose_layers(setup.network, setup.keys.layers, names, "activation function")

    @torch.no_grad()
    def before_step(self, moment: Moment) -> list[Row]:
        images, _ = moment.setup.sample()
        names = self._layers(moment.setup)
        moment.network.train()
        with recorded(moment.network, names, inputs=True) as inputs:
            moment.network(images)
        rows: list[Row] = []
        for name in names:
            units = inputs[name].transpose(0, 1).flatten(1).double()  # (C, values of a unit)
            quantiles = torch.quantile(
                units[len(units) // 2], torch.tensor(PERCENTILES, dtype=torch.float64) / 100
            )
            rows.append(
                {
                    "layer": name,
                    **{f"p{p}": float(q) for p, q in zip(PERCENTILES, quantiles, strict=True)},
                    "mean": float(units.mean()),
                    "std": float(units.std(correction=0)),
                    "mean_of_means": float(units.mean(1).abs().mean()),
                }
            )
        return rows
