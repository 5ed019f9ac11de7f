"""report.html: one file without scripts, for light and dark and all widths. jinja2 escapes every name.

The reading order: the question, the answer, the picture that shows it, the table, what to do next, the other
pictures; then everything else.
"""

from __future__ import annotations

import importlib.resources
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from bnexp.report.analysis.group_comparison import GroupComparison
from bnexp.report.analysis.group_summary import GroupSummary, has_nonfinite_loss
from bnexp.report.analysis.verdict import MIN_TESTED, Verdict
from bnexp.report.content.applicable_notes import applicable_methods, check_notes, legend_notes
from bnexp.report.content.columns import informative_columns
from bnexp.report.content.confusion import confusion_table
from bnexp.report.content.footnotes import sign_flip_result
from bnexp.report.content.heading import implied_settings, scope, shared_settings
from bnexp.report.content.next_steps import next_steps
from bnexp.report.content.numbers import mean_and_sd, p_is, p_value, points
from bnexp.report.content.provenance import provenance
from bnexp.report.content.question import answer_of, question_of
from bnexp.report.content.sentences import all_sentences
from bnexp.report.content.supplements import supplements
from bnexp.report.content.table import column_titles, difference_cell, mark, mean_and_interval, row_cells
from bnexp.report.content.tuning import tuning_table
from bnexp.report.plots.style import COLOURS, Picture
from bnexp.report.read.runs import PairKey, Run

TEMPLATE = "page.html.j2"
STYLES = {"+": "better", "-": "worse", "~": "undecided", "o": "small", "!": "confounded"}
TEST_TITLES = (
    "group", "outcome", "test", "difference", "p", "p adjusted", "sign flips", "stability", "noise floor",
    "delta", "r of twins", "at the final epoch", "not in the pairs",
)  # fmt: skip
COST_TITLES = ("group", "reached", "epochs", "seconds", "images/s", "parameters")


class RunRow(NamedTuple):
    """One run of the list: ``path`` leads from the page to its folder, ``link`` is the same as an address."""

    group: str
    seed: str
    fold: str
    value: str
    path: str
    link: str


def render_page(
    verdict: Verdict, pictures: Sequence[Picture], record: Mapping[str, Any], folder: Path
) -> str:
    """The page, to be written into ``folder``; ``record`` is the comparison as data, shown at its end."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    source = importlib.resources.files("bnexp.report.render").joinpath(TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    question, answer = question_of(verdict), answer_of(verdict)
    columns, blocks = _main_table(verdict)
    drawn = [(p, Markup(_recolour(p.svg)), Markup(_recolour(p.narrow_svg))) for p in pictures]  # escaped
    return environment.from_string(source).render(
        provenance=provenance(verdict),
        question=question,
        answer=answer,
        scope=scope(verdict),
        implied_settings=implied_settings(verdict),
        shared_settings=shared_settings(verdict),
        sentences=[*all_sentences(verdict), *supplements(verdict)],
        steps=next_steps(verdict),
        columns=columns,
        blocks=blocks,
        legend_notes=legend_notes(verdict),
        check_notes=check_notes(verdict),
        headline_pictures=drawn[:1],
        pictures=drawn[1:],
        tests=_without_empty_columns(TEST_TITLES, [_test(c, verdict.family) for c in verdict.comparisons]),
        tuning=_tuning_rows(verdict),
        confusions=confusion_table(verdict),
        test_styles=[STYLES.get(mark(c)[:1], "") for c in verdict.comparisons],
        metrics=_metrics_table(verdict),
        costs=_without_empty_columns(COST_TITLES, [_cost_row(summary) for summary in verdict.summaries]),
        methods=applicable_methods(verdict),
        looks=verdict.looks,
        settings=_settings_table(verdict),
        constants=sorted(verdict.grouping.constants.items()),
        runs=_runs(verdict, folder),
        has_folds=any(run.fold is not None for run in verdict.runs),
        versions=_versions(verdict),
        problems=verdict.problems,
        record=json.dumps(record, indent=1, ensure_ascii=False),
    )


def _recolour(svg: str) -> str:
    """Names the colours of a picture, so that the page can lighten them on a dark screen."""
    for i, colour in enumerate(COLOURS, 1):
        svg = svg.replace(colour.lower(), f"var(--c{i}, {colour.lower()})")
    return svg


def _main_table(verdict: Verdict) -> tuple[list[str], list[tuple[str, list[tuple[str, list[str]]]]]]:
    """The titles of the main table, and its rows by block, each with its style."""
    rows = {id(summary): row_cells(summary, verdict) for summary in verdict.summaries}
    columns = informative_columns([*rows.values()], verdict.family)
    titles = [title or "mark" for title in column_titles(verdict)]
    blocks = []
    for block, summaries in verdict.blocks.items():
        block_rows = [rows[id(summary)] for summary in summaries]
        styled = [(STYLES.get(cells[-1][:1], ""), [cells[i] for i in columns]) for cells in block_rows]
        blocks.append((block, styled))
    return [titles[i] for i in columns], blocks


def _without_empty_columns(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The titles and the rows of a table, without the columns that are empty in every row."""
    columns = [i for i in range(len(titles)) if any(row[i] for row in rows)]
    return [[row[i] for i in columns] for row in (titles, *rows)] if rows else []


def _test(c: GroupComparison, family: int) -> list[str]:
    """The numbers that the verdict on one comparison rests on, as in TEST_TITLES."""
    suffix = ", provisional" if c.is_provisional and c.difference.n >= MIN_TESTED else ""
    return [
        c.candidate.group.name,
        f"{c.outcome}{suffix}",
        c.difference.method,
        difference_cell(c),
        p_value(c.difference.p),
        p_value(c.p_adjusted) if family > 1 else "",
        sign_flip_result(c, family),
        f"{c.stability.method}: {p_is(c.stability_p_adjusted)}" if c.stability.method else "",
        "" if math.isnan(c.noise_floor) else f"±{points(c.noise_floor, c.metric, signed=False)}",
        "" if c.delta is None else f"±{c.delta:g}",
        "" if math.isnan(c.correlation) else f"{c.correlation:.2f}",
        mean_and_interval(c.final, c.metric) if c.final and c.final.n else "",
        ", ".join(map(_pair_name, c.incomplete_pairs)),
    ]


def _pair_name(key: PairKey) -> str:
    seed, fold = key
    return f"seed {seed}" + ("" if fold is None else f" fold {fold}")


def _metrics_table(verdict: Verdict) -> list[list[str]]:
    """Titles and rows: every metric of each group, at the final and at the best epoch."""
    names = list(dict.fromkeys(name for summary in verdict.summaries for name in summary.secondary))
    rows = []
    for summary in verdict.summaries:
        spreads = [summary.secondary.get(name, (0, math.nan, math.nan)) for name in names]
        cells = [
            mean_and_sd(mean, sd, 2 if name.endswith("accuracy") else 4) if n else ""
            for name, (n, mean, sd) in zip(names, spreads, strict=True)
        ]
        rows.append([summary.group.name, *cells])
    return [["group", *names], *rows]


def _cost_row(summary: GroupSummary) -> list[str]:
    """What the runs of one group cost, as in COST_TITLES."""
    return [summary.group.name, *_target_cells(summary), *_size_cells(summary)]


def _target_cells(summary: GroupSummary) -> list[str]:
    target = summary.target
    if target is None:
        return ["", "", ""]
    reached = f"{target.count} of {target.runs}"
    if math.isinf(target.epochs):
        epochs = f">{max(run.epochs for run in summary.group.runs)}"
        return [reached, epochs, "" if math.isnan(target.seconds) else "-"]
    return [reached, f"{target.epochs:g}", "" if math.isnan(target.seconds) else f"{target.seconds:.1f}"]


def _size_cells(summary: GroupSummary) -> list[str]:
    numbers = (summary.images_per_s, summary.parameters)
    return ["" if math.isnan(number) else f"{number:,.0f}" for number in numbers]


def _tuning_rows(verdict: Verdict) -> list[list[str]]:
    """Titles and rows: what was tried to tune each group; empty where nothing was tuned."""
    titles, rows = tuning_table(verdict)
    return [titles, *rows] if rows else []


def _settings_table(verdict: Verdict) -> list[list[str]]:
    """Titles and rows: the settings in which groups differ; empty where there are none."""
    groups = [summary.group for summary in verdict.summaries]
    keys = list(groups[0].settings)
    return [["group", *keys], *([g.name, *(g.settings[key] for key in keys)] for g in groups)] if keys else []


def _runs(verdict: Verdict, folder: Path) -> list[RunRow]:
    rows = []
    for summary in verdict.summaries:
        for run in summary.group.runs:
            fold = "" if run.fold is None else str(run.fold)
            path = os.path.relpath(run.folder, folder)
            link = quote(Path(path).as_posix(), safe="/=,")
            value = _run_value(run, summary)
            rows.append(RunRow(summary.group.name, str(run.seed), fold, value, path, f"{link}/"))
    return rows


def _run_value(run: Run, summary: GroupSummary) -> str:
    if run.pair_key in summary.values:
        return f"{summary.values[run.pair_key]:.4f}"
    return "diverged" if has_nonfinite_loss(run) else "at chance"


def _versions(verdict: Verdict) -> list[tuple[str, str]]:
    versions: dict[str, set[str]] = {}
    for run in verdict.runs:
        for name, version in run.versions.items():
            versions.setdefault(name, set()).add(version)
    return [(name, "; ".join(sorted(values))) for name, values in versions.items()]
