"""Looks: how often these groups were compared while seeds were added."""

import math
from dataclasses import replace

import pytest

from bnexp.report.content.footnotes import looks_note
from bnexp.report.read.looks import earlier_looks, record_look
from bnexp.report.render.terminal import render_text
from bnexp.report.write import write_report
from helpers.run_folders import compare_groups

GROUPS = {"none": [97.0, 97.2, 96.9, 97.1, 97.0], "batch": [98.0, 98.3, 97.9, 98.0, 98.0]}


def first_seeds(n):
    return {norm: accuracies[:n] for norm, accuracies in GROUPS.items()}


@pytest.mark.usefixtures("no_pictures")
def test_looks_are_read_back(tmp_path):
    folder = tmp_path / "out"
    write_report(compare_groups(tmp_path / "runs", GROUPS), folder)
    assert [look["runs"] for look in earlier_looks([folder, tmp_path])] == [{"none": 5, "batch": 5}]
    (folder / "comparison.json").write_text('{"looks": [{"runs": 3}]}')
    assert earlier_looks([folder]) == []
    assert earlier_looks([tmp_path / "nowhere"]) == []


@pytest.mark.usefixtures("no_pictures")
def test_looks_of_every_folder_count(tmp_path):
    """Three seeds, then three others, then all six: the third look follows two earlier ones."""
    for i, name in enumerate(("a", "b")):
        verdict = compare_groups(tmp_path / name, first_seeds(3))
        look = {"at": f"2026-01-0{i + 1}", "runs": {"none": 3 + i}}
        write_report(replace(verdict, looks=(look,)), tmp_path / name)
    looks = earlier_looks([tmp_path / "b", tmp_path / "a"])
    assert [look["runs"] for look in looks] == [{"none": 3}, {"none": 4}]
    assert len(record_look(looks, {"none": 7})) == 3
    assert len(record_look(looks, {"renamed": 4})) == 2


def test_looks_are_counted_in_the_note(tmp_path):
    first = compare_groups(tmp_path / "a", first_seeds(3))
    assert looks_note(first) == ""
    second = compare_groups(tmp_path / "b", GROUPS, looks=first.looks)
    assert looks_note(second).startswith("Look 2, unplanned (before: 3 runs a group): p and")
    unchanged = compare_groups(tmp_path / "c", GROUPS, looks=second.looks)
    assert len(unchanged.looks) == 2


def test_too_few_seeds_for_an_interval_at_any_look(tmp_path):
    """With three seeds the interval that holds at any look has no ends: the words and pictures say so."""
    looks = ({"at": "2026-01-01", "runs": {"none": 2, "batch": 2}},)
    verdict = compare_groups(tmp_path / "runs", first_seeds(3), looks=looks)
    assert math.isinf(verdict.comparisons[0].difference.high)
    text = render_text(verdict)
    assert "anything fits, 3 seeds" in " ".join(text.split())
    write_report(verdict, tmp_path / "out")
    assert "No line: too few seeds" in (tmp_path / "out" / "report.html").read_text()


def test_looks_at_other_groups_or_at_a_single_one_do_not_count(tmp_path):
    others = (
        {"at": "2026-01-01", "runs": {"none (epochs=1)": 3, "batch (epochs=1)": 3}},
        {"at": "2026-01-02", "runs": {"none": 3}},  # an interrupted sweep: nothing was compared
    )
    assert looks_note(compare_groups(tmp_path, GROUPS, looks=others)) == ""
