"""The benchmark script: what it says of numbers, and a tiny run of its parts on the real sets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from bench import table  # noqa: E402


def test_ratios_are_of_neighbours_in_time():
    """A machine that slows both alike changes no ratio."""
    assert table.ratio([2, 4, 60], [1, 2, 30]) == 2
    assert table.spread([2, 4, 60], [1, 4, 30]) == "1.00 to 2.00"
    calls = []
    ways = {name: lambda name=name: calls.append(name) or 1.0 for name in "ab"}
    assert table.interleaved(ways, 2) == {"a": [1, 1], "b": [1, 1]}
    assert calls == ["a", "b", "a", "b"]


def test_a_table_is_markdown():
    made = table.Table(
        "Speed", "How fast.", [{"model": "mlp", "rate": 12345.6, "share": 0.0312, "none": None}]
    )
    assert made.markdown().splitlines() == [
        "### Speed", "", "How fast.", "",
        "| model |   rate | share | none |",
        "| :---- | -----: | ----: | ---: |",
        "| mlp   | 12,346 | 0.031 |      |",
    ]  # fmt: skip


@pytest.mark.slow
def test_parts_on_the_real_sets(data_dir, tmp_path):
    parts = ("train", "evaluate", "recording", "profile", "gpu")
    done = subprocess.run(
        [sys.executable, SCRIPTS / "benchmark.py", *parts, "--models", "mlp_bn", "--repeats", "1",
         "--scale", "0.002", "--output", tmp_path],
        capture_output=True, text=True, env=os.environ | {"BNEXP_DATA_DIR": str(data_dir)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "benchmark.json").read_text())["parts"]
    assert list(found) == list(parts)
    (row,) = found["train"][0]["rows"]
    assert row["a/b"] > 0 < row["a/c"]
    (row,) = found["profile"][0]["rows"]
    shares = [value for name, value in row.items() if name != "model"]
    assert sum(shares) == pytest.approx(100)
    assert row["forward"] > 0 < row["backward"]
    assert len(found["gpu"][0]["rows"]) in (4, 20)  # each run on the CPU, or in each of a GPU's ways
