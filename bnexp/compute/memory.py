"""Out of memory, on any device, becomes one error with a way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bnexp.errors import OutOfMemory

# The words of the allocators that raise a plain RuntimeError: Apple's, and the CPU's on Linux and on Windows,
# and of sizes so large that torch cannot even count their bytes.
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "overflow")


@contextmanager
def memory_guard(what: str) -> Iterator[None]:
    """Turns what torch raises where the memory runs out into OutOfMemory: one line, with a way out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        words = str(error).lower()
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if known or any(sign in words for sign in _NO_MEMORY):
            raise OutOfMemory(
                f"{what} takes more memory than the device has left; try a smaller one"
            ) from error
        raise
