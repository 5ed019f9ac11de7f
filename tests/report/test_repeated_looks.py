"""Tests for repeated looks: the boundary, the formulas, and rates of error in simulated studies."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from bnexp.report.analysis.repeated_looks import (
    DEFAULT_LOOKS,
    DEFAULT_PROBABILITIES,
    GRID,
    AnyLooks,
    PlannedLooks,
    SingleLook,
    anytime_half_width,
    anytime_log_e,
    anytime_p,
    simulate_smallest_p,
    smallest_p_distribution,
    stability_p_at_any_look,
)
from bnexp.report.analysis.statistical_tests import holm_adjust
from bnexp.report.analysis.sweep_verdict import look_at
from bnexp.report.read.design import Design
from helpers.run_folders import write_run
from helpers.simulated_verdicts import CLAIMS

DELTA = 0.5


def pairs(values):
    return {(seed, None): float(value) for seed, value in enumerate(values)}


def zeros(values):
    return pairs(np.zeros(len(values)))


def test_the_table_is_that_of_simulated_studies():
    shares = np.array(simulate_smallest_p(DEFAULT_LOOKS, 100_000, seed=3))
    errors = np.sqrt(shares * (1 - shares) / 100_000)
    assert (np.abs(shares - DEFAULT_PROBABILITIES) <= 4 * errors + 1e-5).all()
    assert len(GRID) == len(DEFAULT_PROBABILITIES)


@pytest.mark.parametrize(
    ("looks", "alpha", "boundary"),
    [
        (DEFAULT_LOOKS, 0.05, 0.0150),
        (DEFAULT_LOOKS, 0.10, 0.0319),
        ((5, 10, 20, 40, 80), 0.05, 0.0124),
        ((5, 10, 20, 40, 80), 0.10, 0.0264),
    ],
)
def test_boundaries(looks, alpha, boundary):
    """The values of 200,000 simulated studies elsewhere; their standard error is about 1 %."""
    assert smallest_p_distribution(looks).quantile(alpha) == pytest.approx(boundary, rel=0.02)


def test_the_distribution_never_falls_and_is_never_below_its_argument():
    distribution = smallest_p_distribution(DEFAULT_LOOKS)
    values = [distribution.probability(x) for x in np.geomspace(1e-6, 1, 200)]
    assert values == sorted(values)
    assert all(f >= x for f, x in zip(values, np.geomspace(1e-6, 1, 200), strict=True))
    assert values[-1] == 1


def test_p_and_interval_decide_alike():
    """At a single look that is the first, p is .05 where the interval ends at 0."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        values = rng.normal(1.5, 1, 5)
        difference = PlannedLooks(DEFAULT_LOOKS, 5).difference(pairs(values), zeros(values), DELTA)
        assert (difference.p <= 0.05) == (difference.low > 0 or difference.high < 0)
        is_within = difference.low90 > -DELTA and difference.high90 < DELTA
        assert (difference.p_equivalent <= 0.05) == is_within


def test_an_earlier_look_counts_and_later_seeds_wait_for_their_look():
    values = [3.0, 3.1, 2.9, 3.2, 3.0, *[0.0] * 7]
    first = PlannedLooks(DEFAULT_LOOKS, 5).difference(pairs(values), zeros(values), None)
    second = PlannedLooks(DEFAULT_LOOKS, 10).difference(pairs(values), zeros(values), None)
    assert (first.n, second.n) == (5, 10)
    assert second.p == first.p < 0.05
    assert math.isnan(second.p_equivalent)


def test_one_look_is_the_plain_t_test():
    values = np.random.default_rng(1).normal(0.4, 1, 10)
    plain = SingleLook().difference(pairs(values), zeros(values), DELTA)
    planned = PlannedLooks((10,), 10).difference(pairs(values), zeros(values), DELTA)
    assert planned.p == pytest.approx(plain.p, rel=0.02)
    assert planned.low == pytest.approx(plain.low, abs=0.02)
    assert plain.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    shifted = [
        stats.ttest_1samp(values, b, alternative=a).pvalue for b, a in ((DELTA, "less"), (-DELTA, "greater"))
    ]
    assert plain.p_equivalent == pytest.approx(max(shifted))


def test_anytime_e_of_a_published_check():
    assert math.exp(anytime_log_e(4, 10)) == pytest.approx(23.6, abs=0.05)


def test_anytime_e_is_the_ratio_of_two_integrals():
    """Scale-invariant likelihood of t under a normal prior N(0, g) of the effect, against no effect."""
    n, t = 6, 2.7

    def density(effect):
        return stats.nct.pdf(t, n - 1, effect * math.sqrt(n)) * stats.norm.pdf(effect)

    mixture = integrate.quad(density, -8, 8)[0]
    assert math.exp(anytime_log_e(t, n)) == pytest.approx(mixture / stats.t.pdf(t, n - 1), rel=1e-6)


@pytest.mark.parametrize(("n", "multiplier"), [(5, 8.45), (7, 4.64), (10, 3.87), (20, 3.42), (40, 3.32)])
def test_anytime_interval(n, multiplier):
    half = anytime_half_width(n, 1.0, 0.05)
    assert half * math.sqrt(n) == pytest.approx(multiplier, abs=0.006)
    assert math.exp(-anytime_log_e(half * math.sqrt(n), n)) == pytest.approx(0.05)
    assert anytime_half_width(2, 1.0, 0.05) == math.inf


def test_discordant_twins():
    seeds = [(seed, None) for seed in range(10)]
    assert 1 / stability_p_at_any_look(seeds[:7], []) == pytest.approx(26.8, abs=0.05)
    assert 1 / stability_p_at_any_look([], seeds[:6]) == pytest.approx(14.4, abs=0.05)
    # A decision that was reached stays: the largest e counts.
    assert stability_p_at_any_look(seeds[:7], seeds[7:]) == stability_p_at_any_look(seeds[:7], [])
    assert stability_p_at_any_look([], []) == 1


STUDIES = 4000  # the standard error of a rate of .05 is .0035


def studies(mean, n=40, seed=0, count=STUDIES):
    return np.random.default_rng(seed).normal(mean, 1, (count, n))


def stop(values, looks=DEFAULT_LOOKS, delta=None):
    """The difference at the look at which a study stops, as the sweep runs it."""
    for look in looks:
        difference = PlannedLooks(looks, look).difference(pairs(values[:look]), zeros(values[:look]), delta)
        if difference.p <= 0.05 or difference.p_equivalent <= 0.05:
            break
    return difference


def test_false_alarms_and_coverage_of_planned_looks():
    stops = [stop(values) for values in studies(0)]
    assert np.mean([d.p <= 0.05 for d in stops]) <= 0.05 + 2 * 0.0035
    assert np.mean([d.low <= 0 <= d.high for d in stops]) >= 0.95 - 2 * 0.0035


def test_coverage_at_the_stop_with_a_difference():
    stops = [stop(values) for values in studies(0.7, seed=1)]
    assert np.mean([d.low <= 0.7 <= d.high for d in stops]) >= 0.95 - 2 * 0.0035


def test_false_equivalence_of_planned_looks():
    stops = [stop(values, delta=DELTA) for values in studies(DELTA, seed=2)]
    assert np.mean([d.p_equivalent <= 0.05 for d in stops]) <= 0.05 + 2 * 0.0035


@pytest.mark.parametrize(
    ("mean", "power", "seeds"),
    [(0, 0.05, 38.9), (0.5, 0.76, 30.2), (0.7, 0.97, 22.4), (1, 1, 13.9), (2, 1, 6.8)],
)
def test_power_and_mean_number_of_seeds(mean, power, seeds):
    stops = [stop(values) for values in studies(mean, seed=3, count=1500)]
    assert np.mean([d.p <= 0.05 for d in stops]) == pytest.approx(power, abs=0.035)
    assert np.mean([d.n for d in stops]) == pytest.approx(seeds, abs=1.0)


def test_futility_costs_little_power():
    """A study with a mean of half a standard deviation is rarely given up: at most 2 % of the studies."""

    def is_given_up(values):
        for look in DEFAULT_LOOKS[:-1]:
            test = PlannedLooks(DEFAULT_LOOKS, look)
            difference = test.difference(pairs(values[:look]), zeros(values[:look]), None)
            if difference.p <= 0.05:
                return False
            if test.is_futile(difference, None):
                return stop(values).p <= 0.05  # it would have been decided
        return False

    given_up = np.mean([is_given_up(values) for values in studies(0.5, seed=4, count=1500)])
    assert given_up <= 0.02
    without_difference = studies(0, seed=5, count=300)
    futile = [
        PlannedLooks(DEFAULT_LOOKS, 20).is_futile(
            SingleLook().difference(pairs(v[:20]), zeros(v[:20]), None), None
        )
        for v in without_difference
    ]
    assert np.mean(futile) > 0.2  # it saves seeds


def test_false_alarms_at_any_look():
    """Whoever looks after every seed from 3 to 40 is wrong in at most .05 of the studies."""
    alarms = [anytime_p(values) <= 0.05 for values in studies(0, seed=6, count=2000).tolist()]
    assert np.mean(alarms) <= 0.05
    difference = AnyLooks().difference(pairs(studies(0)[0]), zeros(studies(0)[0]), DELTA)
    assert difference.method == "anytime-valid paired t"


def arms_stopped(arms, looks=DEFAULT_LOOKS):
    """The outcome of each arm against the baseline, the last row, as a sweep with seed=auto runs the study.

    Holm adjusts over all arms at each look. An arm that is decided gets no more seeds.
    """
    claims = [""] * (len(arms) - 1)
    seeds = [0] * len(claims)
    for look in looks:
        seeds = [n if claim else look for n, claim in zip(seeds, claims, strict=True)]
        test = PlannedLooks(looks, look)
        differences = [
            test.difference(pairs(arm[:n]), pairs(arms[-1][:look]), None)
            for arm, n in zip(arms[:-1], seeds, strict=True)
        ]
        adjusted = holm_adjust([d.p for d in differences])
        claims = [
            claim or ("" if p > 0.05 else "better" if d.mean > 0 else "worse")
            for claim, p, d in zip(claims, adjusted, differences, strict=True)
        ]
        if all(claims):
            break
    return claims


def test_false_alarms_over_three_arms():
    """No arm differs from the baseline: some claim is made in at most .05 of 1,500 studies (error .0056)."""
    values = np.random.default_rng(8).normal(0, 1, (1500, 4, 40))
    assert np.mean([any(arms_stopped(arms)) for arms in values]) <= 0.05 + 2 * 0.0056


def test_the_arrays_agree_with_the_users_own_path(tmp_path):
    """Whole studies over run folders: the same arms go on, and the same claims are made at the end."""
    rng = np.random.default_rng(9)
    looks, names = (5, 10, 20), ("layer", "batch", "none")
    claims = []
    for number in range(6):
        arms = 97 + 0.5 * rng.normal(0, 1, (3, looks[-1])) + [[0.4 * number], [0.0], [0.0]]
        root, design = tmp_path / str(number), Design(looks, names)
        trained, going = dict.fromkeys(names, 0), set(names)
        for look in looks:
            for norm in going:
                for seed in range(trained[norm], look):
                    accuracy = arms[names.index(norm)][seed] / 100
                    write_run(root, accuracy, best=accuracy, model_norm=norm, seed=seed, dataset_delta=0.001)
                trained[norm] = look
            verdict, comparisons = look_at([root], design, look)
            going = {s.group.value for c in comparisons for s in (c.candidate, c.baseline)}
            if not going:
                break
        outcomes = {c.candidate.group.value: c.outcome for c in verdict.comparisons}
        claims.append([outcomes[name] if outcomes[name] in CLAIMS else "" for name in names[:-1]])
        assert claims[-1] == arms_stopped(arms, looks)
    assert ["", ""] in claims
    assert any("better" in claim for claim in claims)
