"""Starts a Hydra entry point: help, errors in one line, exit codes. Imports no torch."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from bnexp.cli.environment_values import insert_environment
from bnexp.cli.exit_codes import exit_code, printed_exit_code
from bnexp.cli.flags import put_flags_first
from bnexp.cli.help import help_text
from bnexp.cli.hydra_commands import TRAIN, HydraCommand
from bnexp.cli.hydra_errors import translate_hydra_errors
from bnexp.cli.preset_mode import with_mode_of_preset
from bnexp.compute import torchrun
from bnexp.compute.process_tuning import prepare_process
from bnexp.config.overrides import split_override
from bnexp.signals import interruptible

THREAD_PATIENCE_S = 5  # how long a finished command waits for the threads of the user's own code


def launch(
    entry: Callable[[], Any], arguments: list[str] | None = None, command: HydraCommand = TRAIN
) -> int:
    """Runs the Hydra entry point of a command with ``arguments``, by default those of the command line.

    Returns the exit code: 0 success, 1 failure, 2 a user's mistake, 130 or 143 interrupted.
    """
    command_line = sys.argv[1:] if arguments is None else arguments
    if torchrun.is_secondary():
        command_line = torchrun.secondary_arguments(command_line)
    if any(argument in ("--help", "-h") for argument in command_line):
        return printed_exit_code(lambda: print(help_text(command)))
    if "--version" in command_line:
        return printed_exit_code(
            lambda: print(f"{command.name} {version('bnexp')}, Hydra {version('hydra-core')}")
        )
    prepare_process()

    def run() -> None:
        full_arguments = insert_environment(command_line)
        _pass_to_hydra(with_mode_of_preset(put_flags_first(full_arguments, command)))
        translate_hydra_errors(entry, full_arguments, command)

    printing_flags = {"--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc"}
    prints = any(split_override(argument)[0] in printing_flags for argument in command_line)
    with interruptible():
        return printed_exit_code(run) if prints else exit_code(run)


def end_in_spite_of_threads(code: int) -> None:
    """Ends the process THREAD_PATIENCE_S seconds after its main thread, with ``code``, if threads still run.

    The user's own code may have started threads that never end: Python would wait for them for ever.
    """

    def watch() -> None:
        threading.main_thread().join()
        time.sleep(THREAD_PATIENCE_S)
        threads = [thread.name for thread in threading.enumerate() if not thread.daemon and thread.is_alive()]
        if threads:
            line = f"bnexp: ended, though threads of your own code run: {', '.join(threads)}\n"
            with suppress(OSError):
                os.write(2, line.encode())
            os._exit(code)

    threading.Thread(target=watch, daemon=True).start()


def _pass_to_hydra(arguments: list[str]) -> None:
    """Puts the arguments into sys.argv: ``hydra.main`` reads them there and has no parameter for them.

    This is the only place of bnexp that changes sys.argv.
    """
    sys.argv[1:] = arguments
