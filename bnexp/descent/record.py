"""The files of a descent in its folder, and those of several in the folder of all. Each is written whole."""

from __future__ import annotations

import csv
import io
import math
import shlex
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bnexp.config.overrides import override_values
from bnexp.descent.outcome import value_at
from bnexp.descent.path import DescentPath
from bnexp.descent.picture import draw_paths
from bnexp.descent.ranking import Arm, rank, ranking_csv, seconds_per_epoch
from bnexp.files import is_utf8, name_write_errors, write_atomically, write_json, write_text
from bnexp.report.plots.style import Picture
from bnexp.runs.environment import ENVIRONMENT, describe_environment
from bnexp.runs.job import Job
from bnexp.runs.summary import DESCENT, SUMMARY
from bnexp.runs.tensorboard_logger import TensorBoardLogger

MAX_EVENTS = 1000  # points of each TensorBoard scalar: a longer path is thinned out


def write_descent(job: Job, arm: Arm) -> None:
    """Writes the folder of one descent; summary.json is last, so that a folder that has it is complete."""
    folder, path, picture = job.path, arm.path, draw_paths([arm], "path")
    folder.mkdir(parents=True, exist_ok=True)
    job.write_texts()
    write_json(folder / ENVIRONMENT, describe_environment())
    write_text(folder / "path.csv", path_csv(path))
    write_picture(folder, picture)
    if arm.config.tracking.tensorboard and is_utf8(folder):  # TensorBoard writes no other path
        _write_events(folder, path, job)
    status = "interrupted" if path.interrupted else "finished"
    write_json(folder / SUMMARY, _summary(job, status) | _result(arm))


def write_failure(job: Job, error: str) -> None:
    """Writes the folder of a descent of several that could not take its steps."""
    job.path.mkdir(parents=True, exist_ok=True)
    job.write_texts()
    write_json(job.path / SUMMARY, _summary(job, "failed") | {"result": None, "error": error})


def write_ranking(folder: Path, arms: Sequence[Arm], failures: Sequence[str], interrupted: bool) -> None:
    """Writes the ranking and a picture for each function: ``arms`` are in their typed order."""
    groups = rank(arms)
    write_text(folder / "ranking.csv", ranking_csv(groups))
    for number, function in enumerate(groups, 1):
        suffix = f"-{number}" if len(groups) > 1 else ""
        of_function = [arm for arm in arms if arm.function == function]
        write_picture(folder, draw_paths(of_function, f"paths{suffix}"))
    winners = [f"{function}: {group[0].label} is first" for function, group in groups.items()]
    values = {
        "kind": DESCENT,
        "status": "interrupted" if interrupted else "failed" if failures else "finished",
        "command": shlex.join(sys.argv),
        "descents": len(arms),
        "result": {
            "sentence": "; ".join(winners),
            "order": {f: [a.label for a in g] for f, g in groups.items()},
        },
        "error": f"{len(failures)} of {len(arms) + len(failures)} descents failed" if failures else None,
    }
    write_json(folder / SUMMARY, values)


def write_picture(folder: Path, picture: Picture) -> None:
    write_text(folder / f"{picture.name}.svg", picture.svg)
    write_atomically(folder / f"{picture.name}.png", picture.write_png)


def path_csv(path: DescentPath) -> str:
    """A row for each recorded point, its coordinates last; ``nan`` and ``inf`` can stand in the last row."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["step", "epoch", "seconds", "lr", "value", "gradient_norm", *path.objective.variables])
    for row in path.rows:
        seconds = f"{row.seconds:.6f}"
        writer.writerow([row.step, row.epoch, seconds, row.lr, row.value, row.gradient_norm, *row.point])
    return text.getvalue()


def _summary(job: Job, status: str) -> dict[str, Any]:
    return {
        "kind": DESCENT,
        "status": status,
        "name": job.values["name"],
        "config_hash": job.config_hash,
        "fingerprints": job.fingerprints,
        "overrides": job.overrides,
        "choices": job.choices,
        "job_number": job.number,
        "seed": job.values["seed"],
        "error": None,
    }


def _result(arm: Arm) -> dict[str, Any]:
    path, last = arm.path, arm.path.last
    minimum = path.objective.minimum(last.point)
    times: dict[str, Any] = {"steps_s": path.rows[-1].seconds}
    if path.by_hand is not None:
        times |= {"by_hand_s": path.by_hand.seconds}
    return {
        "result": asdict(arm.outcome)
        | {
            "function": arm.function,
            "point": dict(zip(path.objective.variables, last.point, strict=True)),
            "value": last.value,
            "gradient_norm": last.gradient_norm,
            "minimum": None if minimum is None else list(minimum),
            "minimum_value": None if minimum is None else value_at(path, minimum),
            "steps": path.rows[-1].step,
            "seconds_per_epoch": seconds_per_epoch(path),
            "by_hand_difference": by_hand_difference(path),
        },
        "time": times,
    }


def by_hand_difference(path: DescentPath) -> float | None:
    """The largest difference between a weight by torch and by hand; None without a descent by hand."""
    if path.by_hand is None:
        return None
    return max(abs(a - b) for a, b in zip(path.by_hand.point, path.last.point, strict=True))


def _write_events(folder: Path, path: DescentPath, job: Job) -> None:
    """TensorBoard's scalars by step: value, gradient norm, learning rate, and each coordinate."""
    hparams: dict[str, float | str] = dict(job.hparams or override_values(job.overrides))
    rows, stride = path.finite_rows, math.ceil(len(path.finite_rows) / MAX_EVENTS)
    with name_write_errors(folder):
        logger = TensorBoardLogger(folder, every=1, histograms=False, hparams=hparams, layout=None)
        with closing(logger):
            logger.text("config", f"```yaml\n{job.config_yaml}```")
            for row in [*rows[::stride], *(rows[-1:] if (len(rows) - 1) % stride else ())]:
                values = {"value": row.value, "gradient_norm": row.gradient_norm, "lr": row.lr}
                coordinates = {
                    f"point/{name}": x for name, x in zip(path.objective.variables, row.point, strict=True)
                }
                logger.scalars(values | coordinates, row.step)
            logger.final({"value": rows[-1].value, "gradient_norm": rows[-1].gradient_norm}, rows[-1].step)
