"""The tensors in an object's attributes, each with its path, as in ``layers[0].weight``."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

MAX_DEPTH = 6  # of attributes, lists and dictionaries in one another
NOT_SEARCHED = (str, bytes, type, FunctionType, MethodType, ModuleType)


def named_tensors(
    value: Any, path: str = "", names: Mapping[int, str] | None = None, depth: int = MAX_DEPTH
) -> Iterator[tuple[str, Tensor]]:
    """The tensors in lists, dictionaries, modules and attributes of ``value``, as in ``layers[0].weight``.

    ``names`` are those of tensors that are keys of a dictionary, by ``id``.
    """
    if isinstance(value, Tensor):
        yield path, value
    elif depth == 0 or isinstance(value, NOT_SEARCHED):
        return
    elif isinstance(value, nn.Module):
        for named in (value.named_parameters(), value.named_buffers()):
            yield from ((_joined(path, name), tensor) for name, tensor in named)
    elif isinstance(value, list | tuple | deque):
        for position, part in enumerate(value):
            yield from named_tensors(part, f"{path}[{position}]", names, depth - 1)
    elif isinstance(value, dict):
        for key, part in value.items():
            name = (names or {}).get(id(key), "a tensor") if isinstance(key, Tensor) else repr(key)
            yield from named_tensors(part, f"{path}[{name}]", names, depth - 1)
    else:
        for name, part in getattr(value, "__dict__", {}).items():
            yield from named_tensors(part, _joined(path, name), names, depth - 1)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
