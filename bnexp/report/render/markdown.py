"""A comparison as comparison.md."""

from __future__ import annotations

from collections.abc import Sequence

from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.applicable_notes import all_notes
from bnexp.report.content.heading import implied_settings, scope
from bnexp.report.content.question import headline
from bnexp.report.content.sentences import all_sentences
from bnexp.report.content.supplements import supplements
from bnexp.report.content.table import column_titles, row_cells

MARKUP_CHARACTERS = "\\|*_<>`[]"


def render_markdown(verdict: Verdict) -> str:
    titles = column_titles(verdict)
    lines = [f"**{_escape(headline(verdict))}**", "", " · ".join(map(_escape, scope(verdict))), ""]
    lines += [_table_row(titles), "|" + "---|" * len(titles)]
    for block, summaries in verdict.blocks.items():
        for summary in summaries:
            name, *cells = row_cells(summary, verdict)
            lines.append(_table_row([f"{name} ({block})" if block else name, *cells]))
    sentences = [*all_sentences(verdict), *supplements(verdict)]
    lines += ["", *(f"- {_escape(sentence)}" for sentence in sentences), ""]
    lines += [f"{_escape(text)}  " for text in [implied_settings(verdict)] if text]
    lines += [f"{_escape(note)}  " for note in all_notes(verdict)]
    if verdict.problems:
        lines += ["", "Folders with something wrong:", ""]
        lines += [f"- {_escape(str(problem))}" for problem in verdict.problems]
    return "\n".join(lines) + "\n"


def _table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escape, cells))} |"


def _escape(text: str) -> str:
    for character in MARKUP_CHARACTERS:
        text = text.replace(character, "\\" + character)
    return text
