"""Each sentence of a verdict, and when it may be said."""

import json
import math
import re

import numpy as np
import pytest

from bnexp.errors import UserError
from bnexp.report.analysis.sample_size import commands
from bnexp.report.analysis.statistical_tests import Difference, paired
from bnexp.report.analysis.verdict import compare, judge
from bnexp.report.read.runs import read_runs
from bnexp.report.render.numbers import p_value
from bnexp.report.render.sentences import all_sentences, looks_note
from bnexp.report.render.terminal import render
from helpers.run_folders import compare_groups, write_run, write_sweep

SEEDS = 5
NONE = [97.0, 97.2, 96.9, 97.1, 97.0]


def shifted(*by):
    return [round(a + b, 4) for a, b in zip(NONE, by, strict=False)]


CASES = {
    "single": (
        {"none": [98.0], "batch": [98.5]},
        "Single runs: batch 98.50 %, none 98.00 %. Two runs of one configuration would differ by about "
        "±0.26 points by chance: no verdict.",
    ),
    "few": (
        {"none": [98.0, 98.1], "batch": [98.5, 98.4]},
        "2 seeds: batch - none is +0.50 and +0.30 points: no verdict; about 3 more seeds for a verdict.",
    ),
    "wide": (
        {"none": NONE[:3], "batch": shifted(0.1, 0.6, -0.3)},
        "batch vs none, 3 seeds: difference +0.13 points, interval -0.99 to +1.25. Too wide to decide; "
        "about 788 more seeds for ±0.07 points.",
    ),
    "provisional": (
        {"none": NONE[:3], "batch": shifted(1.0, 1.1, 1.05)},
        "batch was ahead of none in 3 of 3 seeds by 1.05 points (0.93 to 1.17). "
        "With 3 seeds this rests on the normality assumption.",
    ),
    "clear": (
        {"none": NONE, "batch": shifted(1.0, 1.1, 1.05, 0.9, 0.95)},
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
        "This is not evidence of equality. About 279 more seeds for ±0.08 points.",
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
def test_sentence(tmp_path, name):
    groups, sentence = CASES[name]
    assert all_sentences(compare_groups(tmp_path, groups)) == [sentence]


def test_small(tmp_path):
    """Found by the test, and within what matters."""
    found = compare_groups(tmp_path, {"none": NONE, "batch": shifted(0.5, 0.52, 0.48, 0.51, 0.49)}, delta=0.9)
    assert found.comparisons[0].outcome == "small"
    assert all_sentences(found) == [
        "batch is detectably ahead of none, by 0.50 points (0.48 to 0.52), "
        "but by less than the 0.90 points that matter."
    ]


def test_never_the_forbidden_words(tmp_path):
    for name, (groups, _) in CASES.items():
        said = " ".join(all_sentences(compare_groups(tmp_path / name, groups)))
        assert not re.search(r"\b(same|proves?|significant\w*)\b", said)


def test_divergence_is_the_headline(tmp_path):
    found = compare_groups(
        tmp_path, {"none": [97.0, None, None, 97.1, 97.0], "batch": shifted(1, 1.1, 1, 0.9, 1)}
    )
    first, second = all_sentences(found)
    assert first == (
        "none diverged in 2 of 5 runs (12-77 %), batch in 0 of 5. "
        "Stability is the main finding; accuracy covers the 3 seeds where both finished."
    )
    assert second.startswith("batch was ahead of none in 3 of 3 seeds by 0.97 points")
    assert found.comparisons[0].missing == ((1, None), (2, None))


def test_a_run_at_chance_has_diverged(tmp_path):
    """MNIST's largest class, the ones: at most .1135 + 3 sqrt(.1135 x .8865 / 10,000) = 0.1230."""
    found = compare_groups(tmp_path, {"none": [12.3, 97, 97], "batch": [12.31, 98, 98]})
    assert [len(row.diverged) for row in found.summaries] == [1, 0]
    assert all_sentences(found)[0].startswith("none ended at chance in 1 of 3 runs")
    lost = compare_groups(tmp_path / "b", {"none": [12.0, None, 97], "batch": [10, 10, 10]})
    assert [row.failure_kind for row in lost.summaries] == ["diverged or ended at chance", "ended at chance"]


def test_chance_is_what_the_run_itself_says_of_its_largest_class(tmp_path):
    root = write_sweep(tmp_path, {"none": [30, 97, 97], "batch": [34, 98, 98]})
    for path in root.glob("*/summary.json"):
        counts = {"images": {"test": 10_000}, "classes": 3, "majority": 0.3}
        path.write_text(json.dumps(json.loads(path.read_text()) | counts))
    found = compare(*read_runs([root]))
    assert [len(row.diverged) for row in found.summaries] == [1, 0]
    assert all_sentences(found)[0].startswith("none ended at chance in 1 of 3 runs")
    lost = compare_groups(tmp_path / "b", {"none": [12.0, None, 97], "batch": [10, 10, 10]})
    assert [row.failure_kind for row in lost.summaries] == ["diverged or ended at chance", "ended at chance"]


def test_what_never_finished_is_paired_all_the_same_and_asks_for_no_more_seeds(tmp_path):
    found = compare_groups(tmp_path, {"none": [None] * 5, "batch": [97, None, 98, 97.5, 97.8]})
    (one,) = found.comparisons
    assert (one.paired, one.difference.n, one.plan) == (True, 0, None)
    assert all_sentences(found) == [
        "none diverged in 5 of 5 runs (57-100 %), batch in 1 of 5. Stability is the main finding; "
        "no seed finished in both."
    ]
    single = compare_groups(tmp_path / "b", {"none": [None, None, 96], "batch": [97, 98, 97.5]})
    assert "One seed finished in both: batch 97.50 %, none 96.00 %: no verdict." in all_sentences(single)


def study(root, **models):
    """A sweep over models and norms: by model, the differences batch - none."""
    for name, differences in models.items():
        keys = {"model__target_": f"bnexp.models.{name}"}
        write_sweep(root / name, {"none": NONE[: len(differences)], "batch": shifted(*differences)}, **keys)
    return compare(*read_runs([root]))


def test_two_axes_compare_each_norm_with_none_within_its_model(tmp_path):
    found = study(tmp_path, MLP=(1, 1.1, 1.05, 0.9, 0.95), ConvNet=(0.5, -0.4, 0.3, 0.6, -0.2))
    assert found.grouping.by == "model.norm"
    pairs = [(one.candidate.group.name, one.baseline.group.name) for one in found.comparisons]
    assert set(pairs) == {
        ("batch (model=MLP)", "none (model=MLP)"),
        ("batch (model=ConvNet)", "none (model=ConvNet)"),
    }
    assert (found.family, [one.difference.n for one in found.comparisons]) == (2, [5, 5])
    mlp = next(one for one in found.comparisons if "MLP" in one.candidate.group.name)
    assert mlp.p_adjusted == pytest.approx(2 * mlp.difference.p)
    first, *rest = all_sentences(found)
    assert first == "batch vs none over 2 values of model: better for MLP; not decided for ConvNet."
    assert any(sentence.startswith("model=MLP: batch beats none by 1.00 points") for sentence in rest)


def test_the_overview_over_learning_rates(tmp_path):
    for lr, by, seeds in ((10, 0, 0), (1, -1, 5), (0.1, 1, 5), (0.01, 1.05, 3)):
        groups = {"none": [None] * 5, "batch": NONE}
        if seeds:
            near = [by + 0.01 * i for i in range(seeds)]
            groups = {"none": NONE[:seeds], "batch": shifted(*near)}
        write_sweep(tmp_path, groups, optimizer_lr=lr)
    assert all_sentences(compare(*read_runs([tmp_path])))[0] == (
        "batch vs none over 4 values of lr: fewer runs lost at 10; better at 0.1; "
        "better, provisionally, at 0.01; worse at 1."
    )


def test_delta_comes_from_the_runs_own_configuration(tmp_path):
    groups = {"none": NONE, "batch": shifted(0.01, -0.02, 0.0, 0.02, -0.01)}
    assert (
        compare_groups(tmp_path / "old", groups).comparisons[0].delta == 0.1
    )  # none recorded: what is shipped
    write_sweep(tmp_path / "own", groups, dataset_delta=0.005)
    found = compare(*read_runs([tmp_path / "own"]))
    assert (found.comparisons[0].delta, found.comparisons[0].outcome) == (0.005, "undecided")
    assert compare(*read_runs([tmp_path / "own"]), delta=0.4).comparisons[0].outcome == "equivalent"
    assert compare(*read_runs([tmp_path / "own"]), metric="test/loss").comparisons[0].delta is None
    write_sweep(tmp_path / "null", groups, dataset_delta=None)
    assert compare(*read_runs([tmp_path / "null"])).comparisons[0].delta is None


def test_runs_that_disagree_on_delta_are_pointed_out(tmp_path):
    write_sweep(tmp_path, {"none": NONE}, dataset_delta=0.5)
    write_sweep(tmp_path, {"batch": shifted(1, 1.1, 1, 0.9, 1)}, dataset_delta=0.2)
    found = compare(*read_runs([tmp_path]))
    assert found.comparisons[0].delta == 0.2
    assert "runs disagree on dataset.delta (0.2, 0.5): the least is used" in found.notes
    assert not any("delta" in note for note in compare(*read_runs([tmp_path]), delta=0.3).notes)


def test_confounders_take_the_effect_away(tmp_path):
    write_sweep(tmp_path / "a", {"none": NONE})
    write_sweep(tmp_path / "b", {"batch": shifted(1.0, 1.1, 1.05, 0.9, 0.95)}, epochs=20)
    said = all_sentences(compare(*read_runs([tmp_path])))
    assert said[1] == "The groups also differ in epochs: the effect can't be laid to model.norm."


def test_a_lucky_spread_is_held_against_the_noise_of_the_test_set(tmp_path):
    """97 % on 10,000 images: two runs differ by 1.96 sqrt(.06 / 20,000) = .34 by chance, three by .19."""
    found = compare_groups(tmp_path, {"none": NONE[:3], "batch": shifted(0.1, 0.101, 0.099)})
    (one,) = found.comparisons
    assert one.p_adjusted < 0.001
    assert one.floor == pytest.approx(0.196, abs=0.003)
    assert one.outcome == "undecided"
    assert "within the ±0.19 points that chance gives" in all_sentences(found)[0]


def test_unpaired_where_no_seed_is_shared(tmp_path):
    write_sweep(tmp_path, {"none": NONE})
    for seed, value in enumerate(shifted(1, 1.1, 1, 0.9, 1.2), 10):
        write_run(tmp_path, value / 100, model_norm="batch", seed=seed)
    found = compare(*read_runs([tmp_path]))
    assert found.comparisons[0].difference.method == "Welch"
    (sentence,) = all_sentences(found)
    assert sentence.startswith("batch beats none by 1.04 points")
    assert sentence.endswith("No shared seeds: Welch's test, unpaired.")
    assert "ahead in" not in sentence


def test_unequal_groups_use_their_common_seeds(tmp_path):
    found = compare_groups(tmp_path, {"none": NONE, "batch": shifted(1.0, 1.1, 0.9)})
    (one,) = found.comparisons
    assert (one.difference.n, one.missing) == (3, ((3, None), (4, None)))


def test_holm_covers_all_groups(tmp_path):
    found = compare_groups(
        tmp_path, {"none": NONE, "batch": shifted(1, 1.1, 1, 0.9, 1), "layer": shifted(0, 0.1, -0.1, 0.2, 0)}
    )
    assert found.family == 2
    batch, layer = found.comparisons
    assert batch.p_adjusted == pytest.approx(2 * batch.difference.p)
    assert layer.p_adjusted == pytest.approx(layer.difference.p)


def test_a_loss_is_better_when_it_is_lower(tmp_path):
    found = compare_groups(
        tmp_path, {"none": NONE, "batch": shifted(1.0, 1.1, 1.05, 0.9, 0.95)}, metric="test/loss"
    )
    (one,) = found.comparisons
    assert (one.outcome, one.delta, one.ahead) == ("better", None, 5)
    assert all_sentences(found)[0].startswith(
        "batch beats none by 0.0100 (0.0090 to 0.0110), ahead in 5 of 5"
    )
    assert "noise of the test set is not known" in found.notes[0]


def test_one_group_and_one_run(tmp_path):
    assert all_sentences(compare_groups(tmp_path / "a", {"none": NONE})) == [
        "One group of 5 runs: nothing to compare it with, no verdict."
    ]
    assert all_sentences(compare_groups(tmp_path / "b", {"none": [97]})) == [
        "A single run: nothing to compare it with, no verdict."
    ]


def test_looks_are_counted(tmp_path):
    groups = {"none": NONE, "batch": shifted(1, 1.1, 1, 0.9, 1)}
    first = compare_groups(tmp_path / "a", {name: values[:3] for name, values in groups.items()})
    assert looks_note(first) == ""
    again = compare_groups(tmp_path / "b", groups, looks=first.looks)
    assert looks_note(again).startswith("Look 2 at these groups (before: 3 runs a group). Testing again")
    assert len(compare_groups(tmp_path / "c", groups, looks=again.looks).looks) == 2  # nothing new was seen


def test_looks_at_other_groups_or_at_one_alone_are_no_looks_at_these(tmp_path):
    groups = {"none": NONE, "batch": shifted(1, 1.1, 1, 0.9, 1)}
    others = (
        {"at": "2026-01-01", "runs": {"none (epochs=1)": 3, "batch (epochs=1)": 3}},
        {"at": "2026-01-02", "runs": {"none": 3}},  # an interrupted sweep: nothing was compared yet
    )
    assert looks_note(compare_groups(tmp_path, groups, looks=others)) == ""


def test_folds_are_no_seeds(tmp_path):
    for fold in range(3):
        write_run(tmp_path, 0.97, seed=0, dataset_fold=fold, model_norm="none")
        write_run(tmp_path, 0.98 + fold / 1000, seed=0, dataset_fold=fold, model_norm="batch")
    found = compare(*read_runs([tmp_path]))
    page = render(found)
    assert "3 paired folds" in page
    assert "in 3 of 3 folds" in page
    assert "mean over folds" in page
    assert "seeds" not in page.replace("more seeds", "")
    for fold in range(3):
        write_run(tmp_path, 0.96, seed=1, dataset_fold=fold, model_norm="none")
        write_run(tmp_path, 0.97 + fold / 1000, seed=1, dataset_fold=fold, model_norm="batch")
    assert "6 paired seed-fold pairs" in render(compare(*read_runs([tmp_path])))


def test_other_threads_in_a_block_are_pointed_out(tmp_path):
    for norm, threads in (("none", 2), ("batch", 1)):
        for seed in range(2):
            run = write_run(tmp_path, 0.97, seed=seed, model_norm=norm)
            (run / "environment.json").write_text(json.dumps({"threads": threads}))
    note = (
        "runs differ in CPU threads (none 2; batch 1): their seconds are no match, and last bits may differ"
    )
    assert note in compare(*read_runs([tmp_path])).notes


def test_the_command_for_more_seeds(tmp_path):
    found = compare_groups(tmp_path, {"none": NONE[:3], "batch": shifted(0.1, 0.6, -0.3)})
    groups = [row.group for row in found.summaries]
    assert commands(groups, 2) == ("bnexp -m model.norm=none,batch seed=3,4",)
    assert commands(groups, 9) == ("bnexp -m model.norm=none,batch 'seed=range(3,12)'",)


def test_more_seeds_join_the_sweep_that_they_belong_to(tmp_path):
    write_sweep(tmp_path, {"none": NONE[:3], "batch": shifted(0.1, 0.6, -0.3)})
    (tmp_path / "multirun.yaml").write_text("")
    groups = [row.group for row in compare(*read_runs([tmp_path])).summaries]
    (command,) = commands(groups, 2)
    assert command.endswith(f" seed=3,4 hydra.sweep.dir={tmp_path}")


def test_groups_of_other_words_get_a_command_each(tmp_path):
    write_run(tmp_path, 0.97, seed=0)
    write_run(tmp_path, 0.98, seed=0, model_norm="batch")
    groups = [row.group for row in compare(*read_runs([tmp_path])).summaries]
    assert commands(groups, 1) == ("bnexp -m seed=1", "bnexp -m model.norm=batch seed=1")


def test_time_to_target_counts_those_that_never_got_there(tmp_path):
    found = compare_groups(tmp_path, {"none": [97, 97, 96], "batch": [98, 98.5, 98]}, target=0.97)
    none, batch = (row.target for row in found.summaries)
    assert (none.count, none.runs, none.epochs, none.seconds) == (
        2,
        3,
        3,
        180.0,
    )  # 60,000 images at 1,000 a second
    assert (batch.count, batch.epochs) == (3, 2)
    never = compare_groups(tmp_path / "b", {"none": [97], "batch": [98]}, target=0.99).summaries[0].target
    assert (never.count, never.epochs) == (0, math.inf)


def test_unknown_metric(tmp_path):
    with pytest.raises(
        UserError, match=r"--metric=test/acuracy: must be one of .*did you mean test/accuracy"
    ):
        compare_groups(tmp_path, {"none": [97]}, metric="test/acuracy")


@pytest.mark.parametrize(
    ("p", "text"), [(0.5, ".50"), (0.0131, ".013"), (0.00044, ".0004"), (1e-9, "<.0001"), (1, "1.0")]
)
def test_p_values(p, text):
    assert p_value(p) == text


def test_false_alarms_at_three_seeds_with_the_noise_floor():
    """Two groups alike, each run with the noise of its test set: the t test calls .049, the floor .013."""
    rng = np.random.default_rng(1)
    called = {0.0: 0, 1.96 / math.sqrt(3): 0}
    draws = 4000
    for row in rng.normal(0, 1, (draws, 3)):
        found = paired(dict(enumerate(row)), dict.fromkeys(range(3), 0.0))
        for floor in called:
            called[floor] += judge(found, found.p, floor, None) in ("better", "worse")
    without, with_floor = (count / draws for count in called.values())
    assert without == pytest.approx(0.049, abs=0.01)
    assert with_floor == pytest.approx(0.013, abs=0.006)


def test_nan_is_not_called():
    assert judge(Difference("paired t", 5, 0.5), math.nan, 0.1, 0.1) == "constant"
    assert judge(Difference("paired t", 0, math.nan), math.nan, 0.1, 0.1) == "nothing"
