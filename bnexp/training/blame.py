"""An error of the user's own code becomes one line that names the key of its part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bnexp.errors import ExitCalled, Interrupted, OutOfMemory, UserError, forbid_exit, reason_of


@contextmanager
def blamed_on(key: str, problem: str) -> Iterator[None]:
    """Turns any error of the block into a UserError that names the key."""
    try:
        with forbid_exit(key):
            yield
    except (UserError, ExitCalled, Interrupted, OutOfMemory, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a user's own code may raise what it likes
        raise UserError(f"{key}: {problem} ({reason_of(error)})") from error
