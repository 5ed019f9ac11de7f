"""The door: help, Hydra's complaints in one line, exit codes. Imports no torch."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from bnexp.cli.exit_codes import exit_code
from bnexp.cli.help import help_text
from bnexp.cli.hydra_errors import check_flags, translate_hydra_errors
from bnexp.cli.run_guard import RunGuard
from bnexp.compute import torchrun
from bnexp.signals import interruptible



def launch(entry: Callable[[], Any]) -> int:
    """Runs a Hydra entry point: 0 well, 1 crashed, 2 a user's mistake, 130 or 143 interrupted."""
    arguments = sys.argv[1:]
    if torchrun.is_secondary():
        RunGuard.folder_of_all = torchrun.shared_run_folder(arguments)
        arguments = torchrun.secondary_arguments(arguments)
    if any(word in ("--help", "-h") for word in arguments):
        print(help_text())
        return 0
    gc.disable()  # until all is imported (device.prepare): what imports make stays, to search it takes 0.3 s
    logging.raiseExceptions = False  # a full disk takes train.log's lines too; the run says so by itself
    threading.excepthook = lambda _: None  # TensorBoard's thread hands its error on to the run
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # makes Hydra raise: its errors then fit in one line
    # Idle OpenMP threads spin before they sleep. libgomp's own 300,000 turns slow a convolutional net to a
    # twentieth where something else wants a core; 1,000 cost it 40 % where nothing does; these 10 %.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

    def run() -> None:
        check_flags(arguments)
        translate_hydra_errors(entry, arguments)

    with interruptible():
        return exit_code(run)
