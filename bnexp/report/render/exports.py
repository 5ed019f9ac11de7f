"""A comparison as JSON, CSV and Markdown: three views of one object."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict
from typing import Any

from bnexp.report.analysis.curves import TimeToTarget
from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.verdict import Comparison, GroupComparison
from bnexp.report.render.sentences import all_sentences, exact_test_note, sentences
from bnexp.report.render.table import cells, header
from bnexp.report.render.terminal import footnotes, title

SCHEMA = 1
METHODS = {
    "paired": "paired t test on differences by seed and fold, two-sided",
    "unpaired": "Welch's t test, where no twins are shared",
    "exact": "sign-flip permutation test, Holm-bounded",
    "family": "Holm (1979) over all comparisons of this table, alpha 0.05",
    "noise floor": "1.96 sqrt((err_A + err_B) / (2 N)) / sqrt(n), N test images (Jordan 2023)",
    "equivalence": "two one-sided tests: 90 % interval within delta",
    "rates": "Wilson interval, 95 %",
    "diverged": "loss not finite, or test accuracy at most q + 3 sqrt(q (1-q) / N), q: the largest class",
    "seeds to go": "t s / sqrt(n) <= max(delta, |mean|) / 2, with the upper 80 % limit of s",
}


def comparison_dict(comparison: Comparison) -> dict[str, Any]:
    """The object as JSON: per-seed values, method names, a schema version; nan and infinity become null."""
    grouping = comparison.grouping
    return _nulls(
        {
            "schema": "bnexp-comparison",
            "schema_version": SCHEMA,
            "metric": comparison.metric.key,
            "unit": "percent; differences in points" if comparison.metric.is_accuracy else "as logged",
            "epoch": "final",
            "by": grouping.by,
            "baseline": grouping.baseline,
            "family": comparison.family,
            "alpha": 0.05,
            "methods": METHODS,
            "verdict": all_sentences(comparison),
            "notes": footnotes(comparison),
            "groups": [_row(row) for row in comparison.summaries],
            "comparisons": [_compared(one, comparison) for one in comparison.comparisons],
            "constants": dict(grouping.constants),
            "problems": [asdict(problem) for problem in comparison.problems],
            "looks": [dict(look) for look in comparison.looks],
        }
    )


def runs_csv(comparison: Comparison) -> str:
    """One line a run: its group, seed, fold, and its final and best metrics."""
    runs = [(row, run) for row in comparison.summaries for run in row.group.runs]
    metrics = sorted(
        {f"{where} {key}" for _, run in runs for where in ("final", "best") for key in getattr(run, where)}
    )
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["group", "seed", "fold", "outcome", *metrics, "images_per_s", "total_s", "parameters", "folder"]
    )
    for row, run in runs:
        outcome = "diverged" if run.twin in row.diverged else "finished"
        found = [getattr(run, name.partition(" ")[0]).get(name.partition(" ")[2], "") for name in metrics]
        fold = "" if run.fold is None else run.fold
        cost = [run.images_per_s, run.total_s, run.parameters, run.folder]
        writer.writerow([row.group.name, run.seed, fold, outcome, *found, *cost])
    return out.getvalue()


def markdown(comparison: Comparison) -> str:
    titles = header(comparison)
    lines = [f"**{' | '.join(title(comparison))}**".replace(" | ", " · "), ""]
    lines += [_md_row(titles), "|" + "---|" * len(titles)]
    for block, rows in comparison.blocks.items():
        for row in rows:
            words = cells(row, comparison)
            lines.append(_md_row([f"{words[0]} ({block})" if block else words[0], *words[1:]]))
    lines += ["", *(f"- {_md(sentence)}" for sentence in all_sentences(comparison)), ""]
    lines += [f"{_md(note)}  " for note in footnotes(comparison)]
    if comparison.problems:
        lines += ["", "Folders with something wrong:", ""]
        lines += [f"- {_md(str(problem))}" for problem in comparison.problems]
    return "\n".join(lines) + "\n"


def _md(text: str) -> str:
    for sign in "\\|*_<>`[]":
        text = text.replace(sign, "\\" + sign)
    return text


def _md_row(words: list[str]) -> str:
    return f"| {' | '.join(_md(word) for word in words)} |"


def _row(row: GroupSummary) -> dict[str, Any]:
    return {
        "name": row.group.name,
        "settings": dict(row.group.settings),
        "n": len(row.values),
        "mean": row.mean,
        "sd": row.sd,
        "diverged": len(row.diverged),
        "metrics": {key: {"n": n, "mean": mean, "sd": sd} for key, (n, mean, sd) in row.secondary.items()},
        "target": _target(row.target),
        "images_per_s": row.images_per_s,
        "parameters": row.parameters,
        "runs": [
            {
                "seed": run.seed,
                "fold": run.fold,
                "value": row.values.get(run.twin),
                "diverged": run.twin in row.diverged,
                "folder": run.folder,
            }
            for run in row.group.runs
        ],
    }


def _target(target: TimeToTarget | None) -> dict[str, Any] | None:
    if target is None:
        return None
    values = asdict(target)
    return values | {"each": values.pop("seconds_per_run")}


def _compared(one: GroupComparison, comparison: Comparison) -> dict[str, Any]:
    found = one.difference
    return {
        "group": one.candidate.group.name,
        "baseline": one.baseline.group.name,
        "outcome": one.outcome,
        "provisional": one.provisional,
        "sentences": sentences(one, comparison),
        **asdict(found),
        "p_adjusted": one.p_adjusted,
        "twins": [{"seed": seed, "fold": fold} for seed, fold in one.twins],
        "differences": one.differences,
        "missing": [{"seed": seed, "fold": fold} for seed, fold in one.missing],
        "wins": one.ahead,
        "correlation": one.correlation,
        "standardised": found.mean / found.sd if found.sd else math.nan,
        "noise_floor": one.floor,
        "delta": one.delta,
        "exact_p": one.exact,
        "exact": exact_test_note(one, comparison),
        "at_best_val": asdict(one.at_best_val),
        "confounders": one.confounders,
        "plan": None if one.plan is None else asdict(one.plan),
    }


def _nulls(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _nulls(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_nulls(inner) for inner in value]
    return value
