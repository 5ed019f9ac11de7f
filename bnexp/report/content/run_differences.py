"""What differs between two runs: their configurations, versions, device and data."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from bnexp.config.overrides import flatten
from bnexp.errors import UserError, one_line
from bnexp.report.analysis.settings import ABSENT, format_value
from bnexp.report.read.config import CONFIG_FILE, read_config
from bnexp.report.read.runs import find_runs
from bnexp.runs.environment import read_environment
from bnexp.runs.summary import SUMMARY, load_summary

ENVIRONMENT_KEYS = ("versions", "device", "threads", "processes", "git")
GAP = "  "


class KeyDifference(NamedTuple):
    """One key and its value in each run; ``(absent)`` in a run without the key."""

    key: str
    first: str
    second: str


def run_differences(first: Path, second: Path) -> list[KeyDifference]:
    """The keys in which two runs differ, in the order of their configurations.

    Configuration keys are as on the command line. ``environment.`` stands before a key of environment.json
    and ``summary.`` before one of summary.json. A run may have ended in any state. Raises UserError for a
    folder that is no run, or whose files are damaged.
    """
    settings = _settings(first), _settings(second)
    texts = [{key: one_line(format_value(value)) for key, value in values.items()} for values in settings]
    pairs = [(key, *(run.get(key, ABSENT) for run in texts)) for key in dict.fromkeys((*texts[0], *texts[1]))]
    return [KeyDifference(*pair) for pair in pairs if pair[1] != pair[2]]


def format_differences(differences: list[KeyDifference]) -> list[str]:
    """One line a key, in aligned columns."""
    widths = [max(map(len, column)) for column in zip(*differences, strict=True)]
    return [
        GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in differences
    ]


def _settings(folder: Path) -> dict[str, Any]:
    _check_is_run(folder)
    try:
        config = read_config(folder)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    summary = load_summary(folder) if (folder / SUMMARY).exists() else {}
    environment = read_environment(folder)
    recorded: Mapping[str, Any] = {
        "environment": {key: environment[key] for key in ENVIRONMENT_KEYS if key in environment},
        "summary": {"fingerprints": summary.get("fingerprints") or {}},
    }
    return {**config, **{key: value for key, value in flatten(recorded).items() if value != {}}}


def _check_is_run(folder: Path) -> None:
    """Raises UserError for a folder that is not that of one run."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    runs = list(islice(find_runs(folder), 1))
    if not runs:
        raise UserError(f"{folder}: no run in this folder")
    if runs != [folder]:
        raise UserError(f"{folder}: not a run but a folder of runs; --diff takes two runs, as {runs[0]}")
    if not (folder / CONFIG_FILE).exists():
        raise UserError(f"{folder}: no {CONFIG_FILE}")
