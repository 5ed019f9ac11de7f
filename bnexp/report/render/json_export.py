"""A comparison as data for comparison.json."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bnexp.files import nulls_for_nonfinite
from bnexp.report.analysis.balanced import balanced_accuracy_of
from bnexp.report.analysis.curves import TimeToTarget
from bnexp.report.analysis.group_comparison import GroupComparison
from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.statistical_tests import ALPHA, wilson_interval
from bnexp.report.analysis.tuning import ArmTuning, expected_best
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.applicable_notes import all_notes
from bnexp.report.content.footnotes import METHODS, sign_flip_result
from bnexp.report.content.question import headline
from bnexp.report.content.sentences import all_sentences, comparison_sentences
from bnexp.report.content.supplements import supplements
from bnexp.report.measurements.collect import measurements
from bnexp.report.measurements.measurement import Measurement
from bnexp.report.read.runs import PairKey

SCHEMA, SCHEMA_VERSION = "bnexp-comparison", 2


def comparison_record(verdict: Verdict) -> dict[str, Any]:
    """Per-seed values, tests, method names and a schema version; nan and infinity become null."""
    grouping = verdict.grouping
    sentences = [*all_sentences(verdict), *supplements(verdict)]
    return nulls_for_nonfinite(
        {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "metric": verdict.metric.key,
            "unit": "percent; differences in points" if verdict.metric.is_accuracy else "as logged",
            "epoch": verdict.rule,
            "by": grouping.by,
            "baseline": grouping.baseline,
            "family": verdict.family,
            "alpha": ALPHA,
            "methods": METHODS,
            "answer": headline(verdict),
            "verdict": sentences,
            "notes": all_notes(verdict),
            "groups": [_group(summary, verdict) for summary in verdict.summaries],
            "comparisons": [_comparison(c, verdict.family) for c in verdict.comparisons],
            "measurements": [_measurement(m) for m in measurements(verdict)],
            "tuning": [_tuning(summary, result) for summary, result in verdict.tuning],
            "constants": dict(grouping.constants),
            "problems": [asdict(problem) for problem in verdict.problems],
            "looks": [dict(look) for look in verdict.looks],
        }
    )


def _group(summary: GroupSummary, verdict: Verdict) -> dict[str, Any]:
    balanced = balanced_accuracy_of(summary, verdict)
    return {
        "name": summary.group.name,
        "settings": dict(summary.group.settings),
        "n": len(summary.values),
        "mean": summary.mean,
        "sd": summary.sd,
        "lost": len(summary.lost_runs),
        "lost_rate_interval": wilson_interval(len(summary.lost_runs), len(summary.group.runs)),
        "metrics": {
            key: {"n": n, "mean": mean, "sd": sd} for key, (n, mean, sd) in summary.secondary.items()
        },
        "balanced_accuracy": None if balanced is None else asdict(balanced),
        "target": _target(summary.target),
        "images_per_s": summary.images_per_s,
        "parameters": summary.parameters,
        "runs": [
            {
                "seed": run.seed,
                "fold": run.fold,
                "value": summary.values.get(run.pair_key),
                "lost": run.pair_key in summary.lost_keys,
                "folder": run.folder,
            }
            for run in summary.group.runs
        ],
    }


def _tuning(summary: GroupSummary, result: ArmTuning) -> dict[str, Any]:
    return {
        "group": summary.group.name,
        "keys": [interval.name for interval in result.intervals],
        "best": result.best.values,
        "edges": result.edges,
        "trials": [asdict(trial) for trial in result.trials],
        "expected_best": expected_best([trial.score for trial in result.trials]),
    }


def _measurement(measurement: Measurement) -> dict[str, Any]:
    return {
        "probe": measurement.probe,
        "sentences": list(measurement.sentences),
        "numbers": [asdict(number) for number in measurement.numbers],
        "panels": [asdict(panel) for panel in measurement.panels],
    }


def _target(target: TimeToTarget | None) -> dict[str, Any] | None:
    if target is None:
        return None
    values = asdict(target)
    return values | {"each": values.pop("seconds_per_run")}


def _comparison(c: GroupComparison, family: int) -> dict[str, Any]:
    return {
        "group": c.candidate.group.name,
        "baseline": c.baseline.group.name,
        "outcome": c.outcome,
        "provisional": c.is_provisional,
        "doubt": c.doubt,
        "paired": c.is_paired,
        "sentences": comparison_sentences(c),
        **asdict(c.difference),
        "p_adjusted": c.p_adjusted,
        "twins": _pair_keys(c.pairs),
        "differences": c.differences,
        "missing": _pair_keys(c.incomplete_pairs),
        "wins": c.wins,
        "correlation": c.correlation,
        "correlation_interval": c.correlation_interval,
        "stability": asdict(c.stability) | {"p_adjusted": c.stability_p_adjusted},
        "noise_floor": c.noise_floor,
        "delta": c.delta,
        "exact_p": c.sign_flip_p,
        "exact": sign_flip_result(c, family),
        "final": None
        if c.final is None
        else asdict(c.final) | {"p_adjusted": c.final_p_adjusted, "outcome": c.final_outcome},
        "confounders": c.confounders,
        "plan": None if c.plan is None else asdict(c.plan),
    }


def _pair_keys(keys: tuple[PairKey, ...]) -> list[dict[str, int | None]]:
    return [{"seed": seed, "fold": fold} for seed, fold in keys]
