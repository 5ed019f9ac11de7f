"""The gradient layer by layer: its norms, its growth with depth, and the tails of its distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from bnexp.probes.layers import recorded, weight_name, weighted_layers
from bnexp.probes.loss_function import LossFunction
from bnexp.probes.probe import Moment, Probe, Row, Setup
from bnexp.seeding import generator

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
MAX_VALUES = 2**24  # torch.quantile takes no more


class Gradients(Probe):
    """The gradient at each layer with weights, before a step, from its batch.

    - ``depth``: the place of the layer, 1 for the first
    - ``weight_norm``: the norm of the loss's gradient with respect to the layer's weights
    - ``output_square``: the squared norm of the loss's gradient with respect to the layer's output before any
      norm; its mean over images, of the gradient of each image's own loss
    - ``random_square``: the same for a random gradient at the logits, independent normal numbers for each
      image and class (Yang et al. 2019, "A mean field theory of batch normalization": gradient growth)
    - ``kurtosis``: of the weights' gradient, E[(g - mean)^4] / variance^2: 3 for normal numbers
    - ``abs_p50`` ... ``abs_p999``, ``abs_max``: percentiles of the absolute gradient of the weights
      (Bjorck et al. 2018: the gradients of a deep network without batch norm have heavy tails)
    """

    name, index = "gradients", ("layer",)

    def check(self, setup: Setup) -> None:
        weighted_layers(setup.network, setup.keys.layers)

    def before_step(self, moment: Moment) -> list[Row]:
        network = moment.network
        names = weighted_layers(network, moment.setup.keys.layers)
        network.train()
        _, weight_gradients = LossFunction(
            network, moment.setup.loss, moment.images, moment.labels
        ).gradient()
        with recorded(network, names) as outputs:
            logits = network(moment.images)
        loss = moment.setup.loss(logits, moment.labels) * len(logits)  # each image's own loss
        stream = generator(moment.setup.seed, "random gradient", moment.step)
        noise = torch.randn(logits.shape, generator=stream).to(logits)
        values = [outputs[name] for name in names]
        of_loss = torch.autograd.grad(loss, values, retain_graph=True, materialize_grads=True)
        of_noise = torch.autograd.grad((logits * noise).sum(), values, materialize_grads=True)
        return [
            {
                "layer": name,
                "depth": depth,
                "weight_norm": float(weight_gradients[weight_name(name)].double().norm()),
                "output_square": mean_square_norm(output_gradient),
                "random_square": mean_square_norm(random_gradient),
                **tail_statistics(weight_gradients[weight_name(name)]),
            }
            for depth, (name, output_gradient, random_gradient) in enumerate(
                zip(names, of_loss, of_noise, strict=True), 1
            )
        ]


def mean_square_norm(gradient: Tensor) -> float:
    """The squared norm of each image's gradient (N, ...), mean over the images."""
    return float(gradient.double().square().flatten(1).sum(1).mean())


def tail_statistics(gradient: Tensor) -> dict[str, float]:
    """Kurtosis and percentiles of the absolute values of a gradient; nan where all values are equal."""
    values = gradient.detach().flatten().double()
    centred = values - values.mean()
    variance = centred.square().mean()
    sizes = values.abs()[:MAX_VALUES]
    quantiles = torch.quantile(sizes, torch.tensor([*SHARES.values()], dtype=torch.float64).to(sizes))
    return {
        "kurtosis": float(centred.pow(4).mean() / variance.square()),
        **{f"abs_{name}": float(value) for name, value in zip(SHARES, quantiles, strict=True)},
        "abs_max": float(values.abs().max()),
    }
