"""report.html: one file, no script, light and dark, narrow and wide. jinja2 escapes every name in it."""

from __future__ import annotations

import importlib.resources
import json
import math
from collections.abc import Sequence
from typing import Any

from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.verdict import Comparison
from bnexp.report.plots.style import COLOURS, Picture
from bnexp.report.render.numbers import p_value, points
from bnexp.report.render.sentences import COVERS, all_sentences, exact_test_note
from bnexp.report.render.table import cells, difference, header, interval, mark
from bnexp.report.render.terminal import constants, footnotes, next_steps, title

TEMPLATE = "page.html.j2"


def render_page(comparison: Comparison, pictures: Sequence[Picture]) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    from bnexp.report.render.exports import METHODS, comparison_dict

    source = importlib.resources.files("bnexp.report.render").joinpath(TEMPLATE).read_text()
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    grouping, values = comparison.grouping, comparison_dict(comparison)
    return template.from_string(source).render(
        title=title(comparison),
        constants=constants(comparison),
        sentences=all_sentences(comparison),
        covers=COVERS,
        header=header(comparison),
        marks={"+": "better", "-": "worse", "~": "undecided", "o": "small"},
        blocks=[(name, [cells(row, comparison) for row in rows]) for name, rows in comparison.blocks.items()],
        following=next_steps(comparison),
        pictures=[(picture, Markup(_inline(picture.svg))) for picture in pictures],  # escaped by matplotlib
        metrics=_metrics(comparison),
        tests=_tests(comparison),
        footnotes=[note for note in footnotes(comparison) if note != COVERS],
        methods=METHODS,
        looks=comparison.looks,
        all_constants=sorted(grouping.constants.items()),
        varying=_varying(comparison),
        runs=[(row, run, run.twin in row.diverged) for row in comparison.summaries for run in row.group.runs],
        versions=_versions(comparison),
        problems=comparison.problems,
        value=lambda row, run: row.values.get(run.twin),
        json=json.dumps(values, indent=1, ensure_ascii=False),
    )


def _inline(svg: str) -> str:
    """A picture in the page: its colours are the page's to lighten in the dark."""
    for i, colour in enumerate(COLOURS, 1):
        svg = svg.replace(colour.lower(), f"var(--c{i}, {colour.lower()})")
    return svg


def _metrics(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Every other metric of every group, and what its runs cost."""
    names = list(dict.fromkeys(name for row in comparison.summaries for name in row.secondary))
    titles = ["group", *names, "reached", "epochs", "seconds", "images/s", "parameters"]
    return titles, [[row.group.name, *_spreads(row, names), *_costs(row)] for row in comparison.summaries]


def _spreads(row: GroupSummary, names: Sequence[str]) -> list[str]:
    out = []
    for name in names:
        n, mean, sd = row.secondary.get(name, (0, math.nan, math.nan))
        decimals = 2 if name.endswith("accuracy") else 4
        out.append(
            "" if not n else f"{mean:.{decimals}f}" + ("" if math.isnan(sd) else f" ± {sd:.{decimals}f}")
        )
    return out


def _costs(row: GroupSummary) -> list[str]:
    speed = "" if math.isnan(row.images_per_s) else f"{row.images_per_s:,.0f}"
    size = "" if math.isnan(row.parameters) else f"{row.parameters:,.0f}"
    if row.target is None:
        return ["", "", "", speed, size]
    most = max(run.epochs for run in row.group.runs)
    far = math.isinf(row.target.epochs)
    seconds = "" if math.isnan(row.target.seconds) else "-" if far else f"{row.target.seconds:.1f}"
    epochs = f">{most}" if far else f"{row.target.epochs:g}"
    return [f"{row.target.count} of {row.target.runs}", epochs, seconds, speed, size]


def _tests(comparison: Comparison) -> list[dict[str, Any]]:
    """What each verdict rests on."""
    metric, found = comparison.metric, []
    for one in comparison.comparisons:
        found.append(
            {
                "group": one.candidate.group.name,
                "mark": mark(one),
                "outcome": one.outcome
                + (", provisional" if one.provisional and one.difference.n > 2 else ""),
                "method": one.difference.method,
                "difference": difference(one, metric),
                "p": p_value(one.difference.p),
                "adjusted": p_value(one.p_adjusted),
                "exact": exact_test_note(one, comparison),
                "floor": "" if math.isnan(one.floor) else f"±{points(one.floor, metric, signed=False)}",
                "delta": "" if one.delta is None else f"±{one.delta:g}",
                "r": "" if math.isnan(one.correlation) else f"{one.correlation:.2f}",
                "best": interval(one.at_best_val, metric) if one.at_best_val.n else "",
                "missing": ", ".join(_twin(twin) for twin in one.missing),
            }
        )
    return found


def _twin(twin: tuple[int, int | None]) -> str:
    return f"seed {twin[0]}" + ("" if twin[1] is None else f" fold {twin[1]}")


def _varying(comparison: Comparison) -> list[tuple[str, list[str]]]:
    keys = dict.fromkeys(key for row in comparison.summaries for key in row.group.settings)
    return [(key, [row.group.settings[key] for row in comparison.summaries]) for key in keys]


def _versions(comparison: Comparison) -> list[tuple[str, str]]:
    found: dict[str, set[str]] = {}
    for row in comparison.summaries:
        for run in row.group.runs:
            for name, value in run.versions.items():
                found.setdefault(name, set()).add(value)
    return [(name, "; ".join(sorted(values))) for name, values in found.items()]
