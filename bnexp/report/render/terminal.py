"""The verdict in a terminal: 80 columns, colour and ± where they can be shown, plain ASCII in a pipe."""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TextIO

from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.applicable_notes import all_notes
from bnexp.report.content.columns import informative_columns
from bnexp.report.content.footnotes import looks_note
from bnexp.report.content.heading import implied_settings, scope, shared_settings
from bnexp.report.content.next_steps import NextStep, next_steps
from bnexp.report.content.published import published_sentences
from bnexp.report.content.question import headline
from bnexp.report.content.sentences import all_sentences
from bnexp.report.content.supplements import balanced_accuracy_sentences, measurement_sentences, supplements
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
from bnexp.report.content.tuning import tuning_sentences

MIN_NAME_WIDTH = 8
LONG_NAME = 16  # names longer than this are cut before a column is dropped
MAX_WIDTH = 100  # longer lines are hard to read
MAX_LINES = 13  # of one comparison; with an empty line and the page's path it takes 15
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
    for text, style in styled_lines(verdict, min(console.width, MAX_WIDTH), plain, details):
        console.print(Text(text, style=style), soft_wrap=True)


def render_text(verdict: Verdict, width: int = 80, *, plain: bool = False, details: bool = False) -> str:
    """All lines as text; ``plain``: in ASCII, except for the user's own names; ``details``: all notes."""
    return "\n".join(text for text, _ in styled_lines(verdict, width, plain, details))


def styled_lines(verdict: Verdict, width: int, plain: bool = False, details: bool = False) -> Iterator[Line]:
    for text, style in _page(verdict, width, plain, details):
        yield (text.translate(ASCII) if plain else text).rstrip(), style


def _page(verdict: Verdict, width: int, plain: bool, details: bool) -> Iterator[Line]:
    """All parts in their order; of a single comparison without ``details``, no more than fit MAX_LINES."""
    parts = list(_parts(verdict, width, plain, details))
    if len(verdict.comparisons) == 1 and not details:
        ranks = sorted({rank for rank, _ in parts if rank})
        while ranks and sum(len(lines) for _, lines in parts) > MAX_LINES:
            last = ranks.pop()
            parts = [part for part in parts if part[0] != last]
    for _, lines in parts:
        yield from lines


def _parts(verdict: Verdict, width: int, plain: bool, details: bool) -> Iterator[tuple[int, list[Line]]]:
    """The parts in printed order, each with a rank: 0 is always printed, the highest is left out first."""
    yield 0, _wrap(headline(verdict), width, "bold")
    unbroken = (part.replace(" ", "\xa0") for part in scope(verdict))  # lines break between parts only
    scope_lines = _wrap(" | ".join(unbroken), width, "dim")
    yield 0, [(text.replace("\xa0", " "), style) for text, style in scope_lines]
    yield 3, _wrap(implied_settings(verdict), width, "dim")
    if details:
        yield 0, _wrap(shared_settings(verdict), width, "dim")
    yield 0, [*_table(verdict, width, plain), ("", "")]
    for sentence in all_sentences(verdict):
        yield 0, _wrap(sentence, width)
    requested = [
        *measurement_sentences(verdict), *tuning_sentences(verdict), *published_sentences(verdict),
        *balanced_accuracy_sentences(verdict),
    ]  # fmt: skip
    for sentence in supplements(verdict):
        yield 0 if sentence in requested else 2, _wrap(sentence, width)
    steps = next_steps(verdict)
    for step in steps if details else steps[:1]:
        yield 0, _step_lines(step)
    legend = mark_legend(verdict) if len(verdict.comparisons) > 1 else ""
    if not details:
        yield 0, _wrap(looks_note(verdict), width, "dim")  # how p and interval are to be read
    for note in all_notes(verdict) if details else [legend]:
        yield 1, _wrap(note, width, "dim")


def _step_lines(step: NextStep) -> list[Line]:
    """A single command stands on the line of its reason. Commands are not broken: they can be copied."""
    if len(step.commands) == 1:
        return [(f"next ({step.reason}): {step.commands[0]}", "bold")]
    head = f"next ({step.reason}){':' if step.commands else ''}"
    return [(head, "bold"), *((f"  {command}", "bold") for command in step.commands)]


def _wrap(text: str, width: int, style: str = "") -> list[Line]:
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return [(line, style) for line in lines]


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

    columns = informative_columns(rows[1:], family)
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
