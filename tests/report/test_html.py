"""report.html: whole, escaped, readable in the dark, and with the same words as every other rendering."""

import re
from html.parser import HTMLParser

import pytest

from bnexp.report.analysis.verdict import compare
from bnexp.report.content.footnotes import scope_note
from bnexp.report.content.next_steps import next_steps
from bnexp.report.read.runs import read_runs
from bnexp.report.render.html import render_page
from bnexp.report.write import write_report
from helpers.run_folders import compare_groups, write_run

GROUPS = {"none": [97.0, 97.2, 96.9, None, 97.1], "batch": [98.0, 98.1, 98.2, 98.1, 98.0]}
HOSTILE_NAME = "<script>alert(1)</script>|`x`"


class TagBalance(HTMLParser):
    """Asserts that every opened element is closed, in order."""

    EMPTY = frozenset({"meta", "br", "path", "use", "rect", "line"})

    def __init__(self):
        super().__init__()
        self.open_tags, self.tags = [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in self.EMPTY:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open_tags.pop() == tag


@pytest.fixture
def folder(tmp_path):
    write_report(compare_groups(tmp_path / "runs", GROUPS), tmp_path / "out")
    return tmp_path / "out"


def test_the_page_is_whole_and_loads_nothing_from_elsewhere(folder):
    text = (folder / "report.html").read_text()
    parser = TagBalance()
    parser.feed(text)
    assert parser.open_tags == []
    assert "script" not in parser.tags
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


def test_ids_in_the_pictures_are_unique(folder):
    text = (folder / "report.html").read_text()
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([\w-]+)\)", text)) <= set(ids)


def test_names_are_escaped(tmp_path):
    verdict = compare_groups(tmp_path / "runs", {"none": [97, 98, 97], HOSTILE_NAME: [98, 99, 98]})
    write_report(verdict, tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    assert "<script>" not in markdown.replace("\\<", "")
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


@pytest.mark.parametrize(("seeds", "noun"), [((0,), "folds"), ((0, 1), "seed-fold pairs")])
def test_the_page_of_folds_has_one_scope_note_and_never_counts_seeds(tmp_path, seeds, noun):
    for seed in seeds:
        for fold in range(2):
            write_run(tmp_path, 0.97 - 0.01 * seed, seed=seed, dataset_fold=fold, model_norm="none")
            accuracy = 0.98 + 0.003 * fold - 0.01 * seed
            write_run(tmp_path, accuracy, seed=seed, dataset_fold=fold, model_norm="batch")
    verdict = compare(*read_runs([tmp_path]))
    page = render_page(verdict, [], {})
    assert f"mean over {noun}, " in scope_note(verdict)
    assert page.count("The interval covers") == page.count(scope_note(verdict)) == 1
    step = next(step for step in next_steps(verdict) if step.commands)
    assert step.commands
    assert f"Next: {step.reason}:" in page
    assert "more seed-fold pair" in page
    assert f"{2 * len(seeds)} paired {noun}" in page
    text = re.sub("<pre>.*?</pre>", "", page, flags=re.DOTALL)  # a command may hold "fold=0,1 seed=2"
    assert not re.search(r"\d (?:more |paired )?seeds?\b(?!-fold)", text)
