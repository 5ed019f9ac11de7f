"""Looks: each time these groups were compared (at the end of a sweep, or by bnexp-compare).

Testing again while seeds are added raises the rate of false alarms. So each look is recorded with the number
of runs it used.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bnexp.errors import WriteError
from bnexp.files import write_json

RECORD_FILE = "comparison.json"
LOOKS_FILE = "looks.json"  # of a sweep that was looked at without writing a comparison
SWEEP_FILES = ("sweep.json", "multirun.yaml")  # a sweep's folder has one of them
Look = Mapping[str, Any]  # "at": the time; "runs": number of runs of each group, diverged runs included


def earlier_looks(folders: Iterable[Path]) -> list[Look]:
    """The looks recorded in any of the folders, oldest first. A damaged record counts as no look."""
    looks: dict[str, Look] = {}
    for folder in folders:
        for name in (RECORD_FILE, LOOKS_FILE):
            try:
                recorded = json.loads((folder / name).read_text(encoding="utf-8"))["looks"]
                looks |= {str(look["at"]): look for look in recorded if _is_valid(look["runs"])}
            except (OSError, ValueError, KeyError, TypeError):
                continue
    return [looks[at] for at in sorted(looks)]


def record_look(looks: Sequence[Look], runs: Mapping[str, int]) -> tuple[Look, ...]:
    """``looks`` and this one, which used ``runs`` runs of each group.

    The same numbers of runs as in an earlier look are the same data: no new look. Group names may differ.
    """
    if any(sorted(look["runs"].values()) == sorted(runs.values()) for look in looks):
        return tuple(looks)
    return (*looks, {"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "runs": dict(runs)})


def save_looks(folders: Iterable[Path], looks: Sequence[Look]) -> None:
    """Records the looks in each folder that is a sweep's and can be written; a look leaves no other trace."""
    for folder in folders:
        if any((folder / name).is_file() for name in SWEEP_FILES):
            with suppress(WriteError):
                write_json(folder / LOOKS_FILE, {"looks": [dict(look) for look in looks]})


def looks_at(looks: Sequence[Look], groups: Collection[str]) -> list[int]:
    """The number of runs of the largest group at each look that compared at least two of ``groups``."""
    runs = [[n for name, n in look["runs"].items() if name in groups] for look in looks]
    return [max(counts) for counts in runs if len(counts) > 1]


def _is_valid(runs: object) -> bool:
    return isinstance(runs, dict) and all(isinstance(n, int) for n in runs.values())
