"""Out of memory, on any device, becomes one error that says what to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bnexp.errors import OutOfMemory

# Some allocators raise a plain RuntimeError. These are parts of their messages: Apple's, the CPU's on Linux
# and on Windows, C++'s, and torch's own for sizes that are too large to be counted in bytes.
_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "overflow")


@contextmanager
def memory_guard(keys: str) -> Iterator[None]:
    """Raises OutOfMemory if the block needs more memory than there is; ``keys`` are those to make smaller."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        message = str(error).lower()
        is_memory_error = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if is_memory_error or any(part in message for part in _MESSAGES):
            raise OutOfMemory(
                f"{keys} takes more memory than the device has left; try a smaller one"
            ) from error
        raise
