"""Two runs at the same time."""

from __future__ import annotations

import json

from limits import SMALL
from reference import get_reference
from trial import RUN, Trial, require


def same_second(trial: Trial) -> None:
    """Two runs that start at the same time get two folders."""
    processes = [trial.start(*SMALL) for _ in range(2)]
    for process in processes:
        result = trial.finish(process)
        require(result.code == 0, result.err)
    summaries = list(trial.folder.glob("outputs/*/*/summary.json"))
    require(len(summaries) == 2, f"folders: {[path.parent for path in summaries]}")
    for path in summaries:
        require(json.loads(path.read_text())["status"] == "finished", str(path.parent))


def same_folder(trial: Trial) -> None:
    """A second run in the same folder is refused, or it starts so late that nothing is left to do."""
    reference = get_reference(trial)
    args = (*RUN, "hydra.run.dir=run")
    process = trial.start(*args)
    if trial.number % 2:
        trial.wait_until(trial.has_epoch, process)
    second = trial.run(*args, *(["seed=1"] if trial.number % 4 > 1 else []))
    first = trial.finish(process)
    if first.code == 0:
        if not (second.code == 0 and "nothing to do" in second.out):
            second.require_one_line(2, "run")
        trial.require_same_record(reference.path)
    else:  # the second process locked the folder first
        require(second.code == 0, f"both failed: {first.err} {second.err}")
        first.require_one_line(2, "run")
