"""Each sentence of a verdict, and when it may be stated."""

import re

import pytest

from bnexp.report.analysis.verdict import compare
from bnexp.report.content.next_steps import next_steps
from bnexp.report.content.numbers import p_value
from bnexp.report.content.question import headline
from bnexp.report.content.sentences import all_sentences
from bnexp.report.content.supplements import early_stopping_sentences
from bnexp.report.content.table import mark
from bnexp.report.read.runs import read_runs
from bnexp.report.render.terminal import render_text
from helpers.run_folders import NONE, compare_groups, shifted, write_run, write_sweep

CLEAR = {"none": NONE, "batch": shifted(1.0, 1.1, 1.05, 0.9, 0.95)}
CASES = {
    "single": (
        {"none": [98.0], "batch": [98.5]},
        "Single runs: batch 98.50 %, none 98.00 %. Two runs of one configuration would differ by about "
        "±0.26 points by chance: no verdict.",
    ),
    "few": (
        {"none": [98.0, 98.1], "batch": [98.5, 98.4]},
        "2 seeds: batch - none is +0.50 and +0.30 points: no verdict; 3 more seeds for a verdict.",
    ),
    "wide": (
        {"none": NONE[:3], "batch": shifted(0.1, 0.6, -0.3)},
        "batch vs none, 3 seeds: difference +0.13 points, interval -0.99 to +1.25. Too wide to decide; "
        "2 more seeds for a verdict.",
    ),
    "provisional": (
        {"none": NONE[:3], "batch": shifted(1.0, 1.1, 1.05)},
        "batch was ahead of none in 3 of 3 seeds by 1.05 points (0.93 to 1.17). "
        "With 3 seeds this rests on the normality assumption.",
    ),
    "clear": (
        CLEAR,
        "batch beats none by 1.00 points (0.90 to 1.10), 34 % fewer errors, ahead in 5 of 5 seeds, "
        "adjusted p < .0001.",
    ),
    "worse": (
        {"none": NONE, "batch": shifted(-1.0, -1.1, -1.05, -0.9, -0.95)},
        "none beats batch by 1.00 points (0.90 to 1.10), 25 % fewer errors, ahead in 5 of 5 seeds, "
        "adjusted p < .0001.",
    ),
    "equivalent": (
        {"none": NONE, "batch": shifted(0.01, -0.02, 0.0, 0.02, -0.01)},
        "batch and none: no difference beyond 0.10 points: the 90 % interval -0.02 to +0.02 lies inside "
        "±0.10 points.",
    ),
    "undecided": (
        {"none": NONE, "batch": shifted(0.5, -0.4, 0.3, 0.6, -0.2)},
        "batch vs none: not decided: anything from -0.39 to +0.71 points fits. "
        "This is not evidence of equality. More seeds are not the way: a learning-rate schedule, more "
        "epochs or a validation-chosen epoch makes it clearer.",
    ),
    "identical": (
        {"none": NONE, "batch": NONE},
        "batch and none: all twins identical: does model.norm reach the model?",
    ),
    "constant": (
        {"none": NONE, "batch": shifted(0.5, 0.5, 0.5, 0.5, 0.5)},
        "batch is ahead of none by exactly 0.50 points in all 5 seeds: no spread, so no test.",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_sentence_of_each_outcome(tmp_path, name):
    groups, sentence = CASES[name]
    assert all_sentences(compare_groups(tmp_path, groups)) == [sentence]


def test_runs_that_early_stopping_ended_are_told(tmp_path):
    for epochs in (10, 20):
        for seed, accuracy in enumerate(NONE):
            rising = [accuracy / 100 - 0.05 * (5 - epoch) for epoch in range(6)]
            keys = {"early_stopping": {"patience": 2}, "epochs": epochs, "seed": seed}
            write_run(tmp_path, rising[-1], curve=rising, folder=f"{epochs}/{seed}", **keys)
    verdict = compare(*read_runs([tmp_path]))
    assert all_sentences(verdict) == [
        "epochs=20 and epochs=10: all twins identical: early_stopping.patience ended them before their last"
        " epoch."
    ]
    assert early_stopping_sentences(verdict) == [
        "early_stopping.patience ended 10 of 10 runs before their last epoch: more epochs alone do not change"
        " them."
    ]
    assert verdict.notes == ("early_stopping.patience ended 10 of 10 runs before their last epoch",)
    assert next_steps(verdict) == []  # the curves still rise, but more epochs would change nothing
    write_run(tmp_path, 0.9, folder="10/5", early_stopping={"patience": 2}, epochs=10, seed=5)
    notes = compare(*read_runs([tmp_path])).notes
    assert (
        "early_stopping.patience ended 10 of 11 runs before their last epoch (10 5 of 6, 20 5 of 5)" in notes
    )


def test_sentence_of_a_difference_too_small_to_matter(tmp_path):
    groups = {"none": NONE, "batch": shifted(0.5, 0.52, 0.48, 0.51, 0.49)}
    verdict = compare_groups(tmp_path, groups, delta=0.9)
    assert verdict.comparisons[0].outcome == "small"
    assert all_sentences(verdict) == [
        "batch is detectably ahead of none, by 0.50 points (0.48 to 0.52), "
        "but by less than the 0.90 points that matter."
    ]


def test_sentences_never_claim_proof_or_equality(tmp_path):
    for name, (groups, _) in CASES.items():
        text = " ".join(all_sentences(compare_groups(tmp_path / name, groups)))
        assert not re.search(r"\b(same|proves?|significant\w*)\b", text)


def test_lost_runs_that_chance_gives_often_are_counted_after_the_accuracy(tmp_path):
    groups = {"none": [97.0, None, None, 97.1, 97.0], "batch": shifted(1, 1.1, 1, 0.9, 1)}
    verdict = compare_groups(tmp_path, groups)
    first, second = all_sentences(verdict)
    assert first.startswith("batch was ahead of none in 3 of 3 seeds by 0.97 points")
    assert first.endswith("On the 3 shared seeds: batch 98.00 %, none 97.03 %.")
    assert second == (
        "batch trained in 5 of 5 runs, model.norm=none in 3 of 5 (diverged), "
        "which chance gives often (adjusted p = .25)."
    )
    assert verdict.comparisons[0].incomplete_pairs == ((1, None), (2, None))


def test_stability_that_is_tested_comes_first_and_gets_a_mark(tmp_path):
    verdict = compare_groups(tmp_path, {"none": [None] * 5, "batch": NONE})
    (c,) = verdict.comparisons
    assert (c.stability.p, verdict.family) == (pytest.approx(1 / 32), 1)  # accuracy is no hypothesis
    assert all_sentences(verdict) == [
        "batch trained in 5 of 5 runs, model.norm=none in 0 of 5 (diverged): "
        "batch loses fewer runs, adjusted p = .031."
    ]
    assert (mark(c), c.plan) == ("+", None)
    assert headline(verdict).endswith("? Yes: batch trained in 5 of 5 runs, model.norm=none in 0 of 5 runs.")


def test_equal_losses_are_mentioned(tmp_path):
    groups = {"none": [*NONE, None], "batch": [*shifted(1, 1.1, 1, 0.9, 1), None]}
    assert all_sentences(compare_groups(tmp_path, groups))[1] == (
        "batch trained in 5 of 6 runs (diverged), model.norm=none in 5 of 6 (diverged): "
        "no difference in lost runs; accuracy covers the 5 seeds where both trained."
    )


def test_chance_hides_no_accuracy(tmp_path):
    """MNIST's largest class, the ones, is .1135 of the test images."""
    verdict = compare_groups(tmp_path, {"none": [11.35, 9.8, 11.35], "batch": [98, 98.1, 98.2]})
    assert [len(summary.lost_runs) for summary in verdict.summaries] == [3, 0]
    assert all_sentences(verdict) == [
        "batch trained in 3 of 3 runs, model.norm=none in 0 of 3 (at chance: 9.80 % to 11.35 %), "
        "which chance gives often (adjusted p = .12)."
    ]
    assert re.search(r"none \* +0 +3 +10.83 ± 0.89", render_text(verdict))
    assert headline(verdict).endswith(
        "Not decided: batch trained in 3 of 3 runs, model.norm=none in 0 of 3 runs."
    )


def test_good_runs_on_uneven_classes_are_not_lost(tmp_path):
    """Two classes, one of them 70 or 90 % of 150 test images; the networks tell them apart."""
    for majority, accuracies in ((0.7, (0.82, 0.86, 0.90)), (0.9, (0.95, 0.97, 0.99))):
        for seed, accuracy in enumerate(accuracies):
            good = round(150 * majority)
            record = {
                "majority": majority,
                "images": {"test": 150},
                "predictions": {"final": [good, 150 - good]},
            }
            write_run(tmp_path / str(majority), accuracy, seed=seed, record=record)
        (summary,) = compare(*read_runs([tmp_path / str(majority)])).summaries
        assert len(summary.values) == 3


def test_a_network_that_predicts_one_class_is_lost_whatever_its_accuracy(tmp_path):
    record = {"majority": 0.9, "images": {"test": 150}, "predictions": {"final": [150, 0]}}
    write_run(tmp_path, 0.91, seed=0, record=record)
    (summary,) = compare(*read_runs([tmp_path])).summaries
    assert summary.failure_kind == "at chance"


def test_the_kind_of_failure_is_named(tmp_path):
    verdict = compare_groups(tmp_path, {"none": [11.0, None, 97], "batch": [10, 10, 10]})
    assert [summary.failure_kind for summary in verdict.summaries] == ["diverged or at chance", "at chance"]


def test_one_usable_pair_gets_no_verdict(tmp_path):
    verdict = compare_groups(tmp_path, {"none": [None, None, 96], "batch": [97, 98, 97.5]})
    sentence = "One seed finished in both: batch 97.50 %, none 96.00 %: no verdict."
    assert sentence in all_sentences(verdict)


def test_comparisons_without_any_trained_run_are_no_hypotheses(tmp_path):
    groups = {"none": NONE, "batch": shifted(1, 1.1, 1, 0.9, 1), "layer": [None] * 5}
    for lr, arms in ((0.1, groups), (10, dict.fromkeys(groups, [None] * 5))):
        write_sweep(tmp_path, arms, optimizer_lr=lr)
    verdict = compare(*read_runs([tmp_path]))
    assert verdict.family == 2  # the accuracy of batch and the stability of layer, both at lr 0.1
    (beats,) = [c for c in verdict.comparisons if c.outcome == "better"]
    assert beats.p_adjusted == pytest.approx(2 * beats.difference.p)


def test_two_axes_compare_each_norm_with_none_within_its_model(tmp_path):
    models = {"MLP": (1, 1.1, 1.05, 0.9, 0.95), "ConvNet": (0.5, -0.4, 0.3, 0.6, -0.2)}
    for model, differences in models.items():
        keys = {"model__target_": f"bnexp.models.{model}"}
        write_sweep(tmp_path / model, {"none": NONE, "batch": shifted(*differences)}, **keys)
    verdict = compare(*read_runs([tmp_path]))
    assert verdict.grouping.by == "model.norm"
    by_names = {(c.candidate.group.name, c.baseline.group.name): c for c in verdict.comparisons}
    assert set(by_names) == {
        ("batch (model=MLP)", "none (model=MLP)"),
        ("batch (model=ConvNet)", "none (model=ConvNet)"),
    }
    assert (verdict.family, [c.difference.n for c in verdict.comparisons]) == (2, [5, 5])
    mlp = by_names["batch (model=MLP)", "none (model=MLP)"]
    assert mlp.p_adjusted == pytest.approx(2 * mlp.difference.p)
    assert headline(verdict) == (
        "Does batch norm help the network on MNIST, at 2 values of model? "
        "Better for MLP; not decided for ConvNet."
    )
    assert all_sentences(verdict)[1].startswith("model=MLP: batch beats none by 1.00 points")


def test_overview_over_learning_rates(tmp_path):
    for lr, shift, seeds in ((10, 0, 0), (1, -1, 5), (0.1, 1, 5), (0.01, 1.05, 3)):
        groups = {"none": [None] * 5, "batch": NONE}
        if seeds:
            differences = [shift + 0.01 * i for i in range(seeds)]
            groups = {"none": NONE[:seeds], "batch": shifted(*differences)}
        write_sweep(tmp_path, groups, optimizer_lr=lr)
    assert headline(compare(*read_runs([tmp_path]))) == (
        "Does batch norm help an MLP on MNIST, at 4 values of lr? Fewer runs lost at 10; better at 0.1; "
        "better, provisionally, at 0.01; worse at 1."
    )


def test_confounded_groups_are_no_twins_and_the_caveat_comes_first(tmp_path):
    write_sweep(tmp_path / "a", {"none": NONE})
    write_sweep(tmp_path / "b", {"batch": CLEAR["batch"]}, epochs=20)
    verdict = compare(*read_runs([tmp_path]))
    (c,) = verdict.comparisons
    assert (c.is_paired, c.difference.method, mark(c), c.plan) == (False, "Welch", "!", None)
    sentences = all_sentences(verdict)
    assert (
        sentences[0] == "The groups also differ in epochs: the difference cannot be attributed to model.norm."
    )
    assert sentences[1].startswith(
        "none is ahead of batch by 1.50 points"
    )  # epochs: the mean of the last ones
    assert sentences[1].endswith("No twins: Welch's test over all runs, unpaired.")
    assert headline(verdict).endswith("Cannot be told: the groups also differ in epochs.")
    text = " ".join(render_text(verdict, details=True).split())
    assert "paired" not in text.replace("unpaired", "")
    assert "twins" not in text.replace("No twins", "")
    assert next_steps(verdict) == []


def test_groups_without_a_shared_seed_are_unpaired(tmp_path):
    write_sweep(tmp_path, {"none": NONE})
    for seed, accuracy in enumerate(shifted(1, 1.1, 1, 0.9, 1.2), 10):
        write_run(tmp_path, accuracy / 100, model_norm="batch", seed=seed)
    verdict = compare(*read_runs([tmp_path]))
    assert verdict.comparisons[0].difference.method == "Welch"
    (sentence,) = all_sentences(verdict)
    assert sentence.startswith("batch beats none by 1.04 points")
    assert sentence.endswith("No shared seeds: Welch's test over all runs, unpaired.")
    assert "ahead in" not in sentence


def test_one_group_or_one_run_is_nothing_to_compare(tmp_path):
    assert all_sentences(compare_groups(tmp_path / "a", {"none": NONE})) == [
        "One group of 5 runs: nothing to compare it with, no verdict."
    ]
    assert all_sentences(compare_groups(tmp_path / "b", {"none": [97]})) == [
        "A single run: nothing to compare it with, no verdict."
    ]


def test_folds_are_not_called_seeds(tmp_path):
    for fold in range(3):
        write_run(tmp_path, 0.97, seed=0, dataset_fold=fold, model_norm="none")
        write_run(tmp_path, 0.98 + fold / 1000, seed=0, dataset_fold=fold, model_norm="batch")
    text = render_text(compare(*read_runs([tmp_path])), details=True)
    assert "3 paired folds" in text
    assert "in 3 of 3 folds" in text
    assert "mean over folds" in text
    assert "seeds" not in text.replace("more seeds", "")
    for fold in range(3):
        write_run(tmp_path, 0.96, seed=1, dataset_fold=fold, model_norm="none")
        write_run(tmp_path, 0.97 + fold / 1000, seed=1, dataset_fold=fold, model_norm="batch")
    assert "6 paired seed-fold pairs" in render_text(compare(*read_runs([tmp_path])))


def test_unpaired_folds_and_a_single_fold_are_not_called_seeds(tmp_path):
    for fold in range(3):
        write_run(tmp_path / "a", 0.97 + fold / 2000, seed=0, dataset_fold=fold, model_norm="none")
        write_run(tmp_path / "a", 0.98 + fold / 1000, seed=0, dataset_fold=fold + 5, model_norm="batch")
    (sentence,) = all_sentences(compare(*read_runs([tmp_path / "a"])))
    assert sentence.endswith("No shared folds: Welch's test over all runs, unpaired.")
    for fold in range(2):
        write_run(tmp_path / "b", 0.97, seed=0, dataset_fold=fold, model_norm="none")
    write_run(tmp_path / "b", 0.98, seed=0, dataset_fold=0, model_norm="batch")
    (sentence,) = all_sentences(compare(*read_runs([tmp_path / "b"])))
    assert sentence == "One fold finished in both: batch 98.00 %, none 97.00 %: no verdict."


@pytest.mark.parametrize(
    ("p", "text"), [(0.5, ".50"), (0.0131, ".013"), (0.00044, ".0004"), (1e-9, "<.0001"), (1, "1.0")]
)
def test_p_values_have_two_significant_digits(p, text):
    assert p_value(p) == text
