"""Undisturbed runs and sweeps, to compare the disturbed ones with."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from trial import RUN, Trial, require


@dataclass(frozen=True)
class Reference:
    """An undisturbed run or sweep."""

    path: Path
    startup_s: float  # from the start of the command to the first folder of checkpoints
    total_s: float

    def random_delay(self, trial: Trial, share: float = 1.0) -> float:
        """Random seconds to wait after the first folder of checkpoints: at most ``share`` of the training."""
        return trial.random.uniform(0, share * (self.total_s - self.startup_s))


_references: dict[tuple[Path, tuple[str, ...]], Reference] = {}
_lock = threading.Lock()


def get_reference(trial: Trial, args: tuple[str, ...] = RUN) -> Reference:
    """The reference with these arguments. It runs when a trial asks for it the first time."""
    root = trial.folder.parent
    with _lock:
        if (root, args) not in _references:
            folder = root / f"reference-{len(_references)}"
            _references[root, args] = _run_reference(folder, args)
        return _references[root, args]


def _run_reference(folder: Path, args: tuple[str, ...]) -> Reference:
    trial = Trial(folder, "reference", 0)
    is_sweep = args[0] == "-m"
    path = folder / ("sweep" if is_sweep else "run")
    start = time.monotonic()
    process = trial.start(*args, "hydra.sweep.dir=sweep" if is_sweep else "hydra.run.dir=run")
    trial.wait_until(lambda: [*path.glob("checkpoints"), *path.glob("*/checkpoints")], process)
    startup_s = time.monotonic() - start
    if not is_sweep:
        trial.wait_until(lambda: trial.read_status() == "finished", process)
    total_s = time.monotonic() - start
    require(trial.finish(process).code == 0, "the undisturbed command failed")
    return Reference(path, startup_s, total_s)
