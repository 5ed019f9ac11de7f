"""The loss and its gradient along the direction of a step."""

from __future__ import annotations

import math

from bnexp.config.validation import Positive
from bnexp.probes.loss_function import LossFunction, distance, moved, norm
from bnexp.probes.probe import Moment, Probe, Row

FACTORS = tuple(2.0 ** (3 * i / 7 - 1) for i in range(8))  # geometric, from 1/2 to 4


class Landscape(Probe):
    """The loss on the line from W against its gradient g (Santurkar et al. 2018, section 3.1 and figure 4).

    Before a measured step, with the step's own batch, in training mode, with its learning rate lr. A row for
    each of ``factors``, eta = factor · lr:

    - ``loss``: L(W)
    - ``moved_loss``: L(W - eta · g), which is inf or nan where the network overflows. Its range over the
      factors is Santurkar's "loss landscape"; moved_loss / loss is the ratio of Bjorck et al. 2018
    - ``gradient_norm``: ||g||
    - ``gradient_distance``: ||g(W) - g(W - eta · g)||, "gradient predictiveness"
    - ``smoothness``: gradient_distance / (eta · ||g||); its maximum over the factors is the "effective
      beta-smoothness". nan where nothing moves (lr 0)

    g is the gradient of the loss alone, of all parameters: no L1 penalty, weight decay, momentum or clipping.
    """

    name, index = "landscape", ("lr_factor",)

    def __init__(self, factors: tuple[Positive, ...] = FACTORS) -> None:
        self.factors = factors

    def before_step(self, moment: Moment) -> list[Row]:
        moment.network.train()
        function = LossFunction(moment.network, moment.setup.loss, moment.images, moment.labels)
        loss, gradient = function.gradient()
        gradient_norm = norm(gradient)
        rows: list[Row] = []
        for factor in self.factors:
            point = moved(function.parameters, gradient, -factor * moment.lr)
            moved_loss, moved_gradient = function.gradient(point)
            change = distance(gradient, moved_gradient)
            length = factor * moment.lr * gradient_norm
            rows.append(
                {
                    "lr_factor": factor,
                    "loss": float(loss),
                    "moved_loss": float(moved_loss),
                    "gradient_norm": gradient_norm,
                    "gradient_distance": change,
                    "smoothness": change / length if length else math.nan,
                }
            )
        return rows
