"""How many more seeds are asked for, and the commands that train them."""

import math

import pytest

from bnexp.report.analysis.sample_size import plan_sample_size, sweep_commands
from bnexp.report.analysis.statistical_tests import seeds_for, upper_sd, welch_t_test
from bnexp.report.analysis.verdict import compare
from bnexp.report.read.runs import read_runs
from helpers.run_folders import NONE, compare_groups, shifted, write_run, write_sweep

UNDECIDED = {"none": NONE[:3], "batch": shifted(0.1, 0.6, -0.3)}


def test_unpaired_groups_are_planned_with_the_noise_of_both(tmp_path):
    """Deviations 1 and 7: the half-width of n runs in each group is t sqrt(50 / n), not t 5 / sqrt(n)."""
    difference = welch_t_test([29, 30, 31], [17, 24, 31])
    plan = plan_sample_size(difference, delta=None, is_decided=False)
    needed = seeds_for(plan.half_width, upper_sd(math.sqrt(50), difference.df))
    assert (plan.half_width, plan.seeds) == (pytest.approx(3), needed - 3)


def test_the_command_for_more_seeds(tmp_path):
    groups = [summary.group for summary in compare_groups(tmp_path, UNDECIDED).summaries]
    assert sweep_commands(groups, 2) == ("bnexp -m model.norm=none,batch seed=3,4",)
    assert sweep_commands(groups, 9) == ("bnexp -m model.norm=none,batch 'seed=range(3,12)'",)


def test_more_seeds_join_their_sweep(tmp_path):
    write_sweep(tmp_path, UNDECIDED)
    (tmp_path / "multirun.yaml").write_text("")
    groups = [summary.group for summary in compare(*read_runs([tmp_path])).summaries]
    (command,) = sweep_commands(groups, 2)
    assert command.endswith(f" seed=3,4 hydra.sweep.dir={tmp_path}")


def test_groups_that_differ_in_several_overrides_get_a_command_each(tmp_path):
    write_run(tmp_path, 0.97, seed=0)
    write_run(tmp_path, 0.98, seed=0, model_norm="batch")
    groups = [summary.group for summary in compare(*read_runs([tmp_path])).summaries]
    assert sweep_commands(groups, 1) == ("bnexp -m seed=1", "bnexp -m model.norm=batch seed=1")
