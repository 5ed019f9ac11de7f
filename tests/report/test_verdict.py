"""How a comparison is decided: outcomes, adjusted p, noise of the test set, differences of interest."""

import json
import math

import numpy as np
import pytest

from bnexp.errors import UserError
from bnexp.report.analysis.group_comparison import judge
from bnexp.report.analysis.statistical_tests import Difference, paired_t_test
from bnexp.report.analysis.verdict import compare
from bnexp.report.content.question import headline
from bnexp.report.content.sentences import all_sentences
from bnexp.report.read.runs import read_runs
from helpers.run_folders import NONE, compare_groups, shifted, write_run, write_sweep

EQUIVALENT = {"none": NONE, "batch": shifted(0.01, -0.02, 0.0, 0.02, -0.01)}


def test_delta_is_the_one_in_the_runs_configurations(tmp_path):
    shipped = compare_groups(tmp_path / "old", EQUIVALENT)  # these configurations have no delta
    assert shipped.comparisons[0].delta == 0.1
    write_sweep(tmp_path / "own", EQUIVALENT, dataset_delta=0.005)
    (group_comparison,) = compare(*read_runs([tmp_path / "own"])).comparisons
    assert (group_comparison.delta, group_comparison.outcome) == (0.005, "undecided")
    assert compare(*read_runs([tmp_path / "own"]), delta=0.4).comparisons[0].outcome == "equivalent"
    assert compare(*read_runs([tmp_path / "own"]), metric="test/loss").comparisons[0].delta is None
    write_sweep(tmp_path / "null", EQUIVALENT, dataset_delta=None)
    assert compare(*read_runs([tmp_path / "null"])).comparisons[0].delta is None


def test_runs_that_disagree_on_delta_are_noted(tmp_path):
    write_sweep(tmp_path, {"none": NONE}, dataset_delta=0.5)
    write_sweep(tmp_path, {"batch": shifted(1, 1.1, 1, 0.9, 1)}, dataset_delta=0.2)
    verdict = compare(*read_runs([tmp_path]))
    assert verdict.comparisons[0].delta == 0.2
    assert "runs disagree on dataset.delta (0.2, 0.5): the least is used" in verdict.notes
    assert not any("delta" in note for note in compare(*read_runs([tmp_path]), delta=0.3).notes)


def test_a_small_spread_by_luck_does_not_beat_the_noise_of_the_test_set(tmp_path):
    """97 % on 10,000 images: two runs differ by 1.96 sqrt(.06 / 20,000) = .34 by chance, three by .19."""
    groups = {"none": [97.0, 97.0001, 97.0], "batch": [97.1, 97.1001, 97.1003]}  # r of the twins is 0
    verdict = compare_groups(tmp_path, groups)
    (group_comparison,) = verdict.comparisons
    assert group_comparison.correlation == pytest.approx(0, abs=0.2)
    assert group_comparison.p_adjusted < 0.001
    assert group_comparison.noise_floor == pytest.approx(
        0.196 * math.sqrt(1 - group_comparison.correlation), abs=0.003
    )
    assert group_comparison.outcome == "undecided"
    assert "points that chance gives" in all_sentences(verdict)[0]


def test_the_noise_floor_is_lower_for_twins_that_correlate_and_none_from_five_on(tmp_path):
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.3, 5)
    none, batch = (97 + shared + rng.normal(0, 0.05, 5) for _ in range(2))
    (three,) = compare_groups(tmp_path / "3", {"none": none[:3], "batch": batch[:3]}).comparisons
    shrinkage = math.sqrt(1 - three.correlation)
    assert shrinkage < 0.5
    assert three.noise_floor == pytest.approx(three.single_run_noise * shrinkage / math.sqrt(3))
    (five,) = compare_groups(tmp_path / "5", {"none": none, "batch": batch + 0.15}).comparisons
    assert math.isnan(five.noise_floor)
    assert five.single_run_noise / math.sqrt(5) > abs(five.difference.mean)
    assert five.outcome == "better"


def test_unequal_groups_are_compared_on_their_common_seeds(tmp_path):
    (group_comparison,) = compare_groups(
        tmp_path, {"none": NONE, "batch": shifted(1.0, 1.1, 0.9)}
    ).comparisons
    assert (group_comparison.difference.n, group_comparison.incomplete_pairs) == (3, ((3, None), (4, None)))


def test_holm_covers_all_groups(tmp_path):
    groups = {"none": NONE, "batch": shifted(1, 1.1, 1, 0.9, 1), "layer": shifted(0, 0.1, -0.1, 0.2, 0)}
    verdict = compare_groups(tmp_path, groups)
    assert verdict.family == 2
    batch, layer = verdict.comparisons
    assert batch.p_adjusted == pytest.approx(2 * batch.difference.p)
    assert layer.p_adjusted == pytest.approx(layer.difference.p)


def test_a_lower_loss_is_better(tmp_path):
    groups = {"none": NONE, "batch": shifted(1.0, 1.1, 1.05, 0.9, 0.95)}
    verdict = compare_groups(tmp_path, groups, metric="test/loss")
    (group_comparison,) = verdict.comparisons
    assert (group_comparison.outcome, group_comparison.delta, group_comparison.wins) == ("better", None, 5)
    assert all_sentences(verdict)[0].startswith(
        "batch beats none by 0.0100 (0.0090 to 0.0110), ahead in 5 of 5"
    )
    assert headline(verdict).endswith(
        "Yes: -0.0100 (-0.0110 to -0.0090), 5 seeds; model.norm=none was still learning."
    )
    few = compare_groups(
        tmp_path / "few", {name: values[:3] for name, values in groups.items()}, metric="test/loss"
    )
    assert "noise of the test set is not known" in few.notes[0]


def test_different_cpu_threads_in_a_block_are_noted(tmp_path):
    for norm, threads in (("none", 2), ("batch", 1)):
        for seed in range(2):
            run = write_run(tmp_path, 0.97, seed=seed, model_norm=norm)
            (run / "environment.json").write_text(json.dumps({"threads": threads}))
    assert compare(*read_runs([tmp_path])).notes == (
        "runs differ in CPU threads (none 2; batch 1): their times are not comparable, "
        "and the last bits may differ",
    )


def test_time_to_target_counts_the_runs_that_never_reach_it(tmp_path):
    groups = {"none": [97, 97, 96], "batch": [98, 98.5, 98]}
    none, batch = (s.target for s in compare_groups(tmp_path, groups, target=0.97).summaries)
    assert (none.count, none.runs, none.epochs) == (2, 3, 3)
    assert none.seconds == 180.0  # 3 epochs of 60,000 images at 1,000 a second
    assert (batch.count, batch.epochs) == (3, 2)
    never = compare_groups(tmp_path / "b", {"none": [97], "batch": [98]}, target=0.99).summaries[0].target
    assert (never.count, never.epochs) == (0, math.inf)


def test_an_unknown_metric_is_rejected(tmp_path):
    with pytest.raises(
        UserError, match=r"--metric=test/acuracy: must be one of .*did you mean test/accuracy"
    ):
        compare_groups(tmp_path, {"none": [97]}, metric="test/acuracy")


def test_false_alarms_at_three_seeds_with_the_noise_floor():
    """Equal groups, each run with the noise of its test set: .049 by the t test, .013 with the floor."""
    rng = np.random.default_rng(1)
    alarms = {0.0: 0, 1.96 / math.sqrt(3): 0}
    draws = 4000
    for row in rng.normal(0, 1, (draws, 3)):
        difference = paired_t_test(dict(enumerate(row)), dict.fromkeys(range(3), 0.0))
        for floor in alarms:
            alarms[floor] += judge(difference, difference.p, floor, math.nan) in ("better", "worse")
    without_floor, with_floor = (count / draws for count in alarms.values())
    assert without_floor == pytest.approx(0.049, abs=0.01)
    assert with_floor == pytest.approx(0.013, abs=0.006)


def test_a_difference_without_p_is_never_better_or_worse():
    assert judge(Difference("paired t", 5, 0.5), math.nan, 0.1, math.nan) == "constant"
    assert judge(Difference("paired t", 0, math.nan), math.nan, 0.1, math.nan) == "nothing"
