"""What happens around a sweep's jobs; so far, the verdict and the failures at its end."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from bnexp.errors import UserError

log = logging.getLogger(__name__)


class SweepEnd(Callback):
    """Prints and writes the verdict over the sweep's folder, and ends non-zero if a job did not finish."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        from bnexp.report.collect import collect
        from bnexp.report.record import looks, write
        from bnexp.report.text import show
        from bnexp.report.verdict import compare

        folder = Path(str(config.hydra.sweep.dir))
        runs, problems = collect([folder])
        for problem in problems:
            print(f"bnexp: {problem}", file=sys.stderr)
        failed = [f"bnexp: {run.folder}: diverged" for run in runs if run.diverged]
        try:
            found = compare(runs, problems, looks=looks(folder))
            print()
            show(found)
            print(f"\n{write(found, folder)}")
        except UserError as error:
            failed.append(f"bnexp: {error}")
        for line in failed:
            print(line, file=sys.stderr)
        if failed or any(not problem.used for problem in problems):
            sys.exit(1)  # Hydra swallows exceptions of callbacks, but not this
