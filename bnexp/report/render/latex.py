"""comparison.tex: the table for a paper. It needs the package booktabs."""

from __future__ import annotations

import re

from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.methods_text import table_caption
from bnexp.report.content.table import DIFFERENCE, LOST_RUNS, MARK, MEAN, NAME, P_ADJUSTED, WINS, P, row_cells

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "±": r"$\pm$",
}  # fmt: skip
COMMAND = re.compile(r"\\[a-z]+|[${}\\]")  # takes no room
MAX_LETTERS, GAP = 54, 2  # of the widest row in one of two columns, where a gap takes as much as two letters
MATH = re.compile(r"[-+<.\d][-+<.\d, \[\]±]*")


def render_latex(verdict: Verdict) -> str:
    """A table environment with a row for each group; the caption says n, test and interval."""
    columns = _shown_columns(verdict)
    is_accuracy = verdict.metric.is_accuracy
    titles = {
        NAME: latex(verdict.grouping.title), 1: "$n$", LOST_RUNS: "lost",
        MEAN: latex(f"{verdict.metric.name} (%)" if is_accuracy else verdict.metric.label),
        DIFFERENCE: latex("difference [95 % CI]"), P: "$p$", P_ADJUSTED: r"$p_\mathrm{Holm}$", WINS: "wins",
    }  # fmt: skip
    rows = {id(summary): row_cells(summary, verdict) for summary in verdict.summaries}
    environment = _environment([titles[column] for column in columns], [
        [cells[column] for column in columns] for cells in rows.values()
    ])  # fmt: skip
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{{environment}}}",
        r"  \centering",
        rf"  \caption{{{latex(table_caption(verdict))}}}",
        r"  \smallskip\small\setlength{\tabcolsep}{4pt}",
        rf"  \begin{{tabular}}{{@{{}}l{'r' * (len(columns) - 1)}@{{}}}}",
        r"    \toprule",
        f"    {' & '.join(titles[column] for column in columns)} \\\\",
    ]
    for block, summaries in verdict.blocks.items():
        lines.append(r"    \midrule")
        if block:
            lines.append(rf"    \multicolumn{{{len(columns)}}}{{l}}{{{latex(block)}}} \\")
        for summary in summaries:
            cells = rows[id(summary)]
            row = [_name(cells[NAME]), *(_cell(cells[column]) for column in columns[1:])]
            lines.append(f"    {' & '.join(row)} \\\\")
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", rf"\end{{{environment}}}", ""])


def _environment(titles: list[str], rows: list[list[str]]) -> str:
    """``table``, or ``table*`` across both columns of a paper where the rows are too long for one."""
    texts = [[COMMAND.sub("", title) for title in titles], *rows]
    letters = sum(GAP + max(map(len, column)) for column in zip(*texts, strict=True)) - GAP
    return "table" if letters <= MAX_LETTERS else "table*"


def latex(text: str) -> str:
    """``text`` with the special characters of LaTeX escaped."""
    return "".join(SPECIAL.get(character, character) for character in text)


def _shown_columns(verdict: Verdict) -> list[int]:
    """No marks, and no column that is empty or says nothing."""
    columns = [column for column in range(MARK) if column != WINS]
    if not any(summary.lost_runs for summary in verdict.summaries):
        columns.remove(LOST_RUNS)
    if verdict.family < 2:
        columns.remove(P_ADJUSTED)
    if not verdict.comparisons:
        columns = [column for column in columns if column < DIFFERENCE]
    return columns


def _name(text: str) -> str:
    """A baseline has a star, which the caption explains."""
    name, star, _ = text.rpartition(" *")
    return f"{latex(name)}$^*$" if star else latex(text)


def _cell(text: str) -> str:
    """Numbers as mathematics, so that a minus is one."""
    if not MATH.fullmatch(text):
        return latex(text)
    number = text.replace("±", r"\pm").replace(" [", r"\ [")
    return f"${number}$"
