"""The entry point of a run: ``bnexp`` and ``python -m bnexp.train``.

Hydra calls ``entry`` once for a single run and once for every job of a sweep. torch is imported when a run
begins, not before: --help, --cfg and completion stay fast.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from bnexp.cli.composed_config import fingerprints_of, group_choices, resolve_config, save_config
from bnexp.cli.exit_codes import exit_code
from bnexp.cli.launch import launch
from bnexp.cli.run_guard import RunGuard
from bnexp.compute import torchrun
from bnexp.config.schema import parse
from bnexp.runs.folder import RunFolder, lock_folder, record_outcome
from bnexp.sweeps import workers
from bnexp.sweeps.sweep import Sweep, finish_sweep

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="pkg://bnexp.conf", config_name="config")
def entry(composed: DictConfig) -> None:
    hydra_config = HydraConfig.get()
    path = Path(hydra_config.runtime.output_dir)
    sweep = Sweep.current()
    stop = workers.stop_signal(sweep.stop_file if sweep else None)
    if stop.received is not None or (sweep and not sweep.should_run(hydra_config, path, composed)):
        return

    def run() -> None:
        from bnexp.training.run import train

        values = resolve_config(composed)
        with lock_folder(path):
            folder = RunFolder(
                path, values, list(hydra_config.overrides.task), RunGuard.new_folders,
                fingerprints=fingerprints_of(values), choices=group_choices(hydra_config),
                job_number=hydra_config.job.num if sweep else None,
            )  # fmt: skip
            if folder.previous_summary is None:
                save_config(path, composed)
            with record_outcome(folder, keep=sweep is not None):
                config = parse(values)
                if folder.previous_summary is not None:  # after parsing: a mistake changes no file
                    save_config(path, composed)
                text = OmegaConf.to_yaml(composed, resolve=True)
                train(config, folder, text, stop, sweep.job(hydra_config) if sweep else None)
        if stop.received is not None:  # after the last step: this run is finished, but a sweep must stop
            raise stop.interrupted()

    with stop:  # also while errors are printed: torchrun ends the other processes by a signal
        code = exit_code(run)
    is_interrupted = code >= 128
    if is_interrupted:
        if sweep is None and not torchrun.is_distributed():
            log.info(f"carry on: bnexp-resume {shlex.quote(os.path.relpath(path))}")
        stop.forward_to_launcher()
    if sweep is None or (is_interrupted and stop.ends_process):  # a worker's signals go to its parent
        sys.exit(code)


def main(arguments: list[str] | None = None) -> None:
    """Trains with these arguments, by default those of the command line, and ends the process."""
    code = launch(entry, arguments)
    sys.exit(exit_code(lambda: sys.exit(finish_sweep(code))))


if __name__ == "__main__":
    main()
