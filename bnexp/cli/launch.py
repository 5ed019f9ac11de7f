"""The door: help, Hydra's complaints in one line, exit codes. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from bnexp.cli.exit_codes import exit_code
from bnexp.cli.help import help_text
from bnexp.cli.hydra_errors import check_flags, translate_hydra_errors
from bnexp.cli.run_guard import RunGuard
from bnexp.compute import torchrun
from bnexp.compute.process_tuning import prepare_process
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
    prepare_process()

    def run() -> None:
        check_flags(arguments)
        translate_hydra_errors(entry, arguments)

    with interruptible():
        return exit_code(run)
