"""The numbers do not move: the loss of every step of six short runs, as committed in tests/golden."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "golden.py"
spec = importlib.util.spec_from_file_location("golden", SCRIPT)
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)


@pytest.mark.parametrize("name", golden.RECIPES)
def test_a_run_follows_its_golden_curve(commands, name):
    assert commands.bnexp(*golden.overrides(name)).code == 0
    assert golden.find_deviation(name, golden.read_losses(commands.runs()[-1] / "steps.csv")) is None


@pytest.mark.parametrize("name", golden.RECIPES)
def test_a_twin_with_another_norm_leaves_the_curve(commands, name):
    other = "batch" if name == "mlp" else "layer"
    assert commands.bnexp(*golden.overrides(name), f"model.norm={other}").code == 0
    assert golden.find_deviation(name, golden.read_losses(commands.runs()[-1] / "steps.csv")) is not None


def test_every_curve_has_a_recipe():
    assert {path.stem for path in golden.FOLDER.glob("*.csv")} == set(golden.RECIPES)


def test_a_curve_that_moved_is_named_with_its_step():
    curve = golden.golden_losses("mlp")
    assert golden.find_deviation("mlp", [loss * 1.0009 for loss in curve]) is None
    curve[4] *= 1.0011
    assert golden.find_deviation("mlp", curve).startswith("mlp: the loss of step 5 is ")
    assert golden.find_deviation("mlp", [float("nan"), *curve[1:]]).startswith(
        "mlp: the loss of step 1 is nan"
    )
    assert golden.find_deviation("mlp", curve[:-1]) == "mlp: 7 steps, and 8 in the golden curve"


def script(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["golden.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        golden.main()
    return ended.value.code


def test_the_script_checks_and_writes(tmp_path, monkeypatch, capsys):
    moved = {name: [loss * 2 for loss in golden.golden_losses(name)] for name in golden.RECIPES}
    monkeypatch.setattr(golden, "train_recipe", golden.golden_losses)
    assert script(monkeypatch, "--check") == 0
    monkeypatch.setattr(golden, "train_recipe", moved.get)
    assert script(monkeypatch, "--check") == 1
    assert capsys.readouterr().out.count("in the golden curve") == len(golden.RECIPES)
    monkeypatch.setattr(golden, "FOLDER", tmp_path)
    assert script(monkeypatch) == 0
    assert all(golden.find_deviation(name, losses) is None for name, losses in moved.items())


def test_the_script_trains_what_the_command_does(commands):
    assert commands.bnexp(*golden.overrides("mlp")).code == 0
    assert golden.train_recipe("mlp") == golden.read_losses(commands.runs()[-1] / "steps.csv")
