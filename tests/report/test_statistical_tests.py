"""The numbers of a verdict: by hand, against scipy.stats, and as error rates of simulated experiments."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from bnexp.report.analysis.statistical_tests import (
    chance_sd,
    correlation,
    correlation_interval,
    fisher_p,
    holm_adjust,
    low_outlier,
    mcnemar_p,
    mean_sd,
    paired_t_test,
    seeds_to_decide,
    sign_flip_min_n,
    sign_flip_p,
    upper_sd,
    welch_t_test,
    wilson_interval,
)

NAN = math.nan


def by_seed(values):
    return dict(enumerate(values))


def test_paired_interval_by_hand():
    """d = 1, 2, 3: mean 2, s 1, t(.975, 2) = 4.302653, half-width 4.302653 / sqrt(3) = 2.484138."""
    difference = paired_t_test({0: 11, 1: 22, 2: 33, 9: 5}, {0: 10, 1: 20, 2: 30, 8: 5})
    assert (difference.n, difference.mean, difference.sd) == (3, 2, 1)
    assert (difference.high - difference.low) / 2 == pytest.approx(2.484138, abs=1e-6)
    assert difference.p == pytest.approx(0.0741799, abs=1e-6)


def test_paired_t_test_against_scipy():
    rng = np.random.default_rng(3)
    for n in (2, 3, 5, 10, 40):
        candidate, baseline = rng.normal(0.2, 1, n), rng.normal(0, 1, n)
        difference = paired_t_test(by_seed(candidate), by_seed(baseline))
        expected = stats.ttest_rel(candidate, baseline)
        assert difference.p == pytest.approx(expected.pvalue, rel=1e-9)
        intervals = {0.95: (difference.low, difference.high), 0.9: (difference.low90, difference.high90)}
        for level, interval in intervals.items():
            assert interval == pytest.approx(tuple(expected.confidence_interval(level)), rel=1e-9)


def test_welch_t_test_against_scipy():
    rng = np.random.default_rng(4)
    for n, m in ((2, 3), (5, 5), (4, 11)):
        candidate, baseline = rng.normal(0, 1, n), rng.normal(0, 3, m)
        difference = welch_t_test(candidate, baseline)
        expected = stats.ttest_ind(candidate, baseline, equal_var=False)
        assert (difference.p, difference.df) == pytest.approx((expected.pvalue, expected.df), rel=1e-9)
        interval = tuple(expected.confidence_interval(0.95))
        assert (difference.low, difference.high) == pytest.approx(interval, rel=1e-9)
        assert difference.n == min(n, m)


def test_standardised_difference_of_pairs_divides_by_the_deviation_of_their_differences():
    """d = 1, 2, 3: mean 2, s 1."""
    assert paired_t_test(by_seed([11, 22, 33]), by_seed([10, 20, 30])).standardised == 2


def test_standardised_difference_of_unpaired_groups_divides_by_their_pooled_deviation():
    """s1 = 1, s2 = 7: sqrt((1 + 49) / 2) = 5, so a difference of 10 is 2 deviations."""
    difference = welch_t_test([29, 30, 31], [13, 20, 27])
    assert difference.mean == 10
    assert difference.standardised == pytest.approx(2)
    assert math.isnan(welch_t_test([30.0], [20.0, 21.0]).standardised)


def test_planning_deviation_of_unpaired_groups_gives_the_half_width_of_their_interval():
    """With n runs in each group the half-width is t(df) sd / sqrt(n)."""
    difference = welch_t_test([29, 30, 31], [13, 20, 27])
    assert difference.sd == pytest.approx(math.sqrt(1 + 49))
    half_width = stats.t.ppf(0.975, difference.df) * difference.sd / math.sqrt(3)
    assert (difference.high - difference.low) / 2 == pytest.approx(half_width)


@pytest.mark.parametrize(
    ("candidate", "n"),
    [({}, 0), ({0: 1.0}, 1), ({0: 2.0, 1: 3.0}, 2), ({0: 1.0, 1: NAN}, 1), ({0: 0.3 - 0.1, 1: 1.2}, 2)],
    ids=["none shared", "one pair", "no spread", "nan", "no spread but rounding"],
)
def test_no_interval_without_spread(candidate, n):
    difference = paired_t_test(candidate, {0: 1.0, 1: 2.0})
    assert difference.n == n
    assert math.isnan(difference.p)
    assert math.isnan(difference.low)
    assert math.isnan(difference.standardised)


def test_nan_and_infinity_are_left_out():
    difference = paired_t_test(by_seed([1.0, 2.0, NAN, math.inf]), by_seed([0.0] * 4))
    assert (difference.n, difference.mean) == (2, 1.5)
    assert welch_t_test([1.0, 2.0, NAN], [0.0, 1.0]).mean == 1.0
    assert sign_flip_p([1.0, NAN]) == 1.0


def test_mean_and_sample_deviation():
    assert mean_sd([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert math.isnan(mean_sd([1.0])[1])
    assert math.isnan(mean_sd([])[0])


@pytest.mark.parametrize("values", [[1, 2, 3, 4, 5, 6], [1, -2, 3, 4, 0.5, 6], [1, 1, 1, -1, 1, 1, 1]])
def test_sign_flips_against_scipy(values):
    expected = stats.permutation_test(
        (np.array(values, float),), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(values) == pytest.approx(expected.pvalue, abs=1e-12)


def test_sign_flips_of_many_differences_are_sampled():
    values = np.random.default_rng(0).normal(0.5, 1, 25)
    assert sign_flip_p(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=0.5)
    assert sign_flip_p([1.0] * 40) == pytest.approx(1 / 20_001)  # only the observed pattern


@pytest.mark.parametrize(("comparisons", "seeds"), [(1, 6), (2, 7), (3, 7), (4, 8), (6, 8)])
def test_seeds_the_sign_flips_need(comparisons, seeds):
    assert sign_flip_min_n(comparisons) == seeds
    assert 2 * comparisons / 2**seeds <= 0.05 < 2 * comparisons / 2 ** (seeds - 1)


def test_holm_by_hand():
    """m = 4: .01 x 4, .013 x 3, .03 x 2, .04 x 1, and never below an earlier one."""
    assert holm_adjust([0.03, 0.01, 0.04, 0.013]) == pytest.approx([0.06, 0.04, 0.06, 0.04])
    assert holm_adjust([0.5, 0.9]) == [1.0, 1.0]
    assert holm_adjust([]) == []


def test_holm_counts_a_comparison_without_p():
    adjusted = holm_adjust([0.01, NAN])
    assert adjusted[0] == 0.02
    assert math.isnan(adjusted[1])


@pytest.mark.parametrize(("k", "n"), [(0, 5), (1, 5), (3, 5), (5, 5), (7, 100)])
def test_wilson_interval_against_scipy(k, n):
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert wilson_interval(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_seeds_to_decide_by_hand():
    assert seeds_to_decide(1.0, 2.0, None) == pytest.approx(31.4)  # 7.85 x 4 / 1
    assert seeds_to_decide(0.0, 2.0, 1.0) == pytest.approx(24.72)  # 6.18 x 4 / 1
    assert seeds_to_decide(0.5, 2.0, 1.0) == pytest.approx(
        98.88
    )  # 6.18 x 4 / .25 is less than 7.85 x 4 / .25
    assert seeds_to_decide(0.0, 2.0, None) == math.inf


def test_seeds_to_decide_have_eighty_per_cent_power():
    rng = np.random.default_rng(3)
    n = math.ceil(seeds_to_decide(0.7, 1.0, None)) + 1  # the formula is that of a known deviation
    p = stats.ttest_1samp(rng.normal(0.7, 1.0, (4000, n)), 0, axis=1).pvalue
    assert (p <= 0.05).mean() == pytest.approx(0.80, abs=0.03)


@pytest.mark.parametrize(("b", "c"), [(5, 0), (0, 5), (4, 0), (5, 1), (3, 3), (0, 0), (12, 4)])
def test_mcnemar_against_scipy(b, c):
    """Mid-p: the exact p minus the probability of the observed table."""
    n = b + c
    expected = 1.0
    if b != c:
        expected = stats.binomtest(b, n).pvalue - stats.binom.pmf(b, n, 0.5)
    assert mcnemar_p(b, c) == pytest.approx(expected, abs=1e-12)
    assert mcnemar_p(5, 0) == pytest.approx(1 / 32)


@pytest.mark.parametrize("table", [(5, 5, 0, 5), (2, 5, 0, 5), (0, 3, 0, 9), (7, 20, 1, 10), (3, 3, 3, 3)])
def test_fisher_against_scipy(table):
    lost1, runs1, lost2, runs2 = table
    expected = stats.fisher_exact([[lost1, runs1 - lost1], [lost2, runs2 - lost2]]).pvalue
    assert fisher_p(*table) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n", "critical"), [(4, 1.499), (5, 1.780), (6, 2.011), (10, 2.606), (20, 3.230)])
def test_low_outlier_at_the_tabulated_limit(n, critical):
    """Upper 0.1 % points of (mean - min) / sd, one-sided (Grubbs and Beck 1972, table I)."""

    def values(x):
        return [*np.linspace(-1, 1, n - 1), -x]

    def distance(x):
        return (np.mean(values(x)) - min(values(x))) / np.std(values(x), ddof=1)

    def value_at(limit):
        return optimize.brentq(lambda x: distance(x) - limit, 1, 1e4)

    assert low_outlier(values(value_at(critical - 0.0012))) is None
    assert low_outlier(values(value_at(critical + 0.0008))) == n - 1


def test_low_outlier_needs_four_values_and_spread():
    assert low_outlier([1, 1, -100]) is None
    assert low_outlier([1, 1, 1, 1]) is None
    assert low_outlier([1.0, 1.1, 0.9, 1.0, 5.0]) is None  # far above


def test_outliers_are_called_at_the_stated_rate():
    rng = np.random.default_rng(5)
    rate = np.mean([low_outlier(list(row)) is not None for row in rng.normal(0, 1, (8000, 6))])
    assert rate == pytest.approx(0.001, abs=0.001)


def test_correlation_interval_by_hand():
    low, high = correlation_interval(0.5, 28)  # atanh .5 = .5493, 1.96 / 5 = .392
    assert (low, high) == (
        pytest.approx(math.tanh(0.1573), abs=1e-4),
        pytest.approx(math.tanh(0.9413), abs=1e-4),
    )
    assert correlation_interval(0.5, 3) == (-1.0, 1.0)


@pytest.mark.parametrize(("n", "factor"), [(3, 2.12), (5, 1.56), (10, 1.29)])
def test_upper_limit_of_a_deviation(n, factor):
    assert upper_sd(1.0, n - 1) == pytest.approx(factor, abs=0.005)


def test_chance_difference_of_two_runs():
    """1 % error on 10,000 images: sqrt(.02 / 20,000) = 0.1 points."""
    assert chance_sd(0.01, 0.01, 10_000) == pytest.approx(0.001)


def test_correlation_needs_three_pairs_and_spread():
    assert correlation([1, 2, 3], [2, 4, 6.0]) == pytest.approx(1)
    assert math.isnan(correlation([1, 1, 1], [1, 2, 3]))
    assert math.isnan(correlation([1, 2], [1, 2]))


def bootstrap_false_alarms(data, rng):
    """How often a 95 % percentile bootstrap interval of the mean excludes 0."""
    samples = rng.integers(0, data.shape[1], (1000, data.shape[1]))
    low, high = np.percentile(data[:, samples].mean(axis=2), [2.5, 97.5], axis=1)
    return ((low > 0) | (high < 0)).mean()


@pytest.mark.parametrize(("n", "bootstrap"), [(3, 0.25), (5, 0.17), (10, 0.095)])
def test_false_alarms_of_one_comparison(n, bootstrap):
    """Without a true difference: 5 of 100 by the paired t test, up to 25 by the (unused) bootstrap."""
    rng = np.random.default_rng(n)
    data = rng.normal(0, 1, (4000, n))
    differences = [paired_t_test(by_seed(row), dict.fromkeys(range(n), 0.0)) for row in data]
    assert np.mean([d.p <= 0.05 for d in differences]) == pytest.approx(0.05, abs=0.011)
    assert 0.93 <= np.mean([d.low <= 0 <= d.high for d in differences]) <= 0.97
    assert bootstrap_false_alarms(data[:1000], rng) == pytest.approx(bootstrap, abs=0.04)


def test_the_interval_covers_a_true_difference():
    """Twins share noise that cancels; 93 to 97 % of the intervals cover the true difference."""
    rng = np.random.default_rng(7)
    shared, a, b = rng.normal(0, 3, (2000, 5)), rng.normal(0.3, 1, (2000, 5)), rng.normal(0, 1, (2000, 5))
    differences = [
        paired_t_test(by_seed(s + x), by_seed(s + y)) for s, x, y in zip(shared, a, b, strict=True)
    ]
    assert 0.93 <= np.mean([d.low <= 0.3 <= d.high for d in differences]) <= 0.97


def test_holm_keeps_the_family_error_rate():
    """Four groups that equal the baseline: at most 6 of 100 experiments have a false alarm."""
    rng = np.random.default_rng(11)
    false_alarms = 0
    for _ in range(1500):
        baseline, *groups = (by_seed(rng.normal(0, 1, 5)) for _ in range(5))
        false_alarms += min(holm_adjust([paired_t_test(group, baseline).p for group in groups])) <= 0.05
    assert false_alarms / 1500 <= 0.06
