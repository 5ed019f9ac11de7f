"""Both accuracies and the variance shift, read from tables whose numbers are known."""

from __future__ import annotations

import math

import pytest

from bnexp.report.measurements.precise import read_precise
from helpers.probe_tables import arm

SMALL, LARGE = "64", "4096"


def table(gaps, *, steps=14, shift=1.5, expected=None):
    """An epoch for each of ``gaps``, in points, and two batch norm layers; the second has the theory."""
    rows = []
    for epoch, gap in enumerate(gaps, 1):
        theory = {} if expected is None else {"expected_shift": expected}
        rows += [
            {
                "step": steps * epoch, "layer": "all", "variance_shift": shift, **theory,
                "accuracy_running": 0.9, "accuracy_precise": 0.9 + gap / 100,
            },
            {"step": steps * epoch, "layer": "hidden.0.norm", "variance_shift": 1.1, "expected_shift": ""},
            {"step": steps * epoch, "layer": "hidden.1.norm", "variance_shift": shift, **theory},
        ]  # fmt: skip
    return rows


def arms(*groups, batch_size=64):
    """Arms by name, tables and settings; the first is the baseline."""
    results = []
    for index, (name, tables, keys) in enumerate(groups):
        settings = {key: value for key, value in keys.items() if key != "batch_size"}
        results.append(arm(name, tables, is_baseline=index == 0, index=index, **settings))
        more = {"batch_size": keys.get("batch_size", batch_size), "model._target_": "bnexp.models.MLP"}
        results[-1].settings.update(more | results[-1].settings)
    return results


def batch_sizes(small_gaps, large_gaps):
    return arms(
        (SMALL, [table([gap, 0.0], steps=844) for gap in small_gaps], {"batch_size": 64}),
        (LARGE, [table([gap, 0.0]) for gap in large_gaps], {"batch_size": 4096}),
    )


def test_the_sentence_of_an_arm_has_both_gaps_and_the_share_of_the_initial_statistics():
    small, large = read_precise(batch_sizes([0.1, 0.0, -0.1], [5.0, 6.0, 7.0])).sentences[:2]
    assert small == (
        "Precise minus running accuracy, batch_size=64: 0.00 (-0.25 to 0.25, 3 seeds) points after epoch 1;"
        " 0.000 (0.000 to 0.000, 3 seeds) points after epoch 2."
    )
    assert large == (
        "Precise minus running accuracy, batch_size=4096: 6.0 (3.5 to 8.5, 3 seeds) points after epoch 1,"
        " where 23 % of the initial statistics is left (theory: 0.9^14); 0.000 (0.000 to 0.000, 3 seeds)"
        " points after epoch 2."
    )


def test_after_a_single_epoch_the_gap_is_told_once():
    (sentence,) = read_precise(arms(("all runs", [table([2.0])], {}))).sentences
    assert sentence == (
        "Precise minus running accuracy, all runs: 2 (1 seed) points after epoch 1, where 23 % of the initial"
        " statistics is left (theory: 0.9^14)."
    )


@pytest.mark.parametrize("target", ["bnexp.models.from_torchvision", "mynets.Net"])
def test_of_networks_with_a_momentum_of_their_own_no_share_is_told(target):
    groups = arms(("all runs", [table([2.0])], {"model__target_": target}))
    assert read_precise(groups).sentences[0].endswith(": 2 (1 seed) points after epoch 1.")


@pytest.mark.parametrize(
    ("large_gaps", "ending"),
    [
        ([5.0, 6.0, 7.0], ": greater, as Wu & Johnson (2021) report."),
        ([-5.0, 6.0, 0.0], ": not decided. Wu & Johnson (2021) report it greater; that does not show here."),
        ([-5.0, -6.0, -7.0], ": smaller. Wu & Johnson (2021) report it greater; that does not show here."),
        ([5.0, 6.0], "; too few seeds to hold against Wu & Johnson (2021), who report it greater."),
    ],
)
def test_the_gap_of_large_batches_is_held_against_wu_and_johnson(large_gaps, ending):
    sentence = read_precise(batch_sizes([0.1, 0.0, -0.1][: len(large_gaps)], large_gaps)).sentences[2]
    assert sentence.startswith("After epoch 1 the gap with batch_size=4096 is that with batch_size=64 plus")
    assert sentence.endswith(ending)


def test_arms_of_equal_batch_size_have_no_such_sentence():
    groups = arms(("none", [table([1.0])] * 3, {}), ("all", [table([1.0])] * 3, {}), batch_size=64)
    assert not any("batch_size=" in sentence for sentence in read_precise(groups).sentences)


def dropout_arms():
    return arms(
        ("dropout=0.0", [table([0.0], shift=shift) for shift in (1.02, 1.03, 1.04)], {"model_dropout": 0.0}),
        (
            "all", [table([0.2], shift=shift, expected=1.5) for shift in (1.4, 1.5, 1.6)],
            {"model_dropout": 0.5, "model_dropout_layers": "all"},
        ),
        (
            "last", [table([0.0], shift=shift) for shift in (1.02, 1.03, 1.04)],
            {"model_dropout": 0.5, "model_dropout_layers": "last"},
        ),
        batch_size=64,
    )  # fmt: skip


def test_the_shift_of_the_first_layer_behind_dropout_stands_beside_its_theory():
    measurement = read_precise(dropout_arms())
    numbers = [n for n in measurement.numbers if n.name == "variance shift of hidden.1.norm"]
    assert [n.arm for n in numbers] == ["dropout=0.0", "all", "last"]
    assert [n.expected for n in numbers] == [1.0, 1.5, 1.0]
    assert [n.estimate.mean for n in numbers] == pytest.approx([1.03, 1.5, 1.03])
    assert (
        "Variance shift of hidden.1.norm, all: theory 1.5 (Li et al. (2019)), measured 1.50 (1.25 to 1.75,"
        " 3 seeds)."
    ) in measurement.sentences
    claims = [
        sentence for sentence in measurement.sentences if sentence.startswith("Greatest variance shift")
    ]
    assert len(claims) == 1  # dropout behind the last norm shifts nothing
    assert claims[0].endswith("greater, as Li et al. (2019) report.")


def test_without_dropout_no_shift_is_held_against_theory():
    measurement = read_precise(batch_sizes([0.1, 0.0, -0.1], [5.0, 6.0, 7.0]))
    assert not any("variance shift" in number.name for number in measurement.numbers)


def test_the_panels_are_by_epoch():
    running, precise, shift = read_precise(batch_sizes([1.0] * 3, [5.0] * 3)).panels
    assert (running.curves[1].x, running.curves[1].mean) == ([1, 2], [0.9, 0.9])
    assert precise.curves[1].mean == pytest.approx([0.95, 0.9])
    assert shift.curves[0].mean == [1.5, 1.5]


def test_with_dropout_a_panel_has_the_shift_of_each_layer():
    layers = read_precise(dropout_arms()).panels[2]
    assert (layers.curves[1].x, layers.curves[1].mean) == ([1, 2], pytest.approx([1.1, 1.5]))


def test_an_accuracy_that_is_not_finite_counts_for_nothing():
    (first, _) = read_precise(arms(("64", [table([math.nan]), table([2.0])], {"batch_size": 64}))).numbers
    assert (first.estimate.mean, first.estimate.n) == (pytest.approx(2.0), 1)
