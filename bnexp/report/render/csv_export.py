"""The runs of a comparison as comparison.csv: one line a run."""

from __future__ import annotations

import csv
import io

from bnexp.report.analysis.verdict import Verdict


def runs_csv(verdict: Verdict) -> str:
    """Group, seed, fold and outcome of each run, its final and best metrics, its cost and folder."""
    rows = [(summary, run) for summary in verdict.summaries for run in summary.group.runs]
    final = sorted({key for _, run in rows for key in run.final})
    best = sorted({key for _, run in rows for key in run.best})
    titles = [*(f"best {key}" for key in best), *(f"final {key}" for key in final)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["group", "seed", "fold", "outcome", *titles, "images_per_s", "total_s", "parameters", "folder"]
    )
    for summary, run in rows:
        outcome = "lost" if run.pair_key in summary.lost_keys else "finished"
        fold = "" if run.fold is None else run.fold
        metrics = [*(run.best.get(key, "") for key in best), *(run.final.get(key, "") for key in final)]
        costs = [run.images_per_s, run.total_s, run.parameters]
        writer.writerow([summary.group.name, run.seed, fold, outcome, *metrics, *costs, run.folder])
    return text.getvalue()
