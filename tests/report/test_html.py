"""report.html and the files beside it."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from bnexp.errors import UserError
from bnexp.report.read.looks import earlier_looks, record_look
from bnexp.report.render.sentences import all_sentences
from bnexp.report.write import write_report
from helpers.run_folders import compare_groups

GROUPS = {"none": [97.0, 97.2, 96.9, None, 97.1], "batch": [98.0, 98.1, 98.2, 98.1, 98.0]}
EVIL = "<script>alert(1)</script>|`x`"


class Balance(HTMLParser):
    """Every element that is opened is closed, in order."""

    EMPTY = frozenset({"meta", "br", "path", "use", "rect", "line"})

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


@pytest.fixture
def folder(tmp_path):
    write_report(compare_groups(tmp_path / "runs", GROUPS), tmp_path / "out")
    return tmp_path / "out"


def test_files(folder):
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


def test_the_page_is_whole_and_needs_nothing_from_outside(folder):
    text = (folder / "report.html").read_text()
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    assert "script" not in parser.seen
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r'(?:src|href)="https?:|@import|url\(http', text)
    assert text.count("aria-label=") == text.count("<figure")
    order = [
        "Groups",
        "Pictures",
        "What the verdict rests on",
        "All metrics",
        "Methods",
        "Configuration",
        "Runs",
    ]
    assert sorted(order, key=lambda name: text.index(f"<h2>{name}")) == order


def test_colours_of_the_pictures_are_lightened_in_the_dark(folder):
    text = (folder / "report.html").read_text()
    assert "var(--c1, #0072b2)" in text
    assert "--c1: #" in text[text.index("prefers-color-scheme: dark") :]
    assert "var(" not in (folder / "forest.svg").read_text()


def test_references_in_the_pictures_are_unique(folder):
    text = (folder / "report.html").read_text()
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([\w-]+)\)", text)) <= set(ids)


def test_names_are_escaped(tmp_path):
    found = compare_groups(tmp_path / "runs", {"none": [97, 98, 97], EVIL: [98, 99, 98]})
    write_report(found, tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    assert "<script>" not in markdown.replace("\\<", "")
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_json_holds_the_values_and_what_was_done(folder):
    found = json.loads((folder / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert (found["schema"], found["schema_version"]) == ("bnexp-comparison", 1)
    none, batch = found["groups"]
    assert [run["value"] for run in none["runs"]] == [97.0, 97.2, 96.9, None, 97.1]
    assert [run["diverged"] for run in none["runs"]] == [False, False, False, True, False]
    assert (batch["n"], batch["mean"]) == (5, pytest.approx(98.08))
    (one,) = found["comparisons"]
    assert one["method"] == "paired t"
    assert one["differences"] == pytest.approx([1.0, 0.9, 1.3, 0.9])
    assert found["methods"]["family"].startswith("Holm")
    assert found["looks"][0]["runs"] == {"none": 5, "batch": 5}


def test_csv_has_a_line_a_run(folder):
    rows = list(csv.DictReader((folder / "comparison.csv").read_text().splitlines()))
    assert len(rows) == 10
    assert rows[0]["final test/accuracy"] == "0.97"
    assert [row["outcome"] for row in rows].count("diverged") == 1


def test_every_rendering_says_the_same_sentences(tmp_path):
    found = compare_groups(tmp_path / "runs", GROUPS)
    write_report(found, tmp_path / "out")
    for name in ("report.html", "comparison.md"):
        text = (tmp_path / "out" / name).read_text()
        for sentence in all_sentences(found):
            assert sentence in text.replace("\\", "")


def test_looks_are_read_back(folder, tmp_path):
    assert [look["runs"] for look in earlier_looks([folder, tmp_path])] == [{"none": 5, "batch": 5}]
    (folder / "comparison.json").write_text('{"looks": [{"runs": 3}]}')
    assert earlier_looks([folder]) == []
    assert earlier_looks([tmp_path / "nowhere"]) == []


def test_looks_of_every_folder_count(tmp_path):
    """Three seeds, then three others, then all six: the third look is at what was looked at twice."""
    values = {"none": [97.0, 97.2, 96.9], "batch": [98.0, 98.1, 98.2]}
    for i, name in enumerate(("a", "b")):
        found = compare_groups(tmp_path / name, values)
        write_report(
            replace(found, looks=({"at": f"2026-01-0{i + 1}", "runs": {"none": 3 + i}},)), tmp_path / name
        )
    found = earlier_looks([tmp_path / "b", tmp_path / "a"])
    assert [look["runs"] for look in found] == [{"none": 3}, {"none": 4}]
    assert len(record_look(found, {"none": 7})) == 3
    assert len(record_look(found, {"renamed": 4})) == 2


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(compare_groups(tmp_path / "runs", GROUPS), tmp_path / "file" / "out")
