"""bnexp: does this normalisation, optimiser or learning rate help, and how sure are we?

``open_run`` and ``open_sweep`` read what the commands have left. Importing bnexp imports no torch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnexp.results.saved_run import SavedRun
    from bnexp.results.saved_sweep import SavedSweep

__all__ = ["__version__", "open_run", "open_sweep"]
__version__ = "0.1.0"


def open_run(folder: str | os.PathLike[str]) -> SavedRun:
    """The run in ``folder``: its configuration, metrics, network. Nothing in the folder is executed.

    Raises ``bnexp.errors.UserError``, a ValueError of one line, where the folder holds no run.
    """
    from bnexp.results.saved_run import SavedRun

    return SavedRun(folder)


def open_sweep(folder: str | os.PathLike[str]) -> SavedSweep:
    """The runs below ``folder`` that can be compared, and their verdict. Nothing there is executed.

    Raises ``bnexp.errors.UserError``, a ValueError of one line, where there is no such run.
    """
    from bnexp.results.saved_sweep import SavedSweep

    return SavedSweep(folder)
