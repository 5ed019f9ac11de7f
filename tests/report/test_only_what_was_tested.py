"""The verdict compares the network that a user keeps, what was typed, and states only what was tested."""

import json

import numpy as np
import pytest

from bnexp.errors import UserError
from bnexp.report.analysis.groups import group_runs
from bnexp.report.analysis.verdict import compare
from bnexp.report.content.heading import implied_settings, scope
from bnexp.report.content.question import headline
from bnexp.report.content.sentences import all_sentences
from bnexp.report.content.supplements import best_block_sentences, final_epoch_sentences, gain_sentences
from bnexp.report.content.table import mark, row_cells
from bnexp.report.read.runs import read_runs
from helpers.run_folders import NONE, compare_groups, shifted, write_run, write_sweep


def verdict_of(root, **options):
    return compare(*read_runs([root]), **options)


def write_arms(root, arms, **keys):
    """Runs whose accuracy at the best epoch is in ``arms``; the final one is worse by turns."""
    for norm, accuracies in arms.items():
        for seed, accuracy in enumerate(accuracies):
            final = accuracy - (4.0 if seed % 2 else 0.5)
            write_run(root, final / 100, best=accuracy / 100, seed=seed, model_norm=norm, **keys)


BETTER = shifted(1.0, 1.1, 1.05, 0.9, 0.95)


# The epoch


def test_the_epoch_that_validation_chose_is_compared(tmp_path):
    write_arms(tmp_path, {"none": NONE, "batch": BETTER})
    verdict = verdict_of(tmp_path)
    assert (verdict.rule, verdict.summaries[0].mean) == ("best", pytest.approx(np.mean(NONE)))
    assert "test accuracy, epoch chosen by validation" in scope(verdict)
    assert verdict_of(tmp_path, epoch="final").rule == "final"


def test_without_a_validation_set_the_last_epochs_mean_is_compared(tmp_path):
    for norm, last in (("none", 0.9), ("batch", 0.95)):
        curve = [0.5] * 7 + [last - 0.03, last - 0.03, last]
        for seed in range(3):
            write_run(tmp_path, last, curve=curve, epochs=10, seed=seed, model_norm=norm)
    verdict = verdict_of(tmp_path)
    assert (verdict.rule, verdict.summaries[0].mean) == ("mean", pytest.approx(88.0))
    assert verdict.comparisons[0].final.mean == pytest.approx(5.0)


def test_an_epoch_that_the_runs_do_not_have_is_refused(tmp_path):
    write_sweep(tmp_path, {"none": NONE, "batch": BETTER})
    with pytest.raises(UserError, match=r"--epoch=best: .* must be one of mean, final"):
        verdict_of(tmp_path, epoch="best")


def test_the_recorded_epoch_is_the_default(tmp_path):
    write_arms(tmp_path, {"none": NONE, "batch": BETTER}, report={"epoch": "final"})
    assert verdict_of(tmp_path).rule == "final"


def test_a_final_epoch_that_says_otherwise_is_named(tmp_path):
    for norm, accuracies in {"none": NONE, "batch": BETTER}.items():
        for seed, accuracy in enumerate(accuracies):
            final = accuracy - (5.0 if (seed % 2) == (norm == "batch") else 0)
            write_run(tmp_path, final / 100, best=accuracy / 100, seed=seed, model_norm=norm)
    verdict = verdict_of(tmp_path)
    assert verdict.comparisons[0].outcome == "better"
    assert verdict.comparisons[0].final_outcome == "undecided"
    assert final_epoch_sentences(verdict)[0].endswith("which alone would say: not decided.")


def test_a_final_epoch_that_agrees_is_one_line(tmp_path):
    for norm, accuracies in {"none": NONE, "batch": BETTER}.items():
        for seed, accuracy in enumerate(accuracies):
            final = accuracy - 0.1 * (seed % 2) * (norm == "none")
            write_run(tmp_path, final / 100, best=accuracy / 100, seed=seed, model_norm=norm)
    assert final_epoch_sentences(verdict_of(tmp_path)) == [
        "Final epoch, which is not the one that counts: batch +1.04 points (+0.92 to +1.16), also better."
    ]


# Still improving


def write_curves(root, gain, batch_level=0.99, noise=0.002):
    rng = np.random.default_rng(1)
    for norm, slope in (("none", gain), ("batch", 0.0)):
        for seed in range(5):
            level = 0.6 if norm == "none" else batch_level
            curve = level + slope * np.arange(10) + rng.normal(0, noise, 10)
            write_run(root, curve[-1], curve=list(curve), epochs=10, seed=seed, model_norm=norm)


def test_arms_that_are_still_learning_are_named(tmp_path):
    write_curves(tmp_path / "rising", gain=0.04)
    (sentence,) = gain_sentences(verdict_of(tmp_path / "rising"))
    assert sentence.startswith("model.norm=none was still gaining 4.")
    assert sentence.endswith("points an epoch: this compares speed of learning, not where it ends.")
    assert headline(verdict_of(tmp_path / "rising")).endswith("; model.norm=none was still learning.")
    write_curves(
        tmp_path / "ahead", gain=0.04, batch_level=0.7
    )  # it ends above the other arm: no other answer is to come
    (sentence,) = gain_sentences(verdict_of(tmp_path / "ahead"))
    assert sentence.endswith("points an epoch.")
    write_curves(tmp_path / "flat", gain=0.0)
    assert gain_sentences(verdict_of(tmp_path / "flat")) == []


# What was typed


OPTIMIZERS = {
    "sgd": {"_target_": "torch.optim.SGD", "lr": 0.05},
    "momentum": {"_target_": "torch.optim.SGD", "lr": 0.05, "momentum": 0.9},
    "adam": {"_target_": "torch.optim.Adam", "lr": 0.001},
}


def write_optimizers(root, names, started=lambda i: ""):
    number = 0
    for seed in range(5):
        for name in names:
            record = {"overrides": [f"optimizer={name}", f"seed={seed}"], "choices": {"optimizer": name}}
            accuracy = 0.9 + 0.01 * list(OPTIMIZERS).index(name) + 0.0003 * ((7 * seed) % 5)
            run = write_run(
                root, accuracy, folder=f"{name}-{seed}", seed=seed, optimizer=OPTIMIZERS[name],
                record=record | {"job_number": number},
            )  # fmt: skip
            environment = {"versions": {}, "started": started(number)}
            (run / "environment.json").write_text(json.dumps(environment))
            number += 1
    return root


def test_three_optimizers_get_a_verdict_each(tmp_path):
    verdict = verdict_of(write_optimizers(tmp_path, ["sgd", "momentum", "adam"]))
    assert (verdict.grouping.by, len(verdict.blocks), verdict.family) == ("optimizer", 1, 2)
    assert [c.candidate.group.label for c in verdict.comparisons] == ["momentum", "adam"]
    assert all(not c.confounders for c in verdict.comparisons)
    assert "adam with optimizer.lr=0.001" in implied_settings(verdict)
    assert headline(verdict).startswith("Which optimizer beats sgd for an MLP on MNIST? Better: ")


def test_two_optimizers_are_named_as_they_were_typed(tmp_path):
    verdict = verdict_of(write_optimizers(tmp_path, ["sgd", "momentum"]))
    assert headline(verdict).startswith("Does optimizer=momentum beat optimizer=sgd for an MLP on MNIST? ")


@pytest.mark.parametrize("clock", ["", "2026-01-01T00:00:00", "backwards"])
def test_the_baseline_is_the_first_value_as_typed_whatever_the_clock_says(tmp_path, clock):
    """Jobs that run at the same time start in any order."""
    write_optimizers(
        tmp_path,
        ["momentum", "adam", "sgd"],
        lambda i: f"2026-01-01T00:00:{59 - i:02}" if clock == "backwards" else clock,
    )
    verdict = verdict_of(tmp_path)
    assert verdict.grouping.baseline == "momentum"
    assert [summary.group.value for summary in verdict.summaries] == ["momentum", "adam", "sgd"]


def test_a_setting_that_no_choice_brings_along_stays_a_confounder(tmp_path):
    """epochs changes together with what was typed, but no model brings epochs along."""
    for name, epochs in (("mlp", 3), ("conv", 6)):
        for seed in range(3):
            record = {"overrides": [f"model={name}", f"seed={seed}"], "choices": {"model": name}}
            write_run(
                tmp_path,
                0.9,
                folder=f"{name}{seed}",
                seed=seed,
                epochs=epochs,
                model__target_=name,
                record=record,
            )
    (c,) = verdict_of(tmp_path).comparisons
    assert (c.by, c.confounders, c.is_paired) == ("model", ("epochs",), False)


def test_words_for_one_thing_are_one_group(tmp_path):
    """mlp_bn and mlp with model.norm=batch are the same network."""
    for name, seed in (("mlp_bn", 0), ("mlp", 1)):
        record = {"overrides": [f"model={name}"], "choices": {"model": name}}
        write_run(tmp_path, 0.97, folder=name, seed=seed, model_norm="batch", record=record)
    (group,) = group_runs(read_runs([tmp_path])[0]).groups
    assert len(group.runs) == 2


def test_true_and_numbers_stand_with_their_key(tmp_path):
    for value in ("false", "true"):
        for seed, accuracy in enumerate(NONE if value == "false" else BETTER):
            write_run(tmp_path, accuracy / 100, folder=f"{value}{seed}", seed=seed, model_bn=value == "true")
    verdict = verdict_of(tmp_path)
    assert headline(verdict).startswith("Does model.bn=true beat model.bn=false for an MLP on MNIST? Yes: ")
    assert all_sentences(verdict)[0].startswith("model.bn=true beats model.bn=false by")


def test_a_baseline_may_be_typed_as_another_form_of_the_number(tmp_path):
    for lr in (0.1, 1.0):
        for seed, accuracy in enumerate(NONE):
            write_run(tmp_path, accuracy / 100, seed=seed, optimizer_lr=lr)
    for text in ("1.0", "1", "1e0", "optimizer.lr=1"):
        assert verdict_of(tmp_path, baseline=text).grouping.baseline == "1"


# Pairs


def test_one_shared_seed_does_not_discard_the_others(tmp_path):
    write_sweep(tmp_path, {"none": NONE * 4})
    for seed, accuracy in enumerate(BETTER * 4, 19):
        write_run(tmp_path, accuracy / 100, model_norm="batch", seed=seed)
    (c,) = verdict_of(tmp_path).comparisons
    assert (c.is_paired, c.difference.method, c.difference.n) == (False, "Welch", 20)
    assert all_sentences(verdict_of(tmp_path))[0].endswith(
        "Few shared seeds: Welch's test over all runs, unpaired."
    )


def test_the_means_of_the_compared_runs_are_given_where_the_table_covers_more(tmp_path):
    verdict = compare_groups(tmp_path, {"none": [*NONE[:3], 90.0], "batch": shifted(1, 1.1, 1.05)})
    assert verdict.comparisons[0].is_paired
    assert "On the 3 shared seeds: batch 98.08 %, none 97.03 %." in all_sentences(verdict)[0]


def test_twins_are_not_mentioned_where_nothing_is_paired(tmp_path):
    write_sweep(tmp_path, {"none": NONE})
    for seed, accuracy in enumerate(BETTER, 10):
        write_run(tmp_path, accuracy / 100, model_norm="batch", seed=seed)
    verdict = verdict_of(tmp_path)
    assert "twins" not in " ".join([*all_sentences(verdict), *scope(verdict), *verdict.notes])
    assert "5 unpaired seeds" in scope(verdict)


def test_ties_are_no_losses(tmp_path):
    verdict = compare_groups(tmp_path, {"none": NONE, "batch": shifted(0.5, 0.0, 0.4, 0.0, 0.6)})
    (c,) = verdict.comparisons
    assert (c.wins, c.ties) == (3, 2)
    assert row_cells(c.candidate, verdict)[7] == "3/5 2="


# Doubts about the t test


def test_accuracy_that_jumps_within_runs_leans_only(tmp_path):
    """Between seeds the values differ by .1, from epoch to epoch by 3: no bad run was drawn, by luck."""
    rng = np.random.default_rng(0)
    for norm, accuracies in {"none": NONE, "batch": BETTER}.items():
        for seed, accuracy in enumerate(accuracies):
            curve = list(accuracy / 100 + (rng.normal(0, 0.03, 12) if norm == "none" else 0 * np.ones(12)))
            write_run(
                tmp_path,
                accuracy / 100,
                best=accuracy / 100,
                curve=curve,
                epochs=12,
                seed=seed,
                model_norm=norm,
            )
    verdict = verdict_of(tmp_path)
    (c,) = verdict.comparisons
    assert (c.outcome, mark(c)) == ("leaning", "+?")
    sentence = all_sentences(verdict)[0]
    assert sentence.startswith(
        "This leans to batch over none, by 1.00 points (0.90 to 1.10), adjusted p < .0001. "
    )
    assert "the accuracy of none jumps by ±" in sentence
    assert "It leans to yes" in headline(verdict)


def test_a_steep_learning_curve_is_no_jump(tmp_path):
    for norm, accuracies in {"none": NONE, "batch": BETTER}.items():
        for seed, accuracy in enumerate(accuracies):
            curve = [accuracy / 100 - drop for drop in (0.3, 0.1, 0.0)]
            write_run(tmp_path, accuracy / 100, best=accuracy / 100, curve=curve, seed=seed, model_norm=norm)
    assert verdict_of(tmp_path).comparisons[0].outcome == "better"


def test_one_run_far_below_its_group_leans_only(tmp_path):
    none = [97.0, 97.1, 97.05, 96.95, 97.0, 97.02, 93.5]
    verdict = compare_groups(tmp_path, {"none": none, "batch": [value + 0.3 for value in [*none[:6], 93.45]]})
    (c,) = verdict.comparisons
    assert c.doubt == "one run of batch (seed 6, 93.75 %) lies far below the others"
    assert c.outcome == "leaning"


def test_twenty_seeds_need_no_doubt(tmp_path):
    none = [97.0, 97.1, 97.05, 96.95] * 5
    none[7] = 93.5
    verdict = compare_groups(
        tmp_path, {"none": none, "batch": [v + 0.3 + 0.01 * (i % 3) for i, v in enumerate(none)]}
    )
    assert (verdict.comparisons[0].doubt, verdict.comparisons[0].outcome) == ("", "better")


# A grid of learning rates


def write_grid(root, peaks):
    """Each arm has its best accuracy at its own learning rate; validation and test agree up to noise."""
    rng = np.random.default_rng(2)
    for norm, peak in peaks.items():
        for lr in (0.01, 0.1, 1.0, 10.0):
            for seed in range(5):
                accuracy = (
                    0.97 + 0.005 * (norm == "batch") - 0.05 * abs(np.log10(lr / peak)) + rng.normal(0, 5e-4)
                )
                write_run(root, accuracy, best=accuracy, seed=seed, model_norm=norm, optimizer_lr=lr)
    return verdict_of(root)


def test_a_grid_compares_each_arm_at_its_own_best_rate(tmp_path):
    verdict = write_grid(tmp_path, {"none": 0.1, "batch": 1.0})
    (best,) = verdict.best_blocks
    assert (best.candidate.group.block, best.baseline.group.block, best.at_edge) == ("lr=1", "lr=0.1", False)
    (sentence,) = best_block_sentences(verdict)
    assert sentence.startswith("Each at its best lr by validation: batch (lr=1) beats none (lr=0.1) by 0.5")
    assert best.outcome == "better"


def test_a_best_rate_at_the_edge_is_named(tmp_path):
    (sentence,) = best_block_sentences(write_grid(tmp_path, {"none": 0.1, "batch": 10.0}))
    assert sentence.endswith("A best lr lies at the edge of the grid.")


def test_two_rates_are_no_search(tmp_path):
    for lr in (0.01, 0.1):
        write_sweep(tmp_path, {"none": NONE, "batch": BETTER}, optimizer_lr=lr)
    assert verdict_of(tmp_path).best_blocks == ()
