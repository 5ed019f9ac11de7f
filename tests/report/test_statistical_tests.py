"""The numbers of a verdict, by hand, against scipy.stats, and as error rates over simulated experiments."""

import math

import numpy as np
import pytest
from scipy import stats

from bnexp.report.analysis import statistical_tests as st

NAN = math.nan


def twins(values):
    return dict(enumerate(values))


def test_paired_interval_by_hand():
    """d = 1, 2, 3: mean 2, s 1, t(.975, 2) = 4.302653, half-width 4.302653 / sqrt(3) = 2.484138."""
    found = st.paired({0: 11, 1: 22, 2: 33, 9: 5}, {0: 10, 1: 20, 2: 30, 8: 5})
    assert (found.n, found.mean, found.sd) == (3, 2, 1)
    assert found.half_width == pytest.approx(2.484138, abs=1e-6)
    assert found.p == pytest.approx(0.0741799, abs=1e-6)


def test_paired_against_scipy():
    rng = np.random.default_rng(3)
    for n in (2, 3, 5, 10, 40):
        ours, theirs = rng.normal(0.2, 1, n), rng.normal(0, 1, n)
        found, wanted = st.paired(twins(ours), twins(theirs)), stats.ttest_rel(ours, theirs)
        assert found.p == pytest.approx(wanted.pvalue, rel=1e-9)
        for level, low, high in ((0.95, found.low, found.high), (0.9, found.low90, found.high90)):
            assert (low, high) == pytest.approx(tuple(wanted.confidence_interval(level)), rel=1e-9)


def test_welch_against_scipy():
    rng = np.random.default_rng(4)
    for n, m in ((2, 3), (5, 5), (4, 11)):
        ours, theirs = rng.normal(0, 1, n), rng.normal(0, 3, m)
        found, wanted = st.welch(ours, theirs), stats.ttest_ind(ours, theirs, equal_var=False)
        assert (found.p, found.df) == pytest.approx((wanted.pvalue, wanted.df), rel=1e-9)
        assert (found.low, found.high) == pytest.approx(tuple(wanted.confidence_interval(0.95)), rel=1e-9)
        assert found.n == min(n, m)


@pytest.mark.parametrize(
    ("ours", "n"),
    [({}, 0), ({0: 1.0}, 1), ({0: 2.0, 1: 3.0}, 2), ({0: 1.0, 1: NAN}, 1), ({0: 0.3 - 0.1, 1: 1.2}, 2)],
    ids=["none shared", "one", "no spread", "nan", "no spread but rounding"],
)
def test_no_interval_without_spread(ours, n):
    found = st.paired(ours, {0: 1.0, 1: 2.0})
    assert found.n == n
    assert math.isnan(found.p)
    assert math.isnan(found.low)


def test_nan_and_infinity_are_left_out():
    found = st.paired({0: 1.0, 1: 2.0, 2: NAN, 3: math.inf}, {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0})
    assert (found.n, found.mean) == (2, 1.5)
    assert st.welch([1.0, 2.0, NAN], [0.0, 1.0]).mean == 1.0
    assert st.sign_flip([1.0, NAN]) == 1.0


def test_mean_and_sample_deviation():
    assert st.mean_sd([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert math.isnan(st.mean_sd([1.0])[1])
    assert math.isnan(st.mean_sd([])[0])


@pytest.mark.parametrize("values", [[1, 2, 3, 4, 5, 6], [1, -2, 3, 4, 0.5, 6], [1, 1, 1, -1, 1, 1, 1]])
def test_sign_flips_against_scipy(values):
    wanted = stats.permutation_test(
        (np.array(values, float),), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert st.sign_flip(values) == pytest.approx(wanted.pvalue, abs=1e-12)


def test_sign_flips_of_many_differences_are_sampled():
    values = np.random.default_rng(0).normal(0.5, 1, 25)
    assert st.sign_flip(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=0.5)
    assert st.sign_flip([1.0] * 40) == pytest.approx(1 / 20_001)  # none of the sample but the data's own


@pytest.mark.parametrize(("comparisons", "seeds"), [(1, 6), (2, 7), (3, 7), (4, 8), (6, 8)])
def test_seeds_the_sign_flips_need(comparisons, seeds):
    assert st.sign_flip_needs(comparisons) == seeds
    assert 2 * comparisons / 2**seeds <= 0.05 < 2 * comparisons / 2 ** (seeds - 1)


def test_holm_by_hand():
    """m = 4: .01 x 4, .013 x 3, .03 x 2, .04 x 1, then never falling."""
    assert st.holm([0.03, 0.01, 0.04, 0.013]) == pytest.approx([0.06, 0.04, 0.06, 0.04])
    assert st.holm([0.5, 0.9]) == [1.0, 1.0]
    assert st.holm([]) == []


def test_holm_counts_a_comparison_without_p():
    adjusted = st.holm([0.01, NAN])
    assert adjusted[0] == 0.02
    assert math.isnan(adjusted[1])


@pytest.mark.parametrize(("k", "n"), [(0, 5), (1, 5), (3, 5), (5, 5), (7, 100)])
def test_wilson_against_scipy(k, n):
    wanted = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert st.wilson(k, n) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@pytest.mark.parametrize(
    ("width", "n"), [(1.25, 5), (1.0, 7), (0.75, 10), (0.5, 18), (0.4, 27), (0.3, 46), (1e-6, None)]
)
def test_seeds_for_a_half_width(width, n):
    assert st.seeds_for(width, 1.0) == n


@pytest.mark.parametrize(("n", "factor"), [(3, 2.12), (5, 1.56), (10, 1.29)])
def test_upper_deviation(n, factor):
    assert st.upper_sd(1.0, n - 1) == pytest.approx(factor, abs=0.005)


def test_chance_of_two_runs():
    """1 % error on 10,000 images: sqrt(.02 / 20,000) = 0.1 points."""
    assert st.chance_sd(0.01, 0.01, 10_000) == pytest.approx(0.001)


def test_correlation():
    assert st.correlation([1, 2, 3], [2, 4, 6.0]) == pytest.approx(1)
    assert math.isnan(st.correlation([1, 1, 1], [1, 2, 3]))
    assert math.isnan(st.correlation([1, 2], [1, 2]))


def bootstrap_p_below(data, rng):
    """How often a 95 % percentile bootstrap interval of the mean leaves 0 out."""
    picks = rng.integers(0, data.shape[1], (1000, data.shape[1]))
    low, high = np.percentile(data[:, picks].mean(axis=2), [2.5, 97.5], axis=1)
    return ((low > 0) | (high < 0)).mean()


@pytest.mark.parametrize(("n", "bootstrap"), [(3, 0.25), (5, 0.17), (10, 0.095)])
def test_false_alarms_of_one_comparison(n, bootstrap):
    """No true difference: the paired t test calls 5 of 100, the bootstrap, not used here, up to 25."""
    rng = np.random.default_rng(n)
    data = rng.normal(0, 1, (4000, n))
    found = [st.paired(twins(row), dict.fromkeys(range(n), 0.0)) for row in data]
    assert np.mean([one.p <= 0.05 for one in found]) == pytest.approx(0.05, abs=0.011)
    assert 0.93 <= np.mean([one.low <= 0 <= one.high for one in found]) <= 0.97
    assert bootstrap_p_below(data[:1000], rng) == pytest.approx(bootstrap, abs=0.04)


def test_the_interval_covers_a_true_difference():
    """Real twins: a shared part of each seed cancels, and 93 to 97 % of the intervals hold the truth."""
    rng = np.random.default_rng(7)
    shared, a, b = rng.normal(0, 3, (2000, 5)), rng.normal(0.3, 1, (2000, 5)), rng.normal(0, 1, (2000, 5))
    found = [st.paired(twins(s + x), twins(s + y)) for s, x, y in zip(shared, a, b, strict=True)]
    assert 0.93 <= np.mean([one.low <= 0.3 <= one.high for one in found]) <= 0.97


def test_holm_holds_the_family():
    """Four groups that are all like the baseline: at least one is called in at most 6 of 100 experiments."""
    rng = np.random.default_rng(11)
    wrong = 0
    for _ in range(1500):
        baseline, *others = (twins(rng.normal(0, 1, 5)) for _ in range(5))
        wrong += min(st.holm([st.paired(other, baseline).p for other in others])) <= 0.05
    assert wrong / 1500 <= 0.06
