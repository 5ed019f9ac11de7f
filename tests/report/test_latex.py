"""comparison.tex: parsed as far as a table needs it, and compiled where a LaTeX is installed."""

import re
import shutil
import subprocess

import pytest

from bnexp.report.analysis.verdict import compare
from bnexp.report.read.runs import read_runs
from bnexp.report.render.latex import render_latex
from helpers.run_folders import NONE, compare_groups, shifted, write_sweep

GROUPS = {"none": NONE, "batch": shifted(1, 0.9, 1.2, 0.8, 1.1)}
HOSTILE_NAME = r"my_nets.Norm{2}%é & a\b $x$ #1 ~ ^"
PAPER = r"""
\documentclass[twocolumn]{article}
\usepackage{booktabs}
\begin{document}
Text of a paper in two columns.
%s
\end{document}
"""


def several_blocks(folder):
    for lr in (0.1, 0.01):
        write_sweep(folder / str(lr), GROUPS | {HOSTILE_NAME: shifted(0.2, -0.1, 0.3)}, optimizer_lr=lr)
    return compare(*read_runs([folder]), by="model.norm")


VERDICTS = {
    "two groups": lambda folder: compare_groups(folder, GROUPS),
    "a lost run": lambda folder: compare_groups(folder, GROUPS | {"layer": [None, *shifted(1, 2, 3)]}),
    "several blocks": several_blocks,
    "loss": lambda folder: compare_groups(folder, GROUPS, metric="test/loss"),
    "one group": lambda folder: compare_groups(folder, {"none": NONE}),
}


@pytest.fixture(params=VERDICTS)
def table(request, tmp_path) -> str:
    return render_latex(VERDICTS[request.param](tmp_path))


def test_environments_and_braces_are_balanced(table):
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{([a-z*]+)\}", table):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert stack == []
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", table):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0


def test_each_row_has_a_cell_for_each_column(table):
    columns = re.search(r"\\begin\{tabular\}\{@\{\}(lr*)@\{\}\}", table)[1]
    lines = [line.strip() for line in table.splitlines()]
    rows = [line for line in lines if line.endswith(r"\\") and not line.startswith(r"\multicolumn")]
    assert len(rows) >= 2
    for row in rows:
        assert len(re.findall(r"(?<!\\)&", row)) == len(columns) - 1, row
    for span in re.findall(r"\\multicolumn\{(\d+)\}", table):
        assert int(span) == len(columns)


def test_no_special_character_is_left_in_a_text(table):
    body = table.split("\n", 1)[1]  # the first line is a comment
    for row in re.findall(r"^    (.*) \\\\$", body, re.MULTILINE):
        for cell in re.split(r"(?<!\\)&", row):
            text = re.sub(r"(?<!\\)\$.*?(?<!\\)\$", "", cell)  # without mathematics
            text = re.sub(r"\\[a-z]+(\{[^{}]*\})?|\\[&%$#_{}]", "", text)
            assert not re.search(r"[%$#_~^\\&]", text), cell


def test_a_row_that_is_too_long_for_a_column_takes_both(tmp_path):
    assert r"\begin{table}" in render_latex(compare_groups(tmp_path / "narrow", GROUPS))
    wide = GROUPS | {"a_norm_with_a_long_name": shifted(0.2, -0.1, 0.3)}
    assert r"\begin{table*}" in render_latex(compare_groups(tmp_path / "wide", wide))


def has_latex() -> bool:
    if not shutil.which("pdflatex") or not shutil.which("kpsewhich"):
        return False
    return subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not has_latex(), reason="needs pdflatex and the package booktabs")
def test_latex_sets_the_table_within_its_columns(table, tmp_path):
    (tmp_path / "paper.tex").write_text(PAPER % table, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    log = process.stdout.decode(errors="replace")
    assert process.returncode == 0, log
    assert "Output written on paper.pdf" in log
    assert "Overfull" not in log
