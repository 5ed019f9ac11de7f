"""Looks: every time a comparison of these groups was written down (a sweep's end, --output).

Testing again while seeds are added raises false alarms, so that each look is kept with the runs it saw.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RECORD = "comparison.json"
Look = Mapping[str, Any]  # "at": when; "runs": how many runs of each group, diverged ones among them


def earlier_looks(folders: Iterable[Path]) -> list[Look]:
    """The looks recorded in any of the folders, the oldest first; a damaged record holds none."""
    found: dict[str, Look] = {}
    for folder in folders:
        try:
            looks = json.loads((folder / RECORD).read_text())["looks"]
            found |= {str(look["at"]): look for look in looks if _whole(look["runs"])}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return [found[at] for at in sorted(found)]


def record_look(looks: Sequence[Look], runs: Mapping[str, int]) -> tuple[Look, ...]:
    """With this look at so many runs of each group; as many seen again are no new one, whatever the names."""
    if any(sorted(look["runs"].values()) == sorted(runs.values()) for look in looks):
        return tuple(looks)
    return (*looks, {"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "runs": dict(runs)})


def _whole(runs: object) -> bool:
    return isinstance(runs, dict) and all(isinstance(n, int) for n in runs.values())
