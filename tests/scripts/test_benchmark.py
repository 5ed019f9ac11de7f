"""The benchmark: ratios, tables, and a tiny run of some of its parts on the real data sets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from bench import table  # noqa: E402


def test_ratios_compare_measurements_taken_one_after_the_other():
    """A machine that slows both measurements alike changes no ratio."""
    assert table.median_ratio([2, 4, 60], [1, 2, 30]) == 2
    assert table.ratio_range([2, 4, 60], [1, 4, 30]) == "1.00 to 2.00"


def test_quartiles_are_those_of_the_ratios():
    assert table.ratio_quartiles([1, 2, 3, 4, 5], [1, 1, 1, 1, 1]) == "2.00 to 4.00"
    assert table.ratio_quartiles([3], [2]) == "1.50 to 1.50"


def test_measurements_are_taken_in_turn():
    calls = []
    measurements = {name: lambda name=name: calls.append(name) or 1.0 for name in "ab"}
    assert table.measure_in_turn(measurements, 2) == {"a": [1, 1], "b": [1, 1]}
    assert calls == ["a", "b", "a", "b"]


def test_a_table_renders_as_markdown():
    speed = table.Table(
        "Speed", "How fast.", [{"model": "mlp", "rate": 12345.6, "share": 0.0312, "none": None}]
    )
    assert speed.markdown().splitlines() == [
        "### Speed", "", "How fast.", "",
        "| model |   rate | share | none |",
        "| :---- | -----: | ----: | ---: |",
        "| mlp   | 12,346 | 0.031 |      |",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_benchmark_measures_training_on_the_real_sets(data_dir, tmp_path):
    parts = ("train", "evaluate", "recording", "profile", "overhead", "fused", "denormals", "gpu")
    process = subprocess.run(
        [sys.executable, SCRIPTS / "benchmark.py", *parts, "--models", "mlp_bn", "--repeats", "1",
         "--scale", "0.002", "--output", tmp_path],
        capture_output=True, text=True, env=os.environ | {"BNEXP_DATA_DIR": str(data_dir)},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    tables = json.loads((tmp_path / "benchmark.json").read_text())["parts"]
    assert list(tables) == list(parts)
    (row,) = tables["train"][0]["rows"]
    assert row["a/b"] > 0 < row["a/c"]
    for table_of_seeds in tables["fused"]:
        assert all(row["alone"] > 0 < row["R=16"] for row in table_of_seeds["rows"])
    (row,) = tables["profile"][0]["rows"]
    shares = [value for name, value in row.items() if name != "model"]
    assert sum(shares) == pytest.approx(100)
    assert row["forward"] > 0 < row["backward"]
    assert [row["after epoch"] for row in tables["denormals"][0]["rows"]] == [1, 10, 20]
    assert len(tables["gpu"][0]["rows"]) in (4, 20)  # four recipes on the CPU, or in five variants on a GPU


@pytest.mark.slow
def test_the_benchmark_measures_memory_layouts(data_dir, tmp_path):
    process = subprocess.run(
        [sys.executable, SCRIPTS / "benchmark.py", "layouts", "--models", "mlp", "conv_bn", "--repeats", "1",
         "--scale", "0.002", "--output", tmp_path],
        capture_output=True, text=True, env=os.environ | {"BNEXP_DATA_DIR": str(data_dir)},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    (layouts,) = json.loads((tmp_path / "benchmark.json").read_text())["parts"]["layouts"]
    cases = [(row["model"], row["batch size"], row["threads"]) for row in layouts["rows"]]
    assert cases == [("conv_bn", size, threads) for size in ("64", "256") for threads in (1, 2)]
    assert all(row["nchw"] > 0 and row["channels_last8"] for row in layouts["rows"])
