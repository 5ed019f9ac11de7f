"""``bnexp.open_sweep``: the runs of a folder as a table, and their verdict."""

from __future__ import annotations

import pytest

import bnexp
from bnexp.errors import UserError
from helpers.run_folders import NONE, shifted, write_run, write_sweep

GROUPS = {"none": NONE, "batch": shifted(0.4, 0.5, 0.3, 0.45, 0.4)}


@pytest.fixture
def made_sweep(tmp_path):
    return write_sweep(tmp_path / "made", GROUPS)


def test_the_runs_are_a_table(made_sweep):
    sweep = bnexp.open_sweep(made_sweep)
    assert len(sweep) == sweep.runs.rows == 10
    cells = zip(sweep.runs["model.norm"], sweep.runs["seed"], sweep.runs["final test/accuracy"], strict=True)
    expected = {(norm, seed, a / 100) for norm, values in GROUPS.items() for seed, a in enumerate(values)}
    assert set(cells) == expected
    run = sweep.run(3)
    assert str(run.folder) == sweep.runs["folder"][3]
    assert run.summary["seed"] == sweep.runs["seed"][3]


def test_the_curves_are_long(made_sweep):
    curves = bnexp.open_sweep(made_sweep).curves
    rows = list(zip(*(curves[name] for name in ("model.norm", "seed", "epoch", "metric")), strict=True))
    assert len(set(rows)) == len(rows)
    index = rows.index(("none", 0, 3, "test/accuracy"))
    assert curves["value"][index] == pytest.approx(0.97)
    html = curves._repr_html_()
    assert html.count("<tr>") == 1 + 20
    assert f"the first 20 of {curves.rows} rows" in html


def test_the_verdict_is_that_of_bnexp_compare(made_sweep, commands):
    verdict = bnexp.open_sweep(made_sweep).verdict()
    printed = commands.compare(str(made_sweep), "--output", "report")
    assert printed.code == 0
    assert str(verdict) == (commands.folder / "report" / "comparison.md").read_text()
    assert verdict.answer in str(verdict).replace("\\", "")
    groups = verdict.groups
    assert groups["model.norm"].tolist() == ["none", "batch"]
    assert groups["difference"][1] == pytest.approx(0.41)
    assert groups["outcome"].tolist() == [None, "better"]
    assert verdict.record()["comparisons"][0]["mean"] == pytest.approx(0.41)
    with pytest.raises(UserError, match="did you mean"):
        bnexp.open_sweep(made_sweep).verdict(by="model.nrm")
    with pytest.raises(UserError, match="--epoch=bset: must be one of best, mean, final; did you mean best"):
        bnexp.open_sweep(made_sweep).verdict(epoch="bset")


def test_unfinished_runs_are_listed(made_sweep):
    write_run(made_sweep, None, status="running", folder="open", model_norm="none", seed=9)
    sweep = bnexp.open_sweep(made_sweep)
    assert len(sweep) == 10
    assert ["still being written" in problem for problem in sweep.problems] == [True]


def test_a_folder_of_unfinished_runs_alone(tmp_path):
    write_run(tmp_path, None, status="running", folder="open")
    with pytest.raises(UserError, match=r"no run to compare .*still being written"):
        bnexp.open_sweep(tmp_path)
