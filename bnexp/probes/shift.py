"""Internal covariate shift: how the layers below change a layer's gradient."""

from __future__ import annotations

import math

from torch import Tensor

from bnexp.probes.layers import weight_name, weighted_layers
from bnexp.probes.loss_function import LossFunction, distance, dot, norm
from bnexp.probes.probe import Moment, Probe, Row, Setup


class Shift(Probe):
    """Internal covariate shift (Santurkar et al. 2018, definition 2.1), for each layer with weights.

    W and W' are all parameters before and after a measured step: the optimizer's own step, with momentum and
    all. For layer i, with the batch of the step, in training mode:

        G  = gradient of L(W_1,  ..., W_i-1,  W_i, W_i+1, ..., W_k) with respect to the weights of layer i
        G' = gradient of L(W'_1, ..., W'_i-1, W_i, W_i+1, ..., W_k) with respect to the same

    - ``gradient_norm``: ||G||
    - ``gradient_distance``: ||G - G'||
    - ``cosine``: of the angle between G and G'; nan where one of them is 0

    The layers below are the modules that the network lists before layer i, with all their parameters: the
    scale and shift of a norm below move too. A layer's own bias stands behind its weights and does not move.
    Nothing is below the first layer: its distance is 0. Dropout drops the same values in both.
    """

    name, index = "shift", ("layer",)

    def __init__(self) -> None:
        self._function: LossFunction | None = None
        self._parameters: dict[str, Tensor] = {}

    def check(self, setup: Setup) -> None:
        weighted_layers(setup.network, setup.keys.layers)

    def before_step(self, moment: Moment) -> tuple[Row, ...]:
        """Keeps W, the buffers and the noise of the step; ``after_step`` returns the rows."""
        moment.network.train()
        self._function = LossFunction(moment.network, moment.setup.loss, moment.images, moment.labels)
        self._parameters = {name: value.detach().clone() for name, value in self._function.parameters.items()}
        return ()

    def after_step(self, moment: Moment) -> list[Row]:
        function, self._function = self._function, None
        assert function is not None, "a measured step begins with before_step"
        moment.network.train()
        _, gradients = function.gradient(self._parameters)
        rows: list[Row] = []
        for layer in weighted_layers(moment.network, moment.setup.keys.layers):
            name = weight_name(layer)
            _, moved_gradients = function.gradient(self._with_layers_below(name, function))
            gradient, moved_gradient = {name: gradients[name]}, {name: moved_gradients[name]}
            norms = norm(gradient) * norm(moved_gradient)
            rows.append(
                {
                    "layer": layer,
                    "gradient_norm": norm(gradient),
                    "gradient_distance": distance(gradient, moved_gradient),
                    "cosine": dot(gradient, moved_gradient) / norms if norms else math.nan,
                }
            )
        self._parameters = {}
        return rows

    def _with_layers_below(self, name: str, function: LossFunction) -> dict[str, Tensor]:
        """W, with the parameters that stand before ``name`` as they are after the step."""
        names = list(self._parameters)
        below = names[: names.index(name)]
        return self._parameters | {other: function.parameters[other] for other in below}
