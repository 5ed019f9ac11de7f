"""Parameters that the loss depends on and that the network does not hold, as those of layers in a list.

torch registers a layer that is an attribute of a module, or that is in an ``nn.ModuleList`` or
``nn.ModuleDict``. A layer anywhere else is neither trained nor saved, and no error says so.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from bnexp.errors import UserError, name_list
from bnexp.training.trial.tensors import named_tensors


def check_all_registered(key: str, network: nn.Module, loss: Tensor) -> None:
    """Raises UserError for a parameter that the gradient of ``loss`` reaches and ``network`` does not hold.

    ``loss`` is a scalar whose graph has not been freed. Frozen parameters have no gradient: they may lie
    anywhere. ``key`` names the network in the message.
    """
    registered = {id(value) for value in network.parameters()}
    others = [value for value in leaves(loss) if id(value) not in registered]
    if not others:
        return
    names = {id(value): name for name, value in _named_tensors(network)}
    order = list(names)
    others.sort(key=lambda value: order.index(id(value)) if id(value) in names else len(order))
    texts = [names.get(id(value), f"a parameter {tuple(value.shape)}") for value in others]
    raise UserError(
        f"{key}: {name_list(texts, 3)} would be neither trained nor saved,"
        " because torch does not know of layers in a list, a dict or outside of the network; use"
        " nn.ModuleList, nn.ModuleDict or nn.ParameterList, or freeze them with requires_grad_(False)"
    )


def leaves(value: Tensor) -> list[Tensor]:
    """The tensors that a backward pass from ``value`` gives gradients to, each once."""
    nodes, visited, tensors = [value.grad_fn], set(), []
    while nodes:
        node = nodes.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if hasattr(node, "variable"):  # only the nodes that add up the gradient of a leaf have it
            tensors.append(node.variable)
        nodes += [parent for parent, _ in node.next_functions]
    return tensors


def _named_tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors in the lists and dicts of all modules, as in ``layers[0].weight``."""
    for prefix, module in network.named_modules():
        for attribute, value in vars(module).items():
            if not attribute.startswith("_"):
                yield from named_tensors(value, f"{prefix}.{attribute}" if prefix else attribute)
