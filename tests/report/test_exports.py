"""comparison.json, comparison.csv and comparison.md, and the folder that they are written into."""

import csv
import errno
import json
import re

import pytest

from bnexp.errors import UserError, WriteError
from bnexp.report.analysis.repeated_looks import AnyLooks, PlannedLooks
from bnexp.report.analysis.verdict import compare
from bnexp.report.content.methods_text import methods_text
from bnexp.report.content.sentences import all_sentences
from bnexp.report.read.runs import read_runs
from bnexp.report.render.json_export import comparison_record
from bnexp.report.render.latex import latex, render_latex
from bnexp.report.write import write_report
from helpers.run_folders import NONE, compare_groups, shifted, write_run, write_sweep

GROUPS = {"none": [97.0, 97.2, 96.9, None, 97.1], "batch": [98.0, 98.1, 98.2, 98.1, 98.0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report, which tests read and do not change."""
    root = tmp_path_factory.mktemp("report")
    write_report(compare_groups(root / "runs", GROUPS), root / "out")
    return root / "out"


def test_every_file_is_written_and_no_temporary_one_is_left(folder):
    names = {path.name for path in folder.iterdir()}
    assert {
        "report.html",
        "comparison.json",
        "comparison.csv",
        "comparison.md",
        "comparison.tex",
        "methods.txt",
        "runs.csv",
        "curves.csv",
        "forest.pdf",
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


def read_csv(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_comparison_csv_has_a_line_a_group_and_a_column_for_each_axis_and_statistic(folder):
    none, batch = read_csv(folder / "comparison.csv")
    (c,) = json.loads((folder / "comparison.json").read_text())["comparisons"]
    assert (none["model.norm"], none["is_baseline"], none["difference"]) == ("none", "True", "")
    assert (none["n"], none["lost"], batch["n"], batch["pairs"]) == ("4", "1", "5", "4")
    numbers = {"difference": "mean", "ci_low": "low", "ci_high": "high", "p": "p", "p_adjusted": "p_adjusted"}
    for column, key in numbers.items():
        assert float(batch[column]) == c[key]
    assert (batch["test"], batch["outcome"]) == ("paired t", c["outcome"])


def test_runs_csv_has_a_line_a_run(folder):
    rows = read_csv(folder / "runs.csv")
    assert len(rows) == 10
    first = {key: rows[0][key] for key in ("model.norm", "seed", "status", "final test/accuracy", "total_s")}
    assert list(first.values()) == ["none", "0", "finished", "0.97", "30.0"]
    assert [row["outcome"] for row in rows].count("lost") == 1


def test_curves_csv_has_a_line_for_each_run_epoch_and_metric(folder):
    rows = read_csv(folder / "curves.csv")
    values = [
        float(row["value"])
        for row in rows
        if (row["model.norm"], row["seed"], row["metric"]) == ("batch", "2", "test/accuracy")
    ]
    assert values == pytest.approx([0.962, 0.972, 0.982])
    assert {row["epoch"] for row in rows} == {"1", "2", "3"}


def test_the_latex_table_says_n_test_and_interval(folder):
    text = (folder / "comparison.tex").read_text()
    for part in (r"n = 4-5 seeds per group", r"95 \% interval", "paired t test", r"\toprule", r"\bottomrule"):
        assert part in text
    (row,) = [line for line in text.splitlines() if line.strip().startswith("batch &")]
    titles = next(line for line in text.splitlines() if "$n$" in line)
    assert row.count("&") == titles.count("&") == 6  # Holm's column: two tests, one of lost runs
    assert r"$98.08 \pm 0.08$" in row
    assert re.search(r"\$\+1\.0\d\\\ \[\+0\.\d\d, \+1\.\d\d\]\$", row)
    assert re.search(r"none\$\^\*\$ & \$4\$ & \$1\$ &", text)


def test_the_latex_table_escapes_every_special_character():
    assert latex("a_b&50% {x} ~ #1 \\ ± <") == (
        r"a\_b\&50\% \{x\} \textasciitilde{} \#1 \textbackslash{} $\pm$ \textless{}"
    )


def test_pictures_are_written_for_print_with_embedded_fonts(folder):
    pdf = (folder / "forest.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf  # TrueType, in the file
    assert b"/Type3" not in pdf
    width = float(re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ", pdf)[1])
    assert width == pytest.approx(72 * 5.2)


def test_the_methods_paragraph_names_what_was_used(folder, tmp_path):
    text = (folder / "methods.txt").read_text()
    facts = ("model.norm (none, batch)", "5 seeds", "3 epochs", "none: 4 of 5")
    for part in (*facts, "two-sided paired t test", "McNemar", "Holm, S. (1979)"):
        assert part in text
    assert "Jennison" not in text
    assert "Wang" not in text
    assert "tuned" not in text
    groups = {"none": [97.0, 97.2, 96.9, 97.1, 97.1], "batch": [98.0, 98.1, 98.2, 98.1, 98.0]}
    planned = compare_groups(tmp_path / "planned", groups, test=PlannedLooks((5, 10, 20, 40), 5))
    assert "Looks were planned after 5, 10, 20, 40 seeds" in methods_text(planned)
    assert "Jennison, C. and Turnbull" in methods_text(planned)
    assert "Holm" not in methods_text(planned)
    unplanned = compare_groups(tmp_path / "unplanned", groups, test=AnyLooks())
    assert "Wang, H. and Ramdas" in methods_text(unplanned)
    few = compare_groups(tmp_path / "few", {"none": [97.0], "batch": [98.0]})
    assert "too few runs for a test" in methods_text(few)
    assert "Sources" not in methods_text(few)
    assert r"\end{table}" in render_latex(few)
    assert r"\end{table}" in render_latex(compare_groups(tmp_path / "alone", {"none": [97.0, 97.1]}))


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
