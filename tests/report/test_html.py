"""report.html: whole, escaped, readable in the dark, and with the same words as every other rendering."""

import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from bnexp.report.analysis.verdict import compare
from bnexp.report.content.applicable_notes import applicable_methods, interval_note
from bnexp.report.content.footnotes import METHODS
from bnexp.report.content.next_steps import next_steps
from bnexp.report.plots.pictures import draw_pictures
from bnexp.report.read.runs import read_runs
from bnexp.report.render.html import render_page
from bnexp.report.render.json_export import comparison_record
from bnexp.report.write import write_report
from helpers.run_folders import compare_groups, write_run, write_sweep

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report, which tests read and do not change."""
    root = tmp_path_factory.mktemp("report")
    write_report(compare_groups(root / "runs", GROUPS), root / "out")
    return root / "out"


def test_the_page_is_whole_and_loads_nothing_from_elsewhere(folder):
    text = (folder / "report.html").read_text()
    parser = TagBalance()
    parser.feed(text)
    assert parser.open_tags == []
    assert "script" not in parser.tags
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r'(?:src|href)="https?:|@import|url\(http', text)
    assert text.count("aria-label=") == text.count("<figure")
    question = "Does batch norm help an MLP on MNIST?"
    order = [
        f"<h1>{question}</h1>",
        '<p class="answer">Provisionally yes: +1.02 points',
        '<figure class="full"',
        "<h2>Groups",
        "<h2>What to do next",
        '<div class="pictures">',
        "<h2>Checks and methods",
        "<h2>All metrics",
        "<h2>Costs",
        "<h2>Settings",
        "<h2>Runs",
        "The same as JSON",
    ]
    assert sorted(order, key=text.index) == order


def test_every_row_of_pictures_is_full(tmp_path):
    """A picture takes one of two columns, or both: halves come in pairs."""
    for lr in (0.01, 0.1, 1):
        write_sweep(tmp_path / "runs", {"none": [97, 97.5, 97.2], "batch": [98, 98.2, 98]}, optimizer_lr=lr)
    for name, dataset in (("with times", "mnist"), ("without", "image_folder")):
        for run in (tmp_path / "runs").iterdir():
            path = run / ".hydra" / "config.yaml"
            path.write_text(re.sub("name: (mnist|image_folder)", f"name: {dataset}", path.read_text()))
        verdict = compare(*read_runs([tmp_path / "runs"]))
        page = render_page(verdict, draw_pictures(verdict), comparison_record(verdict), tmp_path)
        widths = re.findall(r"<figure( class=\"full\")?", page)
        halves = [len(run) for run in "".join("f" if width else "h" for width in widths).split("f") if run]
        assert widths[0]
        assert all(n % 2 == 0 for n in halves)
        assert (name == "with times") == bool(halves)


def test_runs_are_links_to_their_folders(folder):
    links = re.findall(r'<a href="([^"]+)">([^<]+)</a>', (folder / "report.html").read_text())
    assert len(links) == 10
    for link, text in links:
        assert (folder / unquote(link)).resolve() == (folder / text).resolve()
        assert (folder / text / "summary.json").is_file()


def test_what_the_table_does_not_have_is_not_explained(tmp_path):
    single = compare_groups(tmp_path / "a", {"none": [97.0, 97.2, 96.9], "batch": [98.0, 98.1, 98.2]})
    several = compare_groups(tmp_path / "b", GROUPS | {"layer": [97.1, 97.1, 97.3, 97.0, 97.2]})
    pages = [render_page(verdict, [], {}, tmp_path) for verdict in (single, several)]
    for passage in (
        "p.adj",
        "adjusted p is above",
        "Holm (1979)",
        "McNemar",
        "loss not finite; or at chance",
    ):
        assert [passage in page for page in pages] == [False, True], passage


def test_every_method_has_a_condition(tmp_path):
    """A method without one would be explained in every report."""
    verdict = compare_groups(tmp_path, {"none": [97.0, 97.2, 96.9]})
    assert applicable_methods(verdict) == {}
    assert len(METHODS) > 10


def test_the_first_line_says_when_and_where_the_runs_trained(tmp_path):
    record = {"images": {"train": 1294, "val": 144, "test": 359}}
    environment = {"device": "cpu (x86_64), fp32", "threads": 2, "versions": {"torch": "2.14.1"}}
    for seed, day in enumerate((26, 27)):
        run = write_run(tmp_path, 0.97, seed=seed, record=record)
        started = {"started": f"2026-11-{day}T17:40:43+0000"}
        (run / "environment.json").write_text(json.dumps(environment | started))
    verdict = compare(*read_runs([tmp_path]))
    line = "2026-11-26 to 2026-11-27 · cpu (x86_64), fp32 · 2 threads · torch 2.14.1 · "
    page = render_page(verdict, [], {}, tmp_path)
    assert f"{line}1,294 training, 144 validation, 359 test images</p>" in page
    assert page.index(line) < page.index("<h1>")


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
    page = render_page(verdict, [], {}, tmp_path)
    assert f"mean over {noun}, " in interval_note(verdict)
    assert page.count("The interval covers") == page.count(interval_note(verdict)) == 1
    step = next(step for step in next_steps(verdict) if step.commands)
    assert step.commands
    assert f"{step.reason}:" in page
    assert "more seed-fold pair" in page
    assert f"{2 * len(seeds)} paired {noun}" in page
    text = re.sub("<pre>.*?</pre>", "", page, flags=re.DOTALL)  # a command may hold "fold=0,1 seed=2"
    assert not re.search(r"\d (?:more |paired )?seeds?\b(?!-fold)", text)
