"""Estimates over seeds, ratios of arms, and the sentences that hold them against a claim."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from bnexp.report.measurements.measurement import (
    compare_sentences,
    comparisons,
    curve_over_seeds,
    estimate,
    ratio,
)
from helpers.probe_tables import arm


def value(table):
    return table.rows[0]["value"]


def arm_of(name, values, **keys):
    return arm(name, [[{"step": 1, "value": number}] for number in values], **keys)


def test_the_interval_is_that_of_the_t_distribution():
    values = [1.2, 1.5, 1.1, 1.4]
    low, high = stats.t.interval(0.95, 3, loc=1.3, scale=stats.sem(values))
    result = estimate(values)
    assert (result.mean, result.low, result.high, result.n) == pytest.approx((1.3, low, high, 4))
    assert str(result) == f"1.30 ({low:.2f} to {high:.2f}, 4 seeds)"


def test_two_seeds_have_no_interval():
    assert str(estimate([1.0, 2.0])) == "1.5 (2 seeds)"


def test_a_ratio_pairs_the_runs_by_seed_and_is_geometric():
    candidate = {(0, None): 2.0, (1, None): 8.0, (2, None): 3.0, (9, None): 100.0}
    baseline = {(0, None): 1.0, (1, None): 2.0, (2, None): 1.5, (3, None): 7.0}
    logs = [math.log(2), math.log(4), math.log(2)]
    result = ratio(candidate, baseline)
    assert result.n == 3
    assert result.mean == pytest.approx(math.exp(sum(logs) / 3))
    low, high = stats.t.interval(0.95, 2, loc=sum(logs) / 3, scale=stats.sem(logs))
    assert (result.low, result.high) == pytest.approx((math.exp(low), math.exp(high)))


def test_a_small_ratio_shows_two_digits():
    candidate = {(seed, None): value for seed, value in enumerate((1e-3, 2e-3, 1.0))}
    result = ratio(candidate, dict.fromkeys(candidate, 1.0))
    assert str(result) == f"0.013 ({result.low:.1e} to {result.high:.0f}, 3 seeds)"


@pytest.mark.parametrize(
    ("values", "claim", "ending"),
    [
        ([0.50, 0.51, 0.49], "smaller", ": smaller, as A & B (2000) report."),
        (
            [0.50, 0.51, 0.49],
            "greater",
            ": smaller. A & B (2000) report it greater; that does not show here.",
        ),
        (
            [0.5, 2.0, 1.1],
            "smaller",
            ": not decided. A & B (2000) report it smaller; that does not show here.",
        ),
        ([0.50, 0.51], "smaller", "; too few seeds to hold against A & B (2000), who report it smaller."),
        ([0.50, 0.51, 0.49], "", "times that with none."),
    ],
)
def test_a_sentence_says_whether_the_claim_shows(values, claim, ending):
    pair = (arm_of("batch", values), arm_of("none", [1.0] * 3, is_baseline=True))
    (sentence,) = compare_sentences("Width", value, pair, claim=claim, source="A & B (2000)")
    assert sentence.startswith("Width: with batch 0.") or sentence.startswith("Width: with batch 1.")
    assert sentence.endswith(ending)


def test_without_a_common_seed_there_is_no_sentence():
    pair = (arm_of("batch", [math.nan]), arm_of("none", [1.0], is_baseline=True))
    assert compare_sentences("Width", value, pair, claim="") == []


def test_arms_are_compared_with_the_baseline_of_their_block():
    none, batch = arm_of("none", [1.0], is_baseline=True), arm_of("batch", [1.0])
    assert comparisons([none, batch]) == [(batch, none)]


def test_a_curve_has_the_points_that_all_seeds_have():
    tables = [
        [{"step": step, "value": 10.0 * seed + step} for step in (1, 2, 3)[: 3 - seed]] for seed in (0, 1)
    ]
    curve = curve_over_seeds(
        arm("batch", tables), lambda table: {row["step"]: row["value"] for row in table.rows}
    )
    assert (curve.x, curve.mean, curve.low, curve.high) == ([1, 2], [6.0, 7.0], [1.0, 2.0], [11.0, 12.0])
