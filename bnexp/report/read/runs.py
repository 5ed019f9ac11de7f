"""Run folders read back: what each run was told, how it ended, its curves. Nothing found is executed.

A folder that cannot be used becomes a ``Problem`` with its reason, and the others are still compared.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from bnexp.config.overrides import override_values
from bnexp.errors import UserError, one_line
from bnexp.report.read.config import CONFIG, delta_of, image_counts, largest_class, positive, read_config
from bnexp.runs.environment import ENVIRONMENT
from bnexp.runs.folder import SUMMARY, load_summary

ENDED = {"failed": "failed", "interrupted": "interrupted", "running": "still being written, or killed"}
Twin = tuple[int, int | None]  # seed and fold


@dataclass(frozen=True)
class Problem:
    """A folder with something wrong in it; ``used`` where its run is compared nevertheless."""

    folder: str
    reason: str
    used: bool = False

    def __str__(self) -> str:
        return f"{self.folder}: {self.reason}" + ("" if self.used else "; not compared")


@dataclass(frozen=True)
class Run:
    """One run that came to an end, finished or diverged."""

    folder: str
    diverged: bool
    error: str  # what a diverged run said
    seed: int
    fold: int | None
    epochs: int
    settings: Mapping[str, Any]  # the saved configuration, keys dotted, without seed and fold
    overrides: Mapping[str, str]
    final: Mapping[str, float]
    best: Mapping[str, float]
    curves: Mapping[str, Sequence[float]]  # the columns of metrics.csv
    parameters: float = math.nan
    images_per_s: float = math.nan
    total_s: float = math.nan
    images: Mapping[str, int] = field(default_factory=dict)  # of train, val and test, where known
    classes: int | None = None
    largest: float | None = None  # the share of the largest class, which always naming it gets right
    delta: float | None = (
        None  # the smallest difference of interest that the configuration declares, in points
    )
    versions: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    started_at: str = ""

    @property
    def twin(self) -> Twin:
        """What a run shares with its twins."""
        return self.seed, self.fold

    @cached_property
    def train_s(self) -> list[float]:
        """Seconds of training up to the end of each epoch, evaluation left out; empty where not known.

        metrics.csv holds the images a second of each epoch's training, over all its images.
        """
        rates, images = self.curves.get("images_per_s", ()), self.images.get("train")
        return list(accumulate(images / rate if rate > 0 else math.nan for rate in rates)) if images else []

    @property
    def dataset(self) -> str:
        return str(self.settings.get("dataset.name", "unknown"))


def read_runs(paths: Iterable[Path]) -> tuple[list[Run], list[Problem]]:
    """Every run under the folders, in the order they were started, and what is wrong with any."""
    runs: dict[str, Run] = {}
    problems: list[Problem] = []
    seen: set[Path] = set()
    for path in paths:
        folders = list(find_runs(path))
        if not folders:
            problems.append(
                Problem(str(path), "no run in this folder" if path.is_dir() else "no such folder")
            )
        for folder in folders:
            if (real := folder.resolve()) in seen:
                continue
            seen.add(real)
            try:
                run, wrong = read_run(folder)
                runs[str(folder)] = run
                problems += [Problem(str(folder), reason, used=True) for reason in wrong]
            except UserError as error:
                problems.append(Problem(str(folder), str(error)))
    return sorted(runs.values(), key=lambda run: (run.started_at, run.folder)), problems


def find_runs(path: Path) -> Iterator[Path]:
    """The run folders at or under ``path``: those with a summary, and those where a run began without one."""
    for here, inside, files in os.walk(path):
        began = CONFIG.parts[0] in inside and "multirun.yaml" not in files
        if SUMMARY in files or began:
            yield Path(here)
            inside.clear()  # runs don't lie in runs
        inside.sort()


def read_run(folder: Path) -> tuple[Run, list[str]]:
    """One run and what is odd about it; raises UserError, saying why, where it cannot be compared."""
    if not (folder / SUMMARY).exists():
        raise UserError(f"no {SUMMARY}: this run never began or was cleared away")
    try:
        summary = load_summary(folder)
    except UserError as error:
        raise UserError(str(error).replace(f"{folder}{os.sep}", "").removeprefix(f"{folder}: ")) from None
    status = summary["status"]
    if status in ENDED or status not in ("finished", "diverged"):
        reason = summary.get("error")
        raise UserError(one_line(ENDED.get(status, f"status {status!r}") + (f": {reason}" if reason else "")))
    settings, final = read_config(folder), _numbers(summary.get("final"), "final")
    curves, wrong = _curves(folder, final)
    timing, (versions, threads, started) = _numbers(summary.get("time"), "time"), _environment(folder)
    (images, classes), delta = image_counts(settings, summary), delta_of(settings)
    seed, fold = settings.pop("seed", summary.get("seed")), settings.pop("dataset.fold", None)
    if not isinstance(seed, int):
        raise UserError(f"{CONFIG}: no whole number as seed")
    run = Run(
        folder=str(folder),
        diverged=status == "diverged",
        error=one_line(summary.get("error") or ""),
        seed=seed,
        fold=fold,
        epochs=positive(settings.get("epochs")) or 0,
        settings=settings,
        overrides=override_values(map(str, _list(summary.get("overrides")))),
        final=final,
        best=_numbers(summary.get("best"), "best"),
        curves=curves,
        parameters=float(positive(summary.get("parameters")) or math.nan),
        images_per_s=timing.get("images_per_s", math.nan),
        total_s=timing.get("total_s", math.nan),
        images=images,
        classes=classes,
        largest=largest_class(settings, summary, classes),
        delta=delta,
        versions=versions,
        threads=threads,
        started_at=started,
    )
    return run, wrong


class Cut(ValueError):
    """A damaged row; ``whole`` holds those before it."""

    def __init__(self, line: int, whole: dict[str, list[float]]) -> None:
        super().__init__(f"line {line} cannot be read; its curves end before it")
        self.whole = whole


def read_curves(path: Path) -> dict[str, list[float]]:
    """The columns of metrics.csv, nan where empty; raises Cut at a damaged row, OSError without a file."""
    with path.open(newline="", errors="replace") as file:
        rows = csv.reader(file)
        names = next(rows, [])
        if not names or names[0] != "epoch":
            raise ValueError("no header; no curves from it")
        columns: dict[str, list[float]] = {name: [] for name in names}
        for line, row in enumerate(rows, 2):
            try:
                numbers = [float(cell) if cell else math.nan for cell in row]
                if len(numbers) != len(names) or numbers[0] != line - 1:
                    raise ValueError
            except ValueError:
                raise Cut(line, columns) from None
            for name, number in zip(names, numbers, strict=True):
                columns[name].append(number)
    return columns


def _curves(folder: Path, final: Mapping[str, float]) -> tuple[dict[str, list[float]], list[str]]:
    """The curves as far as they can be read, and what is wrong with them."""
    try:
        curves = read_curves(folder / "metrics.csv")
    except (OSError, ValueError) as error:
        return getattr(error, "whole", {}), [f"metrics.csv: {_reason(error)}"]
    if any(differs(final.get(key), values[-1]) for key, values in curves.items() if values):
        return curves, [f"metrics.csv and {SUMMARY} disagree about the last epoch; {SUMMARY} is used"]
    return curves, []


def differs(one: float | None, other: float) -> bool:
    """Both are there and are not the same number."""
    return one is not None and math.isfinite(other) and not math.isclose(one, other, rel_tol=1e-6)


def _reason(error: Exception) -> str:
    return (error.strerror or "cannot be read") if isinstance(error, OSError) else one_line(error)


def _numbers(values: object, where: str) -> dict[str, float]:
    """The metrics of a summary; null stands for a number that is not finite."""
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{SUMMARY}: damaged ({where} is no mapping)")
    found = {}
    for key, value in values.items():
        if value is None:
            value = math.nan
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(one_line(f"{SUMMARY}: damaged ({where} {key}={value!r} is no number)"))
        if key.endswith("/accuracy") and not (math.isnan(value) or 0 <= value <= 1):
            raise UserError(f"{SUMMARY}: damaged ({where} {key}={value} lies outside 0 to 1)")
        found[str(key)] = float(value)
    return found


def _environment(folder: Path) -> tuple[dict[str, str], int | None, str]:
    """Versions and device, CPU threads, start of a run; nothing where the file is missing or damaged."""
    try:
        found = json.loads((folder / ENVIRONMENT).read_text())
        versions = {str(k): str(v) for k, v in found.get("versions", {}).items()}
        versions |= {key: str(found[key]) for key in ("device", "platform") if key in found}
        threads = found.get("threads")
        return versions, threads if isinstance(threads, int) else None, str(found.get("started", ""))
    except (OSError, ValueError, AttributeError, TypeError):
        return {}, None, ""


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
