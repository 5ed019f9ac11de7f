"""Whether the images of a batch become parallel or orthogonal in deeper layers."""

from __future__ import annotations

import torch
from torch import Tensor

from bnexp.errors import bad_value
from bnexp.models.population_statistics import batch_statistics_mode
from bnexp.probes.layers import WEIGHTED, choose_layers, layer_names, recorded
from bnexp.probes.probe import Moment, Probe, Row, Setup


class Rank(Probe):
    """Orthogonality and rank of the representations at the first weights.

    H (N x n) is what goes into a layer with weights: N features of n images, ``probe.images`` training
    images. At the first layer it is the images themselves. Batch norm layers normalise by this batch;
    dropout is off.

    - ``depth``: the place of the layer, 0 for the first
    - ``width``, ``images``: N and n
    - ``orthogonality_gap``: || H^T H / ||H||_F² - I/n ||_F (Daneshmand et al. 2021, "Batch normalization
      orthogonalizes representations in deep random networks"): 0 for orthogonal images of one length,
      sqrt(1 - 1/n) for parallel ones
    - ``soft_rank``: tr(M)² / ||M||_F² with M = H H^T / n (Daneshmand et al. 2020, "Batch normalization
      provably avoids rank collapse for randomly initialised deep networks"): 1 for parallel images, at most
      the rank
    """

    name, index = "rank", ("layer",)

    def check(self, setup: Setup) -> None:
        self._layers(setup)
        if min(setup.keys.images, len(setup.data.train)) < 2:
            raise bad_value("probe.images", setup.keys.images, "must be at least 2 for the probe rank")

    def _layers(self, setup: Setup) -> list[str]:
        names = layer_names(setup.network, WEIGHTED)
        return choose_layers(setup.network, setup.keys.layers, names, "layer with weights")

    @torch.no_grad()
    def at_start(self, moment: Moment) -> list[Row]:
        names = self._layers(moment.setup)
        with (
            batch_statistics_mode(moment.network),
            recorded(moment.network, names, inputs=True) as inputs,
        ):
            moment.network(moment.images)
        return [
            {"layer": name, "depth": depth, **orthogonality(inputs[name].flatten(1))}
            for depth, name in enumerate(names)
            if name in inputs
        ]


def orthogonality(features: Tensor) -> dict[str, float]:
    """Gap and soft rank of H^T, the features (n, N) of n images; nan where all features are 0.

    The Gram matrix H^T H (n x n) has the eigenvalues of H H^T that are not 0, so both follow from it.
    """
    values = features.double()
    gram = values @ values.T
    gram = gram / gram.trace()  # its trace is ||H||_F²
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return {
        "width": values.shape[1],
        "images": len(values),
        "orthogonality_gap": float(torch.linalg.matrix_norm(gram - identity / len(gram))),
        "soft_rank": float(1 / gram.square().sum()),
    }
