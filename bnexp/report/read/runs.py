"""Run folders as ``Run`` objects: configuration, final metrics, curves. Nothing in a folder is executed.

A folder that cannot be used becomes a ``Problem`` with its reason; the other runs are still compared.
"""

from __future__ import annotations

import hashlib
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
from bnexp.files import FILE_DIGITS
from bnexp.report.read.config import (
    CONFIG_FILE,
    image_counts,
    majority_share,
    pop_delta,
    positive_int,
    read_config,
)
from bnexp.report.read.metrics_csv import METRICS_FILE, read_metrics
from bnexp.report.read.probe_tables import ProbeTable, read_probe_tables
from bnexp.runs.confusion import read_confusion
from bnexp.runs.environment import ENVIRONMENT
from bnexp.runs.summary import SUMMARY, check_is_training, is_descent, load_summary

COMPARABLE = ("finished", "diverged")
MAX_NAME = 40
DESIGN_FILE = "design.json"  # in the folder of a sweep that plans its seeds or tunes
TUNING_FOLDER = "tuning"  # in the same folder: the runs that choose each group's values
UNFINISHED = {
    "failed": "failed",
    "interrupted": "interrupted",
    "running": "still being written, or killed",
}
PairKey = tuple[int, int | None]  # seed and fold: two runs of different groups that share it are twins


@dataclass(frozen=True)
class Problem:
    """A run folder and what is wrong with it; ``used``: the run is compared all the same."""

    folder: str
    reason: str
    used: bool = False

    def __str__(self) -> str:
        return f"{self.folder}: {self.reason}" + ("" if self.used else "; not compared")


@dataclass(frozen=True)
class Run:
    """One run that finished or diverged."""

    folder: str
    diverged: bool
    error: str  # the message of a diverged run
    seed: int
    fold: int | None
    epochs: int
    settings: Mapping[str, Any]  # the saved configuration with dotted keys, without seed and fold
    overrides: Mapping[str, str]
    final: Mapping[str, float]
    best: Mapping[str, float]
    curves: Mapping[str, Sequence[float]]  # the columns of metrics.csv
    parameters: float = math.nan
    images_per_s: float = math.nan
    total_s: float = math.nan
    images: Mapping[str, int] = field(default_factory=dict)  # of train, val and test, where known
    majority: float | None = None  # the largest class's share of the test images
    delta: float | None = None  # the configured smallest difference of interest, in points
    versions: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    started_at: str = ""
    epoch_rule: str = "auto"  # report.epoch of the configuration
    choices: Mapping[str, str] = field(default_factory=dict)  # the chosen file of each group, as typed
    job_number: int | None = None  # the place in its sweep
    predictions: Mapping[str, Sequence[int]] = field(default_factory=dict)  # test images given to each class
    probes: Mapping[str, ProbeTable] = field(default_factory=dict)

    @property
    def pair_key(self) -> PairKey:
        return self.seed, self.fold

    @property
    def ended_early(self) -> bool:
        """Whether early stopping ended it before its last epoch."""
        patience = self.settings.get("early_stopping.patience")
        return (
            not self.diverged and patience is not None and 0 < len(self.curves.get("epoch", ())) < self.epochs
        )

    @cached_property
    def train_s(self) -> list[float]:
        """Seconds of training up to the end of each epoch, without evaluation; empty where not known.

        Computed from the images per second of each epoch in metrics.csv, which cover all training images.
        """
        rates, images = self.curves.get("images_per_s", ()), self.images.get("train")
        return list(accumulate(images / rate if rate > 0 else math.nan for rate in rates)) if images else []

    @cached_property
    def confusion(self) -> dict[str, dict[tuple[str, str], int]]:
        """Test images by true and predicted class, for each recorded epoch; read when it is asked for."""
        return read_confusion(Path(self.folder))


def read_runs(paths: Iterable[Path]) -> tuple[list[Run], list[Problem]]:
    """Every run under the paths, in the order in which they were typed, and the problems of their folders."""
    runs: dict[str, Run] = {}
    originals: dict[str, str] = {}
    problems: list[Problem] = []
    visited: set[Path] = set()
    for path in paths:
        folders = list(find_runs(path))
        if not folders:
            problems.append(Problem(str(path), _why_no_run(path)))
        for folder in folders:
            if (real_path := folder.resolve()) in visited:
                continue
            visited.add(real_path)
            try:
                run, reasons = read_run(folder)
                if (original := originals.setdefault(_content_of(run), run.folder)) != run.folder:
                    problems.append(Problem(run.folder, f"a copy of {original}, counted once", used=True))
                    continue
                runs[str(folder)] = run
                problems += [Problem(str(folder), reason, used=True) for reason in reasons]
            except UserError as error:
                if folder == path or not is_descent(folder):  # descents among the runs are passed over
                    problems.append(Problem(str(folder), str(error)))
    return _in_typed_order(runs.values()), problems


def _content_of(run: Run) -> str:
    """What tells a run from its copy in another folder: no two runs have these times in common."""
    times = (run.started_at, run.total_s, run.images_per_s)
    return repr((*times, run.pair_key, run.settings, run.final)) if run.started_at else run.folder


def _in_typed_order(runs: Iterable[Run]) -> list[Run]:
    """Sweep after sweep in the order of their starts, and each sweep's jobs in the order of their numbers.

    Jobs that run at the same time start in any order. Their numbers follow the values as they were typed.
    """
    runs = list(runs)
    sweep_starts: dict[Path, str] = {}
    for run in runs:
        sweep = Path(run.folder).parent
        sweep_starts[sweep] = min(sweep_starts.get(sweep, run.started_at), run.started_at)

    def position(run: Run) -> tuple[str, str, float, str, str]:
        if run.job_number is None:
            return run.started_at, "", math.inf, run.started_at, run.folder
        sweep = Path(run.folder).parent
        return sweep_starts[sweep], str(sweep), run.job_number, run.started_at, run.folder

    return sorted(runs, key=position)


def check_holds_runs(path: Path) -> None:
    """Raises UserError for a path at or below which there is no run of training."""
    folders = list(find_runs(path))
    if not folders:
        raise UserError(f"{path}: {_why_no_run(path)}")
    if all(is_descent(folder) for folder in folders):
        check_is_training(folders[0])


def _why_no_run(path: Path) -> str:
    return "no run in this folder" if path.is_dir() else "no such folder"


def find_runs(path: Path) -> Iterator[Path]:
    """The run folders at or under ``path``; also those of runs that were started but have no summary.

    A folder that this user may not read is among them: it may hold a run.
    """
    unreadable: list[Path] = []

    def note(error: OSError) -> None:
        if isinstance(error, PermissionError):
            unreadable.append(Path(error.filename))

    for folder, subfolders, files in os.walk(path, onerror=note):
        was_started = CONFIG_FILE.parts[0] in subfolders and "multirun.yaml" not in files
        if SUMMARY in files or was_started:
            yield Path(folder)
            subfolders.clear()  # no run folder contains another
        if DESIGN_FILE in files and TUNING_FOLDER in subfolders:
            subfolders.remove(TUNING_FOLDER)  # its runs have chosen values for the others
        subfolders.sort()
    yield from unreadable


def read_run(folder: Path) -> tuple[Run, list[str]]:
    """One run, and what is wrong with its curves. Raises UserError where the run cannot be compared."""
    summary = _load_summary(folder)
    settings, final = read_config(folder) | _fingerprints(summary), _metrics(summary, "final")
    if summary["status"] == "finished" and not final:
        raise UserError(f"{SUMMARY}: finished, but without results (final is empty or missing)")
    curves, reasons = _curves(folder, final)
    times, (versions, threads, started_at) = _metrics(summary, "time"), _environment(folder)
    (images, classes), delta = image_counts(settings, summary), pop_delta(settings)
    seed, fold = settings.pop("seed", None), settings.pop("dataset.fold", None)
    if not isinstance(seed, int):  # an interpolation, as ${epochs}: the run has recorded its value
        seed = summary.get("seed")
    if not isinstance(seed, int):
        raise UserError(f"{CONFIG_FILE}: no whole number as seed")
    run = Run(
        folder=str(folder),
        diverged=summary["status"] == "diverged",
        error=one_line(summary.get("error") or ""),
        seed=seed,
        fold=fold,
        epochs=positive_int(settings.get("epochs")) or 0,
        settings=settings,
        overrides=_overrides(summary),
        final=final,
        best=_metrics(summary, "best"),
        curves=curves,
        parameters=float(positive_int(summary.get("parameters")) or math.nan),
        images_per_s=times.get("images_per_s", math.nan),
        total_s=times.get("total_s", math.nan),
        images=images,
        majority=majority_share(settings, summary, classes),
        delta=delta,
        versions=versions,
        threads=threads,
        started_at=started_at,
        epoch_rule=str(settings.get("report.epoch", "auto")),
        choices=_choices(summary),
        job_number=job_number if isinstance(job_number := summary.get("job_number"), int) else None,
        predictions=_predictions(summary),
        probes=read_probe_tables(folder),
    )
    return run, reasons


def _load_summary(folder: Path) -> dict[str, Any]:
    """The summary of a run that finished or diverged; raises UserError for every other run."""
    try:
        if not (folder / SUMMARY).exists():
            raise UserError(f"no {SUMMARY}: this run never began or was cleared away")
        summary = load_summary(folder)
        check_is_training(folder)
    except UserError as error:
        raise UserError(str(error).replace(f"{folder}{os.sep}", "").removeprefix(f"{folder}: ")) from None
    except PermissionError as error:
        raise UserError(f"cannot be read ({error.strerror})") from None
    status, error_text = summary["status"], summary.get("error")
    if status not in COMPARABLE:
        reason = UNFINISHED.get(status, f"status {status!r}")
        raise UserError(one_line(f"{reason}: {error_text}" if error_text else reason))
    return summary


def _overrides(summary: Mapping[str, Any]) -> dict[str, str]:
    overrides = summary.get("overrides")
    return override_values(map(str, overrides)) if isinstance(overrides, list) else {}


def _fingerprints(summary: Mapping[str, Any]) -> dict[str, str]:
    """What a run was trained on, as settings: ``dataset.name`` of a folder of images, ``model.source``,
    and ``files.read`` for the data files that its own code has read."""
    fingerprints = dict(summary.get("fingerprints") or {})
    names = {group: "dataset.name" if group == "dataset" else f"{group}.source" for group in fingerprints}
    prefix = {"dataset": "image_folder "}
    settings = {
        names[group]: f"{prefix.get(group, '')}{text}"[:MAX_NAME] for group, text in fingerprints.items()
    }
    if files := summary.get("files"):  # by their contents: a moved file is the same
        digests = " ".join(sorted(map(str, files.values())))
        settings["files.read"] = hashlib.sha256(digests.encode()).hexdigest()[:FILE_DIGITS]
    return settings


def _choices(summary: Mapping[str, Any]) -> dict[str, str]:
    choices = summary.get("choices")
    if not isinstance(choices, dict):
        return {}
    return {str(group): "null" if choice is None else str(choice) for group, choice in choices.items()}


def _predictions(summary: Mapping[str, Any]) -> dict[str, list[int]]:
    """The counts that are whole numbers; empty for older runs."""
    predictions = summary.get("predictions")
    if not isinstance(predictions, dict):
        return {}
    return {
        str(epoch): counts
        for epoch, counts in predictions.items()
        if isinstance(counts, list) and counts and all(isinstance(count, int) for count in counts)
    }


def _curves(folder: Path, final: Mapping[str, float]) -> tuple[dict[str, list[float]], list[str]]:
    """The curves as far as they can be read, and what is wrong with them."""
    curves, reason = read_metrics(folder)
    if reason:
        return curves, [f"{METRICS_FILE}: {reason}"]
    if any(_disagree(final.get(key), column[-1]) for key, column in curves.items() if column):
        return curves, [f"{METRICS_FILE} and {SUMMARY} disagree about the last epoch; {SUMMARY} is used"]
    return curves, []


def _disagree(final: float | None, logged: float) -> bool:
    """Both numbers exist and they differ."""
    return final is not None and math.isfinite(logged) and not math.isclose(final, logged, rel_tol=1e-6)


def _metrics(summary: Mapping[str, Any], section: str) -> dict[str, float]:
    """The numbers in one section of a summary; null stands for a number that is not finite."""
    values = summary.get(section)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{SUMMARY}: damaged ({section} is no mapping)")
    numbers = {}
    for key, value in values.items():
        if value is None:
            value = math.nan
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(one_line(f"{SUMMARY}: damaged ({section} {key}={value!r} is no number)"))
        if key.endswith("accuracy") and not (math.isnan(value) or 0 <= value <= 1):
            raise UserError(f"{SUMMARY}: damaged ({section} {key}={value} lies outside 0 to 1)")
        numbers[str(key)] = float(value)
    return numbers


def _environment(folder: Path) -> tuple[dict[str, str], int | None, str]:
    """Versions and device, CPU threads, time of the start; empty where the file is missing or damaged."""
    try:
        environment = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
        versions = {str(name): str(version) for name, version in environment.get("versions", {}).items()}
        versions |= {key: str(environment[key]) for key in ("device", "platform") if key in environment}
        threads = environment.get("threads")
        threads = threads if isinstance(threads, int) else None
        return versions, threads, str(environment.get("started", ""))
    except (OSError, ValueError, AttributeError, TypeError):
        return {}, None, ""
