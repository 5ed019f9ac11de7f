"""The layers of a network by name, and what flows through them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from bnexp.errors import UserError, bad_choice
from bnexp.models.norms import BatchNorm

WEIGHTED = (nn.Linear, _ConvNd)
BATCH_NORMS = (_BatchNorm, BatchNorm)


def layer_names(network: nn.Module, types: type | tuple[type, ...]) -> list[str]:
    """The names of the layers of these types, in the order in which the network lists them."""
    return [name for name, module in network.named_modules() if isinstance(module, types)]


def activation_names(network: nn.Module) -> list[str]:
    """The names of the activation functions: the modules of torch.nn.modules.activation."""
    return [
        name
        for name, module in network.named_modules()
        if type(module).__module__ == "torch.nn.modules.activation"
    ]


def choose_layers(network: nn.Module, names: Sequence[str], default: Iterable[str], kind: str) -> list[str]:
    """``names`` (probe.layers), or ``default`` where it is empty.

    Raises UserError for a name that the network lacks, and where there is no layer of this ``kind``.
    """
    known = [name for name, _ in network.named_modules() if name]
    for name in names:
        if name not in known:
            raise bad_choice("probe.layers", name, known)
    layers = list(names or default)
    if not layers:
        raise UserError(f"probes: this network has no {kind}; probe.layers names the layers to measure")
    return layers


def weighted_layers(network: nn.Module, names: Sequence[str]) -> list[str]:
    """``names`` (probe.layers), or every linear and convolutional layer, whose weights are trained.

    Raises UserError as ``choose_layers``, and for a named layer without trained weights.
    """
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    default = [name for name in layer_names(network, WEIGHTED) if weight_name(name) in trained]
    layers = choose_layers(network, names, default, "layer with trained weights")
    for name in layers:
        if weight_name(name) not in trained:
            raise bad_choice("probe.layers", name, default)
    return layers


def weight_name(layer: str) -> str:
    """The name of a layer's weights; a network can be a layer itself."""
    return f"{layer}.weight" if layer else "weight"


@contextmanager
def recorded(
    network: nn.Module, names: Iterable[str], *, inputs: bool = False
) -> Iterator[dict[str, Tensor]]:
    """The outputs (or the first inputs) of the named layers at their last call within the block."""
    values: dict[str, Tensor] = {}

    def recorder(name: str) -> Callable[..., None]:
        def record(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            values[name] = args[0] if inputs else output

        return record

    handles = [network.get_submodule(name).register_forward_hook(recorder(name)) for name in names]
    try:
        yield values
    finally:
        for handle in handles:
            handle.remove()
