"""The verdict in a terminal: 80 columns, colour and ± where they show, plain ASCII where it is piped."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Iterator
from typing import TextIO

from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.groups import ignored
from bnexp.report.analysis.sample_size import commands
from bnexp.report.analysis.statistical_tests import mean_sd
from bnexp.report.analysis.verdict import Comparison
from bnexp.report.render.sentences import all_sentences, exact_test_note, further_noun, looks_note, scope_note
from bnexp.report.render.table import cells, header, legend, mark

MAIN = (
    "dataset.name",
    "model._target_",
    "model.norm",
    "optimizer._target_",
    "optimizer.lr",
    "batch_size",
    "epochs",
)
HEADS = ("._target_", ".name")  # of a group, which a word chooses
LEAST = 8  # columns of the first cell that are never given up
MOST_SEEDS = 100  # more than this is no plan
DROPPED = (7, 6, 5, 2)  # wins, p.adj, p, div: what goes first where the terminal is too narrow
COLOURS = {"+": "green", "-": "red", "~": "yellow", "o": "cyan"}
ASCII = str.maketrans({"±": "+-", "…": ".", "δ": "delta"})
Line = tuple[str, str]  # text, style


def render(comparison: Comparison, width: int = 80, plain: bool = False) -> str:
    """The whole page of text; ``plain`` has no character beyond ASCII but those of the user's own names."""
    return "\n".join(text for text, _ in lines(comparison, width, plain))


def print_comparison(comparison: Comparison, file: TextIO | None = None) -> None:
    """Prints it: with colour on a terminal, unless NO_COLOR is set, plain into a pipe."""
    from rich.console import Console
    from rich.text import Text

    file = file or sys.stdout
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        print(render(comparison, plain=True), file=file)
        return
    plain = "utf" not in (file.encoding or "").lower()
    for text, style in lines(comparison, min(console.width, 100), plain):
        console.print(Text(text, style=style), soft_wrap=True)


def lines(comparison: Comparison, width: int, plain: bool) -> Iterator[Line]:
    for text, style in _page(comparison, width, plain):
        yield (text.translate(ASCII) if plain else text).rstrip(), style


def _page(comparison: Comparison, width: int, plain: bool) -> Iterator[Line]:
    kept = (part.replace(" ", "\xa0") for part in title(comparison))  # lines break between parts
    for line, style in _wrapped(" | ".join(kept), width, "bold"):
        yield line.replace("\xa0", " "), style
    yield from _wrapped(constants(comparison), width, "dim")
    yield "", ""
    yield from _table(comparison, width, plain)
    yield "", ""
    for sentence in all_sentences(comparison):
        yield from _wrapped(sentence, width)
    yield from _next(comparison, width)
    for note in footnotes(comparison):
        yield from _wrapped(note, width, "dim")


def title(comparison: Comparison) -> list[str]:
    """What is compared with what, on which metric, over how many seeds, in which family."""
    grouping, ns = (
        comparison.grouping,
        sorted({one.difference.n for one in comparison.comparisons if one.difference.n}),
    )
    parts = [f"compare {grouping.by} vs {grouping.baseline}" if grouping.by else "one group"]
    parts.append(f"{comparison.metric.label}, final epoch")
    if ns:
        noun = (
            comparison.comparisons[0].noun
            if ns[-1] != 1
            else comparison.comparisons[0].noun.removesuffix("s")
        )
        paired = "paired" if all(one.paired for one in comparison.comparisons) else "partly unpaired"
        parts.append(f"{'-'.join(map(str, dict.fromkeys((ns[0], ns[-1]))))} {paired} {noun}")
    if comparison.family > 1:
        parts.append(f"Holm, m={comparison.family}")
    return parts


def constants(comparison: Comparison) -> str:
    """The keys that matter most of those that every run shares; the page has them all."""
    found, words = comparison.grouping.constants, []
    for key in MAIN:
        if key in found:
            short = key.removesuffix("._target_").removesuffix(".name")
            words.append(f"{short}={comparison.grouping.word(key, found[key])}")
    words += _typed_in_all(comparison)
    return f"same in all: {' '.join(words)}" if words else ""


def _typed_in_all(comparison: Comparison) -> list[str]:
    """What else the command of every run said, the same in all: mostly not a default."""
    runs = [run for row in comparison.summaries for run in row.group.runs]
    shown = {name for key in MAIN for name in (key, key.partition(".")[0] if key.endswith(HEADS) else key)}
    return [
        f"{key}={value}"
        for key, value in runs[0].overrides.items()
        if key not in shown and not ignored(key) and key not in ("seed", "dataset.fold")
        and all(run.overrides.get(key) == value for run in runs)
    ]  # fmt: skip


def footnotes(comparison: Comparison) -> list[str]:
    """What a reader must know beside the sentences; of many groups, the details are in the files alone."""
    found, few = comparison.comparisons, len(comparison.summaries) <= 8
    twins = {one.candidate.group.name: one.correlation for one in found if not math.isnan(one.correlation)}
    notes = [legend(comparison)]
    if twins and few:
        notes.append("twins correlate: " + ", ".join(f"{name} {r:.2f}" for name, r in twins.items()))
    notes += _exact_checks(comparison)
    for block, rows in comparison.blocks.items():
        times = [(_called(row, comparison), row.target, row) for row in rows if row.target]
        if times and few:
            goal = f"{times[0][1].split} accuracy {100 * times[0][1].accuracy:.1f} %"
            each = "; ".join(
                f"{name} {time.count} of {time.runs}, {_median(row)}" for name, time, row in times
            )
            notes.append(f"{block + ': ' if block else ''}{goal} reached (in training time): {each}")
    return [
        note for note in [*notes, looks_note(comparison), *comparison.notes, scope_note(comparison)] if note
    ]


def _called(row: GroupSummary, comparison: Comparison) -> str:
    """A group's value, with its key where it is a number that would be read as part of what follows."""
    value = row.group.value or "all"
    return f"{comparison.grouping.title}={value}" if value[0].isdigit() else value


def _exact_checks(comparison: Comparison) -> list[str]:
    """The sign flips' p of each group, or once for all that too few seeds leave it nothing to say."""
    checks = [(one, words) for one in comparison.comparisons if (words := exact_test_note(one, comparison))]
    told = [f"{one.candidate.group.name} {words}" for one, words in checks if words.startswith("p ")]
    few = [words for _, words in checks if not words.startswith("p ")]
    if few and not told:
        told = [max(few)]
    return [f"exact check (sign flips): {', '.join(told)}"] if told and len(told) <= 8 else []


def _median(row: GroupSummary) -> str:
    assert row.target is not None
    if row.target.epochs == float("inf"):
        return f">{max(run.epochs for run in row.group.runs)} epochs"
    seconds = "" if math.isnan(row.target.seconds) else f", {row.target.seconds:.1f} s"
    return f"epoch {row.target.epochs:g}{seconds}"


def _table(comparison: Comparison, width: int, plain: bool) -> Iterator[Line]:
    titles = header(comparison)
    rows = [(row, cells(row, comparison)) for row in comparison.summaries]
    keep = [i for i in range(len(titles)) if _has(i, comparison, [c for _, c in rows])]
    while True:
        widths = {i: max(_length(c[i], plain) for c in [titles, *(c for _, c in rows)]) for i in keep}
        spare = width - sum(widths.values()) - 2 * (len(keep) - 1)
        drop = next((i for i in DROPPED if i in keep), None)
        if spare >= 0 or (widths[0] + spare >= LEAST and widths[0] > 16) or drop is None:
            break
        keep.remove(drop)
    widths[0] = max(widths[0] + min(spare, 0), LEAST)
    yield _row([titles[i] for i in keep], list(widths.values()), keep, plain), "bold"
    for block, members in comparison.blocks.items():
        if block:
            yield from _wrapped(f"{block}:", width, "underline")
        for row in members:
            words = next(c for other, c in rows if other is row)
            one = comparison.of(row)
            style = COLOURS.get(mark(one)[:1], "") if one else ""
            yield _row([words[i] for i in keep], list(widths.values()), keep, plain), style


def _has(column: int, comparison: Comparison, rows: list[list[str]]) -> bool:
    """p.adj says nothing of one comparison; the columns of differences nothing without any."""
    if column == 6 and comparison.family < 2:
        return False
    return column < 4 or any(row[column] for row in rows)


def _row(words: list[str], widths: list[int], keep: list[int], plain: bool) -> str:
    out = []
    for word, width, column in zip(words, widths, keep, strict=True):
        if _length(word, plain) > width:
            word = word[: width - 1] + "…"
        space = " " * (width - _length(word, plain))
        out.append(word + space if column in (0, 3, 4, 8) else space + word)
    return "  ".join(out)


def _length(word: str, plain: bool) -> int:
    from rich.cells import cell_len

    return cell_len(word.translate(ASCII) if plain else word)


def next_steps(comparison: Comparison) -> list[tuple[int, float, tuple[str, ...]]]:
    """For what is open in each block: how many more seeds, their minutes as trained so far, the commands."""
    found = []
    for _, rows in comparison.blocks.items():
        every = [(one, one.plan) for row in rows if (one := comparison.of(row)) and one.plan]
        for first_verdict in (True, False):  # a verdict at 5 seeds needs few, a narrower interval often many
            wanting = [(one, more) for one, more in every if math.isnan(more.half_width) is first_verdict]
            most = max((plan.more for _, plan in wanting), default=0)
            if 0 < most <= MOST_SEEDS:
                groups = [wanting[0][0].baseline.group, *(one.candidate.group for one, _ in wanting)]
                seconds = sum(mean_sd([run.total_s for run in group.runs])[0] for group in groups)
                found.append((most, most * seconds / 60, commands(groups, most)))
    return found


def _next(comparison: Comparison, width: int) -> Iterator[Line]:
    """The commands for more seeds, unbroken so that they can be copied."""
    for more, minutes, typed in next_steps(comparison):
        cost = "" if math.isnan(minutes) else f", about {max(minutes, 1):.0f} min as trained so far"
        noun = further_noun(comparison.comparisons[0])
        yield f"next: {more} more {noun if more > 1 else noun.removesuffix('s')} of each{cost}", ""
        for command in typed:
            yield f"  {command}", "bold"


def _wrapped(text: str, width: int, style: str = "") -> Iterator[Line]:
    for line in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False):
        yield line, style
