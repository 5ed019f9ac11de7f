"""comparison.json, comparison.csv and comparison.md, and the folder that they are written into."""

import csv
import errno
import json

import pytest

from bnexp.errors import UserError, WriteError
from bnexp.report.analysis.verdict import compare
from bnexp.report.content.sentences import all_sentences
from bnexp.report.read.runs import read_runs
from bnexp.report.render.json_export import comparison_record
from bnexp.report.write import write_report
from helpers.run_folders import NONE, compare_groups, shifted, write_run, write_sweep

GROUPS = {"none": [97.0, 97.2, 96.9, None, 97.1], "batch": [98.0, 98.1, 98.2, 98.1, 98.0]}


@pytest.fixture
def folder(tmp_path):
    write_report(compare_groups(tmp_path / "runs", GROUPS), tmp_path / "out")
    return tmp_path / "out"


def test_every_file_is_written_and_no_temporary_one_is_left(folder):
    names = {path.name for path in folder.iterdir()}
    assert {
        "report.html",
        "comparison.json",
        "comparison.csv",
        "comparison.md",
        "forest.svg",
        "forest.png",
    } <= names
    assert not [name for name in names if name.startswith(".")]


def test_json_holds_values_tests_and_methods(folder):
    record = json.loads((folder / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert (record["schema"], record["schema_version"]) == ("bnexp-comparison", 2)
    none, batch = record["groups"]
    assert [run["value"] for run in none["runs"]] == [97.0, 97.2, 96.9, None, 97.1]
    assert [run["lost"] for run in none["runs"]] == [False, False, False, True, False]
    assert (batch["n"], batch["mean"]) == (5, pytest.approx(98.08))
    (group_comparison,) = record["comparisons"]
    assert group_comparison["method"] == "paired t"
    assert group_comparison["differences"] == pytest.approx([1.0, 0.9, 1.3, 0.9])
    assert record["methods"]["family"].startswith("Holm")
    assert record["looks"][0]["runs"] == {"none": 5, "batch": 5}


def test_json_standardises_an_unpaired_difference_by_the_pooled_deviation(tmp_path):
    """Deviations 0.1 and 0.7: sqrt((.01 + .49) / 2) = 0.5, so 1 point is 2 deviations."""
    write_sweep(tmp_path, {"none": [96.9, 97.0, 97.1]})
    for seed, accuracy in enumerate((97.3, 98.0, 98.7), 10):
        write_run(tmp_path, accuracy / 100, model_norm="batch", seed=seed)
    (record,) = comparison_record(compare(*read_runs([tmp_path])))["comparisons"]
    assert (record["method"], record["mean"]) == ("Welch", pytest.approx(1))
    assert record["standardised"] == pytest.approx(2)


def test_csv_has_a_line_a_run(folder):
    rows = list(csv.DictReader((folder / "comparison.csv").read_text().splitlines()))
    assert len(rows) == 10
    assert rows[0]["final test/accuracy"] == "0.97"
    assert [row["outcome"] for row in rows].count("lost") == 1


def test_every_rendering_has_the_same_sentences(tmp_path):
    verdict = compare_groups(tmp_path / "runs", GROUPS)
    write_report(verdict, tmp_path / "out")
    for name in ("report.html", "comparison.md"):
        text = (tmp_path / "out" / name).read_text()
        for sentence in all_sentences(verdict):
            assert sentence in text.replace("\\", "")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(compare_groups(tmp_path / "runs", GROUPS), tmp_path / "file" / "out")


def test_a_full_disk_is_no_mistake_of_the_user(tmp_path, monkeypatch):
    verdict = compare_groups(tmp_path / "runs", {"none": NONE, "batch": shifted(1, 1.1, 0.9, 1, 1)})

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "out/comparison.csv")

    monkeypatch.setattr("bnexp.report.write.write_text", fail)
    with pytest.raises(WriteError, match=r"comparison\.csv: cannot be written \(No space left on device\)"):
        write_report(verdict, tmp_path / "out")
