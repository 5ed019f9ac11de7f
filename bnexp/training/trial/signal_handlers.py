"""A step must leave the handlers of the stop signals alone."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from bnexp.errors import UserError
from bnexp.signals import installed_handlers


@contextmanager
def same_handlers(title: str) -> Iterator[None]:
    """Raises UserError where the block replaces the handler of a stop signal."""
    handlers = installed_handlers()
    yield
    replaced = [
        signal.Signals(n).name for n, handler in installed_handlers().items() if handlers[n] != handler
    ]
    if replaced:
        raise UserError(
            f"{title}: its forward pass sets a handler of {', '.join(replaced)}:"
            " the run could not be stopped and saved; take it out"
        )
