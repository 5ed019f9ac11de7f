"""Verdicts over simulated runs: one by the user's own path, many at once by arrays that agree with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from bnexp.report.analysis.statistical_tests import ALPHA
from bnexp.report.analysis.verdict import Verdict, compare
from bnexp.report.read.runs import Run

IMAGES = 10_000
CLAIMS = ("better", "worse")


def simulated_run(norm: str, seed: int, accuracy: float | None, curve: Sequence[float] = ()) -> Run:
    """A run with a validation-chosen epoch; ``accuracy`` in percent, None for a run that diverged.

    With a ``curve`` of test accuracies, in percent, there is no validation set.
    """
    metrics = {} if accuracy is None else {"test/accuracy": accuracy / 100, "val/accuracy": accuracy / 100}
    return Run(
        folder=f"{norm}-{seed}",
        diverged=accuracy is None,
        error="",
        seed=seed,
        fold=None,
        epochs=1,
        settings={"model.norm": norm, "dataset.name": "mnist"},
        overrides={"model.norm": norm, "seed": str(seed)},
        final=metrics,
        best={} if len(curve) else metrics,
        curves={
            "epoch": list(range(1, len(curve) + 1)),
            "test/accuracy": [value / 100 for value in curve],
        },
        images={"test": IMAGES, "val": IMAGES, "train": IMAGES},
        majority=0.1,
        delta=0.1,
    )


def simulated_verdict(
    candidate: Sequence[float | None],
    baseline: Sequence[float | None],
    *,
    curves: np.ndarray | None = None,
) -> Verdict:
    """The verdict of ``compare`` itself over twins.

    ``curves`` (2, n, epochs) are the test accuracies of both groups in every epoch; then the final epoch is
    compared.
    """
    runs = []
    for i, (norm, accuracies) in enumerate({"batch": candidate, "none": baseline}.items()):
        for seed, accuracy in enumerate(accuracies):
            runs.append(simulated_run(norm, seed, accuracy, () if curves is None else curves[i, seed]))
    return compare(runs, epoch=None if curves is None else "final")


def paired_outcomes(candidate: np.ndarray, baseline: np.ndarray, delta: float = 0.1) -> np.ndarray:
    """The outcomes of many experiments, (experiments, n) accuracies in percent of twins each."""
    differences = candidate - baseline
    n = differences.shape[1]
    mean, sd = differences.mean(1), differences.std(1, ddof=1)
    error = sd / np.sqrt(n)
    p = 2 * stats.t.sf(np.abs(mean) / error, n - 1)
    half90 = stats.t.ppf(0.95, n - 1) * error
    is_small = (np.abs(mean) + half90) < delta
    is_called = (p <= ALPHA) & ~(np.abs(mean) <= _noise_floor(candidate, baseline))
    outcomes = np.where(mean > 0, "better", "worse").astype(object)
    if n < 20:
        outcomes[_has_outlier(candidate) | _has_outlier(baseline)] = "leaning"
    outcomes[is_small] = "small"
    outcomes[~is_called] = np.where(is_small, "equivalent", "undecided")[~is_called]
    return outcomes


def _noise_floor(candidate: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    n = candidate.shape[1]
    if n >= 5:
        return np.full(len(candidate), -1.0)
    errors = (100 - candidate.mean(1)) / 100 + (100 - baseline.mean(1)) / 100
    a, b = (values - values.mean(1, keepdims=True) for values in (candidate, baseline))
    r = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return 196 * np.sqrt(errors / (2 * IMAGES)) * np.sqrt(1 - r) / np.sqrt(n)


def _has_outlier(values: np.ndarray) -> np.ndarray:
    n = values.shape[1]
    if n < 4:
        return np.zeros(len(values), bool)
    distance = (values.mean(1) - values.min(1)) / values.std(1, ddof=1)
    t = stats.t.ppf(1 - 0.001 / n, n - 2)
    return distance > (n - 1) / np.sqrt(n) * np.sqrt(t**2 / (n - 2 + t**2))
