"""The verdict in a terminal: 80 columns, colour and ± where they can be shown, plain ASCII in a pipe."""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TextIO

from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.footnotes import footnotes, looks_note
from bnexp.report.content.heading import implied_settings, scope, shared_settings
from bnexp.report.content.next_steps import next_steps
from bnexp.report.content.question import headline
from bnexp.report.content.sentences import all_sentences
from bnexp.report.content.supplements import supplements
from bnexp.report.content.table import (
    DIFFERENCE,
    LOST_RUNS,
    MARK,
    MEAN,
    NAME,
    P_ADJUSTED,
    WINS,
    P,
    column_titles,
    mark,
    mark_legend,
    row_cells,
)

MIN_NAME_WIDTH = 8
LONG_NAME = 16  # names longer than this are cut before a column is dropped
MAX_WIDTH = 100  # longer lines are hard to read
DROP_ORDER = (WINS, P_ADJUSTED, P, LOST_RUNS)  # the columns to drop where the terminal is too narrow
LEFT_ALIGNED = (NAME, MEAN, DIFFERENCE, MARK)
GAP = 2  # blanks between columns
COLOURS = {"+": "green", "-": "red", "~": "yellow", "o": "cyan"}
ASCII = str.maketrans({"±": "+-", "…": ".", "δ": "delta"})
Line = tuple[str, str]  # text, style


def print_verdict(verdict: Verdict, file: TextIO | None = None, *, details: bool = False) -> None:
    """Prints with colour on a terminal, unless NO_COLOR is set, and plain ASCII into a pipe."""
    from rich.console import Console
    from rich.text import Text

    file = file or sys.stdout
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        print(render_text(verdict, plain=True, details=details), file=file)
        return
    plain = "utf" not in (file.encoding or "").lower()
    for text, style in _lines(verdict, min(console.width, MAX_WIDTH), plain, details):
        console.print(Text(text, style=style), soft_wrap=True)


def render_text(verdict: Verdict, width: int = 80, *, plain: bool = False, details: bool = False) -> str:
    """All lines as text; ``plain``: in ASCII, except for the user's own names; ``details``: all notes."""
    return "\n".join(text for text, _ in _lines(verdict, width, plain, details))


def _lines(verdict: Verdict, width: int, plain: bool, details: bool) -> Iterator[Line]:
    for text, style in _page(verdict, width, plain, details):
        yield (text.translate(ASCII) if plain else text).rstrip(), style


def _page(verdict: Verdict, width: int, plain: bool, details: bool) -> Iterator[Line]:
    yield from _wrap(headline(verdict), width, "bold")
    unbroken = (part.replace(" ", "\xa0") for part in scope(verdict))  # lines break between parts only
    for text, style in _wrap(" | ".join(unbroken), width, "dim"):
        yield text.replace("\xa0", " "), style
    yield from _wrap(implied_settings(verdict), width, "dim")
    if details:
        yield from _wrap(shared_settings(verdict), width, "dim")
    yield from _table(verdict, width, plain)
    yield "", ""
    sentences = [*all_sentences(verdict), *supplements(verdict)]
    for sentence in sentences:
        yield from _wrap(sentence, width)
    steps = next_steps(verdict)
    for step in steps if details else steps[:1]:
        if len(step.commands) == 1:
            yield f"next ({step.reason}): {step.commands[0]}", "bold"  # one line, which can be copied
            continue
        yield f"next ({step.reason}){':' if step.commands else ''}", "bold"
        for command in step.commands:
            yield f"  {command}", "bold"
    legend = mark_legend(verdict) if len(verdict.comparisons) > 1 else ""
    notes = footnotes(verdict) if details else [looks_note(verdict), legend]
    for note in notes:
        yield from _wrap(note, width, "dim")


def _wrap(text: str, width: int, style: str = "") -> Iterator[Line]:
    for line in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False):
        yield line, style


def _table(verdict: Verdict, width: int, plain: bool) -> Iterator[Line]:
    summaries = [summary for members in verdict.blocks.values() for summary in members]
    rows = [column_titles(verdict), *(row_cells(summary, verdict) for summary in summaries)]
    if plain:
        rows = [[cell.translate(ASCII) for cell in row] for row in rows]
    header, *lines = _draw(rows, _column_widths(rows, width, verdict.family))
    yield header, "bold"
    line_of = iter(lines)
    for block, members in verdict.blocks.items():
        if block:
            yield from _wrap(f"{block}:", width, "underline")
        for summary in members:
            group_comparison = verdict.comparison_of(summary)
            style = COLOURS.get(mark(group_comparison)[:1], "") if group_comparison else ""
            yield next(line_of), style


def _column_widths(rows: Sequence[Sequence[str]], width: int, family: int) -> dict[int, int]:
    """The columns that fit into ``width``, with their widths: a long name is cut, or columns are dropped."""
    from rich.cells import cell_len

    columns = [i for i in range(len(rows[0])) if _is_informative(i, rows, family)]
    while True:
        widths = {i: max(cell_len(row[i]) for row in rows) for i in columns}
        excess = sum(widths.values()) + GAP * (len(columns) - 1) - width
        can_cut_name = widths[NAME] > LONG_NAME and widths[NAME] - excess >= MIN_NAME_WIDTH
        droppable = [i for i in DROP_ORDER if i in columns]
        if excess <= 0 or can_cut_name or not droppable:
            break
        columns.remove(droppable[0])
    widths[NAME] = max(widths[NAME] - max(excess, 0), MIN_NAME_WIDTH)
    return widths


def _is_informative(column: int, rows: Sequence[Sequence[str]], family: int) -> bool:
    """False for empty columns, and for adjusted p values where a single comparison leaves p as it is."""
    if column == P_ADJUSTED and family < 2:
        return False
    return column <= MEAN or any(row[column] for row in rows[1:])


def _draw(rows: Sequence[Sequence[str]], widths: dict[int, int]) -> list[str]:
    """The rows as aligned lines."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, GAP, 0, 0))
    for column, width in widths.items():
        grid.add_column(width=width, justify="left" if column in LEFT_ALIGNED else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*(Text(row[column].replace("\n", " ")) for column in widths))
    table_width = sum(widths.values()) + GAP * len(widths)  # rich cuts cells where the console is narrower
    console = Console(file=io.StringIO(), width=table_width, color_system=None)
    with console.capture() as capture:
        console.print(grid)
    return capture.get().removesuffix("\n").split("\n")
