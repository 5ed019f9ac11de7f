"""How much of a residual block's output comes from its branch, at the first weights."""

from __future__ import annotations

import torch

from bnexp.errors import UserError
from bnexp.models.population_statistics import batch_statistics_mode
from bnexp.models.residual_mlp import ResidualBlock
from bnexp.probes.layers import choose_layers, layer_names, recorded
from bnexp.probes.probe import Moment, Probe, Row, Setup


class Branches(Probe):
    """The share of a branch in the output of its residual block (De & Smith 2020, section 3).

    For the blocks of ``model.residual``, on ``probe.images`` training images. Variances are over random
    weights and images: the mean square over images and units. Batch norm layers normalise by these images;
    dropout is off.

    - ``block``: the place of the block, 1 for the first
    - ``branch_square``, ``output_square``: mean square of the branch's output and of the block's output
    - ``share``: the first over the second
    """

    name, index = "branches", ("layer",)

    def check(self, setup: Setup) -> None:
        self._layers(setup)

    def _layers(self, setup: Setup) -> list[str]:
        network = setup.network
        names = layer_names(network, ResidualBlock)
        chosen = choose_layers(network, setup.keys.layers, names, "residual block (model.residual=plain)")
        for name in chosen:
            if name not in names:
                raise UserError(f"probe.layers={name}: the probe branches needs residual blocks of an MLP")
        return chosen

    @torch.no_grad()
    def at_start(self, moment: Moment) -> list[Row]:
        blocks = self._layers(moment.setup)
        branches = {name: f"{name}.branch" for name in blocks}
        with (
            batch_statistics_mode(moment.network),
            recorded(moment.network, [*blocks, *branches.values()]) as outputs,
        ):
            moment.network(moment.images)
        squares = {name: float(output.double().square().mean()) for name, output in outputs.items()}
        return [
            {
                "layer": name,
                "block": number,
                "branch_square": squares[branches[name]],
                "output_square": squares[name],
                "share": squares[branches[name]] / squares[name],
            }
            for number, name in enumerate(blocks, 1)
        ]
