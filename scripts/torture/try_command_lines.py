"""Tries COUNT random command lines in this process, and prints those that fail as JSON, one a line.

python scripts/torture/try_command_lines.py COUNT SEED
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import torch  # noqa: F401 - its import would take seconds of the first deadline
from hypothesis import HealthCheck, Phase, given, seed, settings

from helpers.random_command_lines import LINES, run


def try_command_lines(count: int, seed_value: int) -> None:
    warnings.simplefilter("ignore")

    @seed(seed_value)
    @settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(LINES)
    def try_line(line: list[str]) -> None:
        result = run(line, Path.cwd())
        if (fault := result.find_fault()) is not None:
            print(json.dumps([line, result.code, fault, result.err[-300:]]), flush=True)

    try_line()


if __name__ == "__main__":
    try_command_lines(int(sys.argv[1]), int(sys.argv[2]))
