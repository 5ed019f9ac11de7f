"""What happens around a sweep's jobs; so far, the table and the failures at its end."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from bnexp.errors import UserError
from bnexp.report.table import render
from bnexp.runs import SUMMARY, load_summary

log = logging.getLogger(__name__)


class SweepEnd(Callback):
    """Prints the comparison over the sweep's folder and every failure, and ends non-zero if there was one."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        folder = Path(str(config.hydra.sweep.dir))
        summaries = []
        for path in sorted(folder.glob(f"*/{SUMMARY}"), key=lambda path: path.stat().st_ctime):
            try:
                summaries.append(load_summary(path.parent) | {"folder": path.parent.name})
            except UserError as error:
                print(f"bnexp: {error}", file=sys.stderr)
        if table := render(summaries):
            print(f"\n{table}\n{folder}")
        failed = [summary for summary in summaries if summary["status"] != "finished"]
        for summary in failed:
            print(f"{summary['status']}: {summary['folder']}: {summary['error']}", file=sys.stderr)
        if failed:
            sys.exit(1)  # Hydra swallows exceptions of callbacks, but not this
