"""How often a verdict is wrong, in simulated experiments. Each rate has its standard error beside it."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from bnexp.report.analysis.statistical_tests import fisher_p, mcnemar_p
from helpers.simulated_verdicts import CLAIMS, paired_outcomes, simulated_verdict

EXPERIMENTS = 20_000
# Standard error of a rate of .05 in 20,000 experiments: sqrt(.05 x .95 / 20,000) = .0015.
LEVEL = 0.05 + 3 * math.sqrt(0.05 * 0.95 / EXPERIMENTS)
SIZES = (3, 5, 10, 20)
MEAN, SD = 97.0, 0.5


def normal(rng, n):
    return rng.normal(MEAN, SD, (2, EXPERIMENTS, n))


def correlated(rng, n):
    shared = rng.normal(0, SD * math.sqrt(0.6), (EXPERIMENTS, n))
    return shared + rng.normal(MEAN, SD * math.sqrt(0.4), (2, EXPERIMENTS, n))


def unequal(rng, n):
    return np.stack([rng.normal(MEAN, 0.15, (EXPERIMENTS, n)), rng.normal(MEAN, 1.0, (EXPERIMENTS, n))])


def skewed(rng, n):
    """One arm has a long tail of bad runs; both have the mean accuracy MEAN."""
    tail = MEAN + SD - rng.exponential(SD, (EXPERIMENTS, n))
    return np.stack([rng.normal(MEAN, 0.1, (EXPERIMENTS, n)), tail])


def outliers(rng, n):
    """A tenth of the runs of both arms is about 3 points worse."""
    bad = rng.random((2, EXPERIMENTS, n)) < 0.1
    return rng.normal(MEAN, 0.2, (2, EXPERIMENTS, n)) - 3 * bad


NOISES = (normal, correlated, unequal, skewed, outliers)


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.__name__)
def test_the_arrays_agree_with_the_users_own_path(noise):
    rng = np.random.default_rng(17)
    outcomes = []
    for n in SIZES:
        candidate, baseline = noise(rng, n)[:, :25]
        candidate[:12] += rng.normal(0, 1, (12, 1))  # also experiments with a difference
        candidate[20:23] = baseline[20:23] + rng.normal(0, 0.04, (3, n))
        arrays = list(paired_outcomes(candidate, baseline))
        verdicts = [simulated_verdict(a, b) for a, b in zip(candidate, baseline, strict=True)]
        assert arrays == [verdict.comparisons[0].outcome for verdict in verdicts]
        outcomes += arrays
    assert {"better", "worse", "undecided"} <= set(outcomes)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("noise", [normal, correlated, unequal], ids=lambda noise: noise.__name__)
def test_false_beats_where_the_t_test_holds(noise, n):
    outcomes = paired_outcomes(*noise(np.random.default_rng(n), n), delta=0.0)
    assert np.isin(outcomes, CLAIMS).mean() <= LEVEL


@pytest.mark.parametrize("n", SIZES)
def test_false_beats_with_outliers(n):
    """Rare bad runs in both arms: the paired t test stays below its level."""
    outcomes = paired_outcomes(*outliers(np.random.default_rng(n), n), delta=0.0)
    assert np.isin(outcomes, CLAIMS).mean() <= LEVEL


@pytest.mark.parametrize(("n", "without_guard"), [(5, 0.11), (10, 0.09), (20, 0.075)])
def test_false_beats_with_a_skewed_arm(n, without_guard):
    """A long tail in one arm alone raises the t test's rate (to ``without_guard``). A run far below its
    group turns "beats" into "leans to"; where no bad run was drawn, the epochs must show the risk.
    """
    candidate, baseline = skewed(np.random.default_rng(n), n)
    differences = candidate - baseline
    t = differences.mean(1) / differences.std(1, ddof=1) * math.sqrt(n)
    plain_rate = (2 * stats.t.sf(np.abs(t), n - 1) <= 0.05).mean()
    assert plain_rate == pytest.approx(without_guard, abs=0.015)
    outcomes = paired_outcomes(candidate, baseline, delta=0.0)
    assert np.isin(outcomes, CLAIMS).mean() <= plain_rate
    leaning = (outcomes == "leaning").mean()
    assert leaning > 0 if n < 20 else leaning == 0


@pytest.mark.parametrize("n", [5, 10])
def test_bad_epochs_of_one_arm_make_a_verdict_lean(n):
    """One arm loses 3 points in a tenth of its epochs. Both have the same mean at the final epoch.

    Where no bad epoch is a final one, a t test calls this arm better. Its earlier epochs show the risk.
    2,000 experiments by the user's own path; standard error of .05: .005.
    """
    rng = np.random.default_rng(n)
    plain_alarms = alarms = 0
    for _ in range(2000):
        curves = rng.normal(MEAN, 0.2, (2, n, 12))
        curves[0] += 0.3 - 3 * (rng.random((n, 12)) < 0.1)
        verdict = simulated_verdict(*curves[:, :, -1], curves=curves)
        (c,) = verdict.comparisons
        plain_alarms += c.p_adjusted <= 0.05
        alarms += c.outcome in CLAIMS
    assert plain_alarms / 2000 > 0.09
    assert alarms / 2000 <= 0.05 + 2 * 0.005


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("noise", [normal, correlated], ids=lambda noise: noise.__name__)
def test_false_equivalence(noise, n):
    """The true difference is delta: "no difference that matters" is wrong then."""
    rng, delta = np.random.default_rng(n), 0.3
    candidate, baseline = noise(rng, n)
    outcomes = paired_outcomes(candidate + delta, baseline, delta)
    assert np.isin(outcomes, ("equivalent", "small")).mean() <= LEVEL


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2, 0.3, 0.4])
def test_false_fewer_runs_lost_of_twins(rate, n):
    """Exact: the sum over all numbers of twins that lost only one run. Twins may share their fate."""
    for shared in (0.0, 0.5):  # the part of the losses that hits both twins
        only_one = (rate - shared * rate) * (1 - rate if not shared else 1.0)
        false_rate = sum(
            _multinomial(n, b, c, only_one) for b, c in product(range(n + 1), repeat=2)
            if b + c <= n and mcnemar_p(b, c) <= 0.05
        )  # fmt: skip
        assert false_rate <= 0.05


def _multinomial(n, b, c, only_one):
    """The probability of b and c pairs that lost only the first, or only the second run."""
    rest = n - b - c
    arrangements = math.factorial(n) // (math.factorial(b) * math.factorial(c) * math.factorial(rest))
    return arrangements * only_one ** (b + c) * (1 - 2 * only_one) ** rest


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2, 0.3, 0.4])
def test_false_fewer_runs_lost_of_unpaired_runs(rate, n):
    def binomial(k):
        return math.comb(n, k) * rate**k * (1 - rate) ** (n - k)

    false_rate = sum(
        binomial(a) * binomial(b) for a, b in product(range(n + 1), repeat=2) if fisher_p(a, n, b, n) <= 0.05
    )
    assert false_rate <= 0.05


def test_false_alarms_of_the_whole_verdict_with_lost_runs():
    """Runs are lost at a rate of .2 in both groups: one of the two tests is wrong in at most .05.

    400 experiments by the user's own path; standard error of .05: .011.
    """
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(400):
        candidate, baseline = (
            [None if rng.random() < 0.2 else rng.normal(MEAN, SD) for _ in range(8)] for _ in range(2)
        )
        (comparison,) = simulated_verdict(candidate, baseline).comparisons
        alarms += comparison.differs_in_stability or comparison.outcome in CLAIMS
    assert alarms / 400 <= 0.05 + 2 * 0.011
