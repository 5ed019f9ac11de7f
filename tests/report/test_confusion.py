"""The confusion matrix: as text, and the mean of each group as a picture or a table."""

import re
from pathlib import Path

import pytest

from bnexp.report.analysis.confusion import largest_confusions, mean_confusion
from bnexp.report.analysis.verdict import compare
from bnexp.report.content.confusion import confusion_table
from bnexp.report.plots.pictures import draw_pictures
from bnexp.report.read.runs import read_runs
from bnexp.report.render.confusion import format_confusion
from bnexp.report.write import write_report
from bnexp.runs.confusion import write_confusion
from helpers.run_folders import compare_groups, write_run


def test_rows_are_true_classes_and_end_in_their_accuracy():
    lines = format_confusion({(0, 0): 1, (0, 1): 1, (1, 1): 1}, ["cat", "dog", "owl"]).splitlines()
    assert lines[1].split() == ["0", "cat", "1", "1", "0", "0.5000"]
    assert lines[2].split() == ["1", "dog", "0", "1", "0", "1.0000"]
    assert lines[3].endswith("no images")


def test_numbers_as_names_are_not_taken_for_columns():
    """The classes 1, 10 and 2 stood beside columns 0, 1 and 2."""
    rows = format_confusion({(0, 0): 1}, ["1", "10", "new\nline"]).splitlines()[1:]
    assert [row.split("  ")[0] for row in rows] == ["0 1", "1 10", "2 new line"]
    digits = format_confusion({(0, 0): 1}, ["0", "1"]).splitlines()[1:]
    assert [row.split()[0] for row in digits] == ["0", "1"]


def write_matrices(sweep: Path, matrices: dict[str, list[dict[tuple[int, int], int]]], classes) -> None:
    """A sweep over ``model.norm`` whose runs have recorded these matrices at their final epoch."""
    for norm, confusions in matrices.items():
        for seed, confusion in enumerate(confusions):
            run = write_run(sweep, 0.9 + 0.01 * seed, model_norm=norm, seed=seed)
            write_confusion(run, {"final": confusion}, classes)


MATRICES = {
    "none": [{(0, 0): 8, (0, 1): 2, (1, 1): 10}, {(0, 0): 6, (0, 1): 4, (1, 0): 1, (1, 1): 9}],
    "batch": [{(0, 0): 10, (1, 1): 10}, {(0, 0): 9, (0, 1): 1, (1, 1): 10}],
}


@pytest.fixture
def verdict(tmp_path):
    write_matrices(tmp_path / "runs", MATRICES, ["cat", "dog"])
    return compare(*read_runs([tmp_path / "runs"]))


def test_the_mean_matrix_of_a_group_is_in_percent_of_the_true_class(verdict):
    none, batch = map(mean_confusion, verdict.summaries)
    expected = {("cat", "cat"): 70, ("cat", "dog"): 30, ("dog", "dog"): 95, ("dog", "cat"): 5}
    assert none.shares == pytest.approx(expected)
    assert (none.classes, none.n) == (("cat", "dog"), 2)
    assert largest_confusions([none, batch], 9) == [("cat", "dog"), ("dog", "cat")]


def test_a_picture_shows_the_matrices_side_by_side(verdict, tmp_path):
    write_report(verdict, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Which classes are confused?" in page
    assert "Largest confusions" not in page
    svg = (tmp_path / "out" / "confusion.svg").read_text()
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    for text in ("none (n=2)", "batch (n=2)", "70.0", "30.0", "95.0", "5.0", "100"):
        assert text in texts, text
    assert texts.count("cat") == 3  # below each matrix, and once beside them
    opacity = r"fill: #d55e00; fill-opacity: ([\d.]+)"  # the strongest colour is the largest share, 30 %
    assert {round(float(text), 4) for text in re.findall(opacity, svg)} == {round(5 / 30, 4)}


def test_names_that_the_font_lacks_are_no_warning(tmp_path):
    write_matrices(tmp_path / "runs", MATRICES, ["猫", "犬"])
    write_report(compare(*read_runs([tmp_path / "runs"])), tmp_path / "out")
    assert (tmp_path / "out" / "confusion.png").exists()
    assert "猫" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_many_classes_are_a_table_of_the_largest_confusions(tmp_path):
    classes = [f"class {i}" for i in range(25)]
    even = {(i, i): 10 for i in range(25)}
    mistakes = {(0, 0): 6, (0, 7): 4}
    write_matrices(tmp_path / "runs", {"none": [even | mistakes], "batch": [even]}, classes)
    verdict = compare(*read_runs([tmp_path / "runs"]))
    assert confusion_table(verdict) == [
        ["true class", "predicted class", "none", "batch"],
        ["class 0", "class 7", "40.0 %", "0.0 %"],
    ]
    write_report(verdict, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Largest confusions" in page
    assert "Which classes are confused?" not in page
    assert not (tmp_path / "out" / "confusion.svg").exists()


def test_older_runs_without_a_matrix_show_nothing(tmp_path):
    verdict = compare_groups(tmp_path / "runs", {"none": [97.0, 97.2], "batch": [98.0, 98.1]})
    write_report(verdict, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "confus" not in page
    assert not list((tmp_path / "out").glob("confusion*"))


def write_grid(sweep: Path) -> None:
    """Two groups at four learning rates; validation prefers 0.01 for batch and 0.1 for none."""
    for norm, best_rate in (("none", 0.1), ("batch", 0.01)):
        for lr in (0.001, 0.01, 0.1, 1.0):
            keys = {"model_norm": norm, "optimizer_lr": lr, "seed": 0}
            run = write_run(sweep, 0.9, best=0.95 if lr == best_rate else 0.9, **keys)
            write_confusion(run, {"best": MATRICES["none"][0]}, ["cat", "dog"])


def test_a_grid_of_rates_has_one_picture_with_each_group_at_its_best(tmp_path):
    write_grid(tmp_path / "runs")
    pictures = draw_pictures(compare(*read_runs([tmp_path / "runs"])))
    (picture,) = (picture for picture in pictures if picture.name.startswith("confusion"))
    assert picture.name == "confusion"
    assert "none (lr=0.1) (n=1)" in picture.svg
    assert "batch (lr=0.01) (n=1)" in picture.svg
    assert "each at its best" in picture.title


def test_of_many_blocks_the_first_three_are_drawn(tmp_path):
    for size in (16, 32, 64, 128):
        run = write_run(tmp_path / "runs", 0.9, model_norm="none", batch_size=size)
        write_confusion(run, {"final": MATRICES["none"][0]}, ["cat", "dog"])
        write_run(tmp_path / "runs", 0.9, model_norm="batch", batch_size=size)
    verdict = compare(*read_runs([tmp_path / "runs"]), by="model.norm")
    assert len(verdict.blocks) == 4
    pictures = [picture for picture in draw_pictures(verdict) if picture.name.startswith("confusion")]
    assert [picture.name for picture in pictures] == ["confusion", "confusion-2", "confusion-3"]
    assert any("Shown: the first 3 of 4 blocks." in picture.caption for picture in pictures)
