"""A table of a network's layers: output shapes, parameters, FLOPs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

COLUMNS = 80
HEADER = ("layer", "type", "output", "parameters")
Cells = tuple[str, str, str, str]


@dataclass(frozen=True)
class LayerCall:
    """One call of one layer: a row of the table."""

    name: str
    type: str
    shape: tuple[int | str, ...]  # of the output; "N" stands for the batch size
    parameters: int  # 0 in all calls of a layer but the first
    flops: int  # for one image


@dataclass(frozen=True)
class Summary:
    """The layer calls in the order of the forward pass. ``str`` gives a table of at most 80 columns.

    ``flops`` counts one image's forward pass through Linears and convolutions. A multiplication and its
    addition count as two. (torch's own counter knows more operations, but its import takes 70 MB.)
    """

    rows: tuple[LayerCall, ...]
    parameters: int
    flops: int
    output: tuple[int, ...]  # shape of the network's output: (N, K) for a classifier

    def __str__(self) -> str:
        rows = [HEADER, *self._cells()]
        name_width, type_width, shape_width, number_width = (
            max(len(row[column]) for row in rows) for column in range(4)
        )
        type_width, shape_width = min(type_width, 20), min(shape_width, 26)
        gaps = 3 * len("  ")
        name_width = min(name_width, COLUMNS - type_width - shape_width - number_width - gaps)
        widths = (name_width, type_width, shape_width)
        lines = []
        for *texts, number in rows:
            columns = [_fit(text, width) for text, width in zip(texts, widths, strict=True)]
            lines.append("  ".join([*columns, number.rjust(number_width)]))
        rule = "-" * max(map(len, lines))
        return "\n".join([lines[0], rule, *lines[1:], rule, self._totals()])

    def markdown(self) -> str:
        """The table in Markdown, for TensorBoard's text tab."""
        rows = [HEADER, ("---", "---", "---", "---:"), *self._cells()]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return f"{table}\n\n{self._totals()}"

    def _cells(self) -> list[Cells]:
        return [
            (row.name, row.type, " x ".join(map(str, row.shape)), f"{row.parameters:,}") for row in self.rows
        ]

    def _totals(self) -> str:
        return f"{self.parameters:,} parameters, {self.flops:,} FLOPs an image, forward"


def summarise(model: nn.Module, images: Tensor) -> Summary:
    """Runs one forward pass of ``images`` (N, C, S, S) in training mode, on the CPU.

    The summary has a row for each layer without submodules and for each layer with parameters of its own.
    ``model`` is used up: it is moved and has hooks, and its statistics have changed. torch's CPU generator
    stays as it was. Errors of the forward pass are not caught.
    """
    model.cpu().train()
    rows: list[LayerCall] = []
    counted: set[Tensor] = set()
    for name, module in model.named_modules():
        is_leaf = next(module.children(), None) is None
        has_parameters = next(module.parameters(recurse=False), None) is not None
        takes_hooks = not isinstance(module, nn.Identity | torch.jit.ScriptModule)
        if (is_leaf or has_parameters) and takes_hooks:
            module.register_forward_hook(_recorder(name, len(images), rows, counted))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        logits = model(images.cpu())
    parameters = set(model.parameters())
    if uncounted := sum(p.numel() for p in parameters - counted):
        rows.append(LayerCall("(others)", "", (), uncounted, 0))  # of layers whose forward was not called
    total, flops = sum(p.numel() for p in parameters), sum(row.flops for row in rows)
    return Summary(tuple(rows), total, flops, tuple(getattr(logits, "shape", ())))


def _recorder(name: str, batch_size: int, rows: list[LayerCall], counted: set[Tensor]) -> Callable[..., None]:
    """A forward hook that appends a row. It counts parameters that are not in ``counted``, and adds them."""

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        uncounted = set(module.parameters(recurse=False)) - counted
        counted.update(uncounted)
        row = LayerCall(
            name or "(itself)",
            type(module).__name__,
            _shape(output, batch_size),
            parameters=sum(p.numel() for p in uncounted),
            flops=_flops(module, output) // batch_size,
        )
        rows.append(row)

    return record


def _flops(module: nn.Module, output: Any) -> int:
    """Of the whole batch. An output of a Linear or convolution sums one product for each of its weights."""
    if not isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return 0
    return 2 * output.numel() * module.weight[0].numel()


def _shape(output: Any, batch_size: int) -> tuple[int | str, ...]:
    """The shape of a tensor or of the first tensor in a tuple or list; () for anything else."""
    while isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        return ()
    sizes = tuple(output.shape)
    return ("N", *sizes[1:]) if sizes[:1] == (batch_size,) else sizes


def _fit(text: str, width: int) -> str:
    """Pads ``text`` to ``width``, or cuts off its beginning: the end of a name says which layer it is."""
    return text.ljust(width) if len(text) <= width else ".." + text[2 - width :]
