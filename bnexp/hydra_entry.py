"""What Hydra calls: once for a single run. A sweep is run by bnexp's sweeper (``hydra_plugins``).

Hydra's own launcher (hydra/launcher=basic) calls it for every job of a sweep. torch is imported when a run
begins, not before: --help, --cfg and completion stay fast.
"""

from __future__ import annotations

import importlib
import logging
import os
import shlex
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig

from bnexp.cli.composed_config import make_job
from bnexp.cli.exit_codes import exit_code
from bnexp.cli.run_guard import RunGuard
from bnexp.compute import torchrun
from bnexp.errors import UserError
from bnexp.runs.job import MachineShare
from bnexp.runs.run_log import keep_log
from bnexp.signals import StopSignal

log = logging.getLogger(__name__)

# Hydra's own search does not see the plugins of a package that is installed from a clone (pip install -e).
# Where it does, it has executed their module again: the classes of now are the ones to register.
hydra_plugins = Plugins.instance()
for plugin in importlib.import_module("hydra_plugins.bnexp").PLUGINS:
    hydra_plugins.register(plugin)


@hydra.main(version_base="1.3", config_path="pkg://bnexp.conf", config_name="config")
def entry(composed: DictConfig) -> None:
    hydra_config = HydraConfig.get()
    path = Path(hydra_config.runtime.output_dir)
    shown_path = shlex.quote(os.path.relpath(path, hydra_config.runtime.cwd))
    is_in_sweep = hydra_config.mode == RunMode.MULTIRUN
    stop = StopSignal()

    def run() -> None:
        from bnexp.training.job import train_job

        if not is_in_sweep and not RunGuard.is_passed():
            raise UserError("hydra.callbacks.run: it protects the folders of other runs; keep it")
        number = hydra_config.job.num if is_in_sweep else None
        job = make_job(composed, path, number=number, new_folders=tuple(RunGuard.new_folders))
        with keep_log():
            train_job(job, MachineShare(), stop)
        if stop.received is not None:  # after the last step: this run is finished, but a sweep must stop
            raise stop.interrupted()

    with stop:  # also while errors are printed: torchrun ends the other processes by a signal
        code = exit_code(run)
    if code >= 128:
        if not is_in_sweep and not torchrun.is_distributed():
            log.info(f"carry on: bnexp-resume {shown_path}")
        stop.forward_to_launcher()
    if not is_in_sweep or code >= 128:
        sys.exit(code)
