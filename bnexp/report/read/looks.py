"""Looks: each time a comparison of these groups was written (at the end of a sweep, or by --output).

Testing again while seeds are added raises the rate of false alarms. So each look is recorded with the number
of runs it used.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RECORD_FILE = "comparison.json"
Look = Mapping[str, Any]  # "at": the time; "runs": number of runs of each group, diverged runs included


def earlier_looks(folders: Iterable[Path]) -> list[Look]:
    """The looks recorded in any of the folders, oldest first. A damaged record counts as no look."""
    looks: dict[str, Look] = {}
    for folder in folders:
        try:
            recorded = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))["looks"]
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


def looks_at(looks: Sequence[Look], groups: Collection[str]) -> list[int]:
    """The number of runs of the largest group at each look that compared at least two of ``groups``."""
    runs = [[n for name, n in look["runs"].items() if name in groups] for look in looks]
    return [max(counts) for counts in runs if len(counts) > 1]


def _is_valid(runs: object) -> bool:
    return isinstance(runs, dict) and all(isinstance(n, int) for n in runs.values())
