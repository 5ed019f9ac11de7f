"""report.html: one file without scripts, for light and dark and all widths. jinja2 escapes every name."""

from __future__ import annotations

import importlib.resources
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnexp.report.analysis.group_comparison import GroupComparison
from bnexp.report.analysis.group_summary import GroupSummary, has_nonfinite_loss
from bnexp.report.analysis.verdict import MIN_TESTED, Verdict
from bnexp.report.content.footnotes import METHODS, scope_note, sign_flip_result, table_notes
from bnexp.report.content.heading import implied_settings, scope, shared_settings
from bnexp.report.content.next_steps import next_steps
from bnexp.report.content.numbers import mean_and_sd, p_is, p_value, points
from bnexp.report.content.question import headline
from bnexp.report.content.sentences import all_sentences
from bnexp.report.content.supplements import supplements
from bnexp.report.content.table import column_titles, difference_cell, mark, mean_and_interval, row_cells
from bnexp.report.plots.style import COLOURS, Picture
from bnexp.report.read.runs import PairKey, Run

TEMPLATE = "page.html.j2"
STYLES = {"+": "better", "-": "worse", "~": "undecided", "o": "small", "!": "confounded"}
COST_TITLES = ("reached", "epochs", "seconds", "images/s", "parameters")


def render_page(verdict: Verdict, pictures: Sequence[Picture], record: Mapping[str, Any]) -> str:
    """The page; ``record`` is the comparison as data, shown at its end."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    source = importlib.resources.files("bnexp.report.render").joinpath(TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source).render(
        headline=headline(verdict),
        scope=scope(verdict),
        implied_settings=implied_settings(verdict),
        shared_settings=shared_settings(verdict),
        sentences=[*all_sentences(verdict), *supplements(verdict)],
        steps=next_steps(verdict),
        scope_note=scope_note(verdict),
        column_titles=column_titles(verdict),
        blocks=_blocks(verdict),
        notes=table_notes(verdict),
        pictures=[(picture, Markup(_recolour(picture.svg))) for picture in pictures],  # escaped by matplotlib
        tests=[_test(c, verdict.family) for c in verdict.comparisons],
        metric_titles=["group", *_metric_names(verdict), *COST_TITLES],
        metric_rows=[_metric_row(summary, verdict) for summary in verdict.summaries],
        methods=METHODS,
        looks=verdict.looks,
        groups=[summary.group for summary in verdict.summaries],
        constants=sorted(verdict.grouping.constants.items()),
        runs=_runs(verdict),
        versions=_versions(verdict),
        problems=verdict.problems,
        record=json.dumps(record, indent=1, ensure_ascii=False),
    )


def _recolour(svg: str) -> str:
    """Names the colours of a picture, so that the page can lighten them on a dark screen."""
    for i, colour in enumerate(COLOURS, 1):
        svg = svg.replace(colour.lower(), f"var(--c{i}, {colour.lower()})")
    return svg


def _blocks(verdict: Verdict) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """The rows of the main table by block, each with its style."""
    blocks = []
    for block, summaries in verdict.blocks.items():
        rows = [row_cells(summary, verdict) for summary in summaries]
        blocks.append((block, [(STYLES.get(cells[-1][:1], ""), cells) for cells in rows]))
    return blocks


def _test(c: GroupComparison, family: int) -> dict[str, str]:
    """The numbers that one verdict rests on."""
    suffix = ", provisional" if c.is_provisional and c.difference.n >= MIN_TESTED else ""
    floor = "" if math.isnan(c.noise_floor) else f"±{points(c.noise_floor, c.metric, signed=False)}"
    return {
        "style": STYLES.get(mark(c)[:1], ""),
        "group": c.candidate.group.name,
        "outcome": f"{c.outcome}{suffix}",
        "method": c.difference.method,
        "difference": difference_cell(c),
        "p": p_value(c.difference.p),
        "p_adjusted": p_value(c.p_adjusted),
        "sign_flips": sign_flip_result(c, family),
        "noise_floor": floor,
        "delta": "" if c.delta is None else f"±{c.delta:g}",
        "correlation": "" if math.isnan(c.correlation) else f"{c.correlation:.2f}",
        "stability": f"{c.stability.method}: {p_is(c.stability_p_adjusted)}" if c.stability.method else "",
        "final": mean_and_interval(c.final, c.metric) if c.final and c.final.n else "",
        "incomplete_pairs": ", ".join(map(_pair_name, c.incomplete_pairs)),
    }


def _pair_name(key: PairKey) -> str:
    seed, fold = key
    return f"seed {seed}" + ("" if fold is None else f" fold {fold}")


def _metric_names(verdict: Verdict) -> list[str]:
    return list(dict.fromkeys(name for summary in verdict.summaries for name in summary.secondary))


def _metric_row(summary: GroupSummary, verdict: Verdict) -> list[str]:
    """Every other metric of one group, and what its runs cost."""
    cells = [summary.group.name]
    for name in _metric_names(verdict):
        n, mean, sd = summary.secondary.get(name, (0, math.nan, math.nan))
        cells.append(mean_and_sd(mean, sd, 2 if name.endswith("accuracy") else 4) if n else "")
    return [*cells, *_target_cells(summary), *_size_cells(summary)]


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


def _runs(verdict: Verdict) -> list[tuple[str, str, str, str, str]]:
    """Group, seed, fold, value and folder of each run."""
    rows = []
    for summary in verdict.summaries:
        for run in summary.group.runs:
            value = _run_value(run, summary)
            fold = "" if run.fold is None else str(run.fold)
            rows.append((summary.group.name, str(run.seed), fold, value, run.folder))
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
