"""What dropout adds to the variance of a batch norm's input, by the formula of Li et al. 2019."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnexp.models.population_statistics import batch_norms


@dataclass(eq=False)
class _DropoutSource:
    """What is known of a tensor: it comes from a dropout, or from a linear layer behind one."""

    tensor: Tensor  # kept, so that no other tensor takes its place in memory
    dropout: nn.Dropout
    linear: nn.Linear | None = None
    squares: Tensor | None = None  # float64 (features,): the sums of x² over the batch


class _Tracer:
    """Follows the tensors from dropout to linear layer to batch norm, and sums up the squares."""

    def __init__(self) -> None:
        self.sources: dict[int, _DropoutSource] = {}
        self.sums: dict[str, tuple[_DropoutSource, Tensor, int]] = {}

    def after_dropout(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        assert isinstance(module, nn.Dropout)
        output = output.clone()  # in eval mode it is the input itself, which another layer may read too
        self.sources[id(output)] = _DropoutSource(output, module)
        return output

    def after_linear(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Linear)
        source = self.sources.get(id(inputs[0]))
        if source is not None and source.linear is None:
            squares = inputs[0].detach().cpu().double().square().sum(0)
            self.sources[id(output)] = _DropoutSource(output, source.dropout, module, squares)

    def before_norm(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            source = self.sources.get(id(inputs[0])) if inputs else None
            if source is None or source.squares is None or inputs[0].dim() != 2:
                return
            _, squares, count = self.sums.get(name, (source, torch.zeros_like(source.squares), 0))
            self.sums[name] = (source, squares + source.squares, count + len(inputs[0]))

        return record


@torch.no_grad()
def dropout_variances(network: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """The variance that dropout adds to each channel of a batch norm's input: float64 (C,), by layer name.

    For each batch norm that reads the output of a Linear behind a Dropout it is
    ``(1 - p) / p · sum_i w_i² E[x_i²]``, with the keep probability p, the weights w of the channel and the
    inputs x of the linear layer (Li et al. 2019, section 3). E[x_i²] is that of ``batches`` of images in eval
    mode. No other batch norm is in the result. The network is left in eval mode.
    """
    tracer = _Tracer()
    network.eval()
    hooks = [
        norm.register_forward_pre_hook(tracer.before_norm(name))
        for name, norm in batch_norms(network).items()
    ]
    for module in network.modules():
        if isinstance(module, nn.Dropout) and 0 < module.p < 1:
            hooks.append(module.register_forward_hook(tracer.after_dropout))
        elif isinstance(module, nn.Linear):
            hooks.append(module.register_forward_hook(tracer.after_linear))
    try:
        for images in batches:
            network(images)
            tracer.sources.clear()
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _added_variance(*sums) for name, sums in tracer.sums.items()}


def _added_variance(source: _DropoutSource, squares: Tensor, count: int) -> Tensor:
    assert source.linear is not None
    weights = source.linear.weight.detach().cpu().double()  # (C, features)
    dropped = source.dropout.p
    return dropped / (1 - dropped) * (weights.square() @ (squares / count))
