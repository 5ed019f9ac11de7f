"""How many more seeds are asked for, and the commands that train them."""

import math

import pytest

from bnexp.report.analysis.sample_size import (
    SampleSizePlan,
    missing_twins_command,
    new_seeds,
    plan_sample_size,
    resume_command,
    sweep_commands,
)
from bnexp.report.analysis.statistical_tests import Difference, upper_sd, welch_t_test
from bnexp.report.analysis.verdict import compare
from bnexp.report.content.next_steps import next_steps
from bnexp.report.content.sentences import all_sentences, forecast
from bnexp.report.read.runs import read_runs
from helpers.run_folders import NONE, compare_groups, shifted, write_run, write_sweep

UNDECIDED = {"none": NONE, "batch": shifted(0.5, -0.2, 0.3, 0.6, -0.1)}


def groups_of(verdict):
    return [summary.group for summary in verdict.summaries]


def test_a_forecast_is_a_range_with_eighty_per_cent_power():
    """7.85 s^2 / d^2 in all, with s and with its upper 80 % limit."""
    difference = Difference("paired t", 10, 0.5, 0.9, 9, -0.1, 1.1, 0, 1, 0.11)
    low, high = (math.ceil(7.85 * sd**2 / 0.25 - 10) for sd in (0.9, upper_sd(0.9, 9)))
    assert plan_sample_size(difference, None, is_decided=False) == SampleSizePlan(low, high)


def test_unpaired_groups_are_planned_with_the_noise_of_both():
    """Deviations 1 and 7: one difference has the deviation sqrt(50)."""
    difference = welch_t_test([29, 30, 31, 30], [17, 24, 31, 24])
    plan = plan_sample_size(difference, delta=None, is_decided=False)
    assert plan.low == max(math.ceil(7.85 * difference.sd**2 / 36 - 4), 1)


def test_three_seeds_give_no_forecast(tmp_path):
    verdict = compare_groups(tmp_path, {name: values[:3] for name, values in UNDECIDED.items()})
    assert verdict.comparisons[0].plan == SampleSizePlan(2, 2)
    assert "2 more seeds for a verdict" in all_sentences(verdict)[0]


def test_a_forecast_never_exceeds_fifty(tmp_path):
    assert forecast(SampleSizePlan(4, 14)) == "about 4 to 14"
    assert forecast(SampleSizePlan(20, 160)) == "at least 20"
    verdict = compare_groups(tmp_path, {"none": NONE, "batch": shifted(0.5, -0.4, 0.3, 0.5, -0.5)})
    assert verdict.comparisons[0].plan.is_hopeless
    assert "More seeds are not the way" in all_sentences(verdict)[0]
    assert not any("more seeds" in step.reason for step in next_steps(verdict))


def test_identical_twins_ask_for_no_more_seeds(tmp_path):
    verdict = compare_groups(tmp_path, {"none": NONE[:3], "batch": NONE[:3]})
    assert (verdict.comparisons[0].outcome, verdict.comparisons[0].plan) == ("identical", None)


def test_no_command_trains_more_of_code_that_was_edited(tmp_path):
    for source, accuracies in UNDECIDED.items():
        for seed, accuracy in enumerate(accuracies):
            keys = {"model__target_": "nets.Net", "seed": seed}
            record = {"fingerprints": {"model": source}}
            write_run(tmp_path, accuracy / 100, folder=f"{source}/{seed}", record=record, **keys)
    verdict = compare(*read_runs([tmp_path]))
    assert {c.by for c in verdict.comparisons} == {"model.source"}
    assert next_steps(verdict) == []


def test_the_command_for_more_seeds(tmp_path):
    groups = groups_of(compare_groups(tmp_path, UNDECIDED))
    assert sweep_commands(groups, new_seeds(groups, 2)) == ("bnexp -m model.norm=none,batch seed=5,6",)
    assert sweep_commands(groups, new_seeds(groups, 9)) == (
        "bnexp -m model.norm=none,batch 'seed=range(5,14)'",
    )


def test_more_seeds_of_a_sweep_are_one_line(tmp_path):
    write_sweep(tmp_path, UNDECIDED)
    (tmp_path / "multirun.yaml").write_text("")
    steps = next_steps(compare(*read_runs([tmp_path])))
    assert (f"bnexp-resume {tmp_path} seed=auto",) in [step.commands for step in steps]
    assert "as many seeds as the answer takes, at most 40" in [step.reason for step in steps]


def test_seeds_that_do_not_begin_a_plan_are_named(tmp_path):
    for norm, accuracies in UNDECIDED.items():
        for seed, accuracy in enumerate(accuracies, 3):
            write_run(tmp_path, accuracy / 100, model_norm=norm, seed=seed)
    (tmp_path / "multirun.yaml").write_text("")
    verdict = compare(*read_runs([tmp_path]))
    first = 3 + len(UNDECIDED["none"])
    command = f"bnexp-resume {tmp_path} 'seed=range({first},{first + verdict.comparisons[0].plan.high})'"
    assert (command,) in [step.commands for step in next_steps(verdict)]


def test_groups_that_differ_in_several_overrides_get_a_command_each(tmp_path):
    write_run(tmp_path, 0.97, seed=0)
    write_run(tmp_path, 0.98, seed=0, model_norm="batch")
    groups = groups_of(compare(*read_runs([tmp_path])))
    assert sweep_commands(groups, "seed=1") == ("bnexp -m seed=1", "bnexp -m model.norm=batch seed=1")


@pytest.mark.parametrize("is_sweep", [False, True])
def test_holes_are_filled_before_new_seeds_are_asked_for(tmp_path, is_sweep):
    write_sweep(tmp_path, {"none": NONE, "batch": UNDECIDED["batch"][:3]})
    if is_sweep:
        (tmp_path / "multirun.yaml").write_text("")
    verdict = compare(*read_runs([tmp_path]))
    (step,) = next_steps(verdict)
    assert step.reason == "batch lacks 2 seeds"
    command = f"bnexp-resume {tmp_path}" if is_sweep else "bnexp -m model.norm=batch seed=3,4"
    assert step.commands == (command,)
    assert missing_twins_command(verdict.summaries[1].group, [(3, None), (4, None)]) == command


def test_longer_training_is_one_line(tmp_path):
    for norm, gain in (("none", 0.05), ("batch", 0.0)):
        for seed in range(3):
            curve = [0.5 + gain * epoch + 0.001 * seed for epoch in range(5)]
            write_run(tmp_path, curve[-1], curve=curve, seed=seed, model_norm=norm, epochs=5)
    (tmp_path / "multirun.yaml").write_text("")
    groups = groups_of(verdict := compare(*read_runs([tmp_path])))
    assert next_steps(verdict)[0].commands == (resume_command(groups, "epochs=10"),)
    assert resume_command(groups, "epochs=10") == f"bnexp-resume {tmp_path} epochs=10"
