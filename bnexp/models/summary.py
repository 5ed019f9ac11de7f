"""What a network is made of: layers, shapes, parameters, FLOPs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

COLUMNS = 80
HEADER = ("layer", "type", "output", "parameters")
Cells = tuple[str, str, str, str]


@dataclass(frozen=True)
class Row:
    """One call of one layer."""

    name: str
    type: str
    shape: tuple[int | str, ...]  # "N" where the batch is
    parameters: int  # 0 when the layer was called before
    flops: int  # of one image


@dataclass(frozen=True)
class Summary:
    """The rows in the order of the forward pass; ``str`` gives a table of at most 80 columns.

    ``flops`` are those of one image's forward pass in Linears and convolutions; a multiplication and its
    addition count as two. (torch's own counter knows more operations, and imports 70 MB to count them.)
    """

    rows: tuple[Row, ...]
    parameters: int
    flops: int
    output: tuple[int, ...]  # of the whole network, (N, K) for a classifier

    def __str__(self) -> str:
        cells = [HEADER, *self._cells()]
        name, kind, shape, number = (max(len(row[i]) for row in cells) for i in range(4))
        kind, shape = min(kind, 20), min(shape, 26)
        name = min(name, COLUMNS - kind - shape - number - 6)  # three gaps of two
        lines = []
        for row in cells:
            left = [_fit(text, width) for text, width in zip(row[:3], (name, kind, shape), strict=True)]
            lines.append("  ".join([*left, row[3].rjust(number)]))
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
    """Runs one forward pass of ``images`` (N, C, S, S) in training mode on a copy of ``model`` on the CPU.

    A row for each layer that computes something itself: those without parts, and those with parameters of
    their own. The model, its statistics and gradients, and torch's CPU generator are left as they were;
    what the forward pass raises comes through.
    """
    twin = copy.deepcopy(model).cpu().train()
    rows: list[Row] = []
    seen: set[Tensor] = set()
    for name, module in twin.named_modules():
        leaf = next(module.children(), None) is None
        owns = next(module.parameters(recurse=False), None) is not None
        if (leaf or owns) and not isinstance(module, nn.Identity):
            module.register_forward_hook(_recorder(name, len(images), rows, seen))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        logits = twin(images.cpu())
    parameters = set(twin.parameters())
    if rest := sum(p.numel() for p in parameters - seen):
        rows.append(Row("(others)", "", (), rest, 0))  # of layers used without being called
    total, flops = sum(p.numel() for p in parameters), sum(row.flops for row in rows)
    return Summary(tuple(rows), total, flops, tuple(getattr(logits, "shape", ())))


def _recorder(name: str, batch: int, rows: list[Row], seen: set[Tensor]) -> Callable[..., None]:
    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        own = set(module.parameters(recurse=False)) - seen
        seen.update(own)
        parameters, flops = sum(p.numel() for p in own), _flops(module, output) // batch
        rows.append(Row(name or "(itself)", type(module).__name__, _shape(output, batch), parameters, flops))

    return record


def _flops(module: nn.Module, output: Any) -> int:
    """Each output of a Linear or a convolution is a sum of as many products as it has weights."""
    if not isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return 0
    return 2 * output.numel() * module.weight[0].numel()


def _shape(output: Any, batch: int) -> tuple[int | str, ...]:
    while isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        return ()
    sizes = tuple(output.shape)
    return ("N", *sizes[1:]) if sizes[:1] == (batch,) else sizes


def _fit(text: str, width: int) -> str:
    """The end of ``text`` says which layer it is: too long a one loses its start."""
    return text.ljust(width) if len(text) <= width else ".." + text[2 - width :]
