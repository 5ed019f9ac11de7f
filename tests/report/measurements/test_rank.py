"""Orthogonality gap and soft rank by depth and width, read from tables whose numbers are known."""

from __future__ import annotations

import pytest

from bnexp.report.measurements.rank import read_rank
from bnexp.report.measurements.theory import orthogonality_floor
from helpers.probe_tables import arm

LINEAR = {"model__target_": "bnexp.models.MLP", "model_activation": "linear"}


def table(gap, rank, *, width=256.0, depth=30, images=32.0):
    """Layers up to ``depth``; the last has this gap and rank."""
    return [
        {
            "step": 0, "layer": f"hidden.{layer}", "depth": float(layer), "width": width, "images": images,
            "orthogonality_gap": gap + depth - layer, "soft_rank": rank + depth - layer,
        }
        for layer in range(depth + 1)
    ]  # fmt: skip


def linear_arm(name, norm, tables, *, is_baseline=False, **keys):
    settings = LINEAR | keys
    return arm(name, tables, is_baseline=is_baseline, model_norm=norm, **settings)


def pair(**keys):
    none = linear_arm("none", "none", [table(g, 1.2) for g in (0.8, 0.9, 1.0)], is_baseline=True, **keys)
    return [none, linear_arm("batch", "batch", [table(g, 15.0) for g in (0.18, 0.19, 0.2)], **keys)]


def test_gap_and_rank_of_the_last_layer_stand_beside_their_theory():
    measurement = read_rank(pair())
    numbers = {(n.name, n.arm): n for n in measurement.numbers}
    gap = numbers["orthogonality gap of the last layer", "batch"]
    assert (gap.estimate.mean, gap.expected) == (pytest.approx(0.19), orthogonality_floor(32, 256))
    rank = numbers["soft rank of the last layer", "none"]
    assert (rank.estimate.mean, rank.expected) == (pytest.approx(1.2), 1.0)
    assert numbers["orthogonality gap of the last layer", "none"].expected is None
    assert numbers["soft rank of the last layer", "batch"].expected is None


def test_the_sentences_are_those_with_a_theory_and_the_claim():
    gap, rank, claim = read_rank(pair()).sentences
    assert gap == (
        "Orthogonality gap of the last layer, batch: theory 0.1821 (linearised; its order width^(-1/2) is"
        " that of Daneshmand et al. (2021)), measured 0.190 (0.165 to 0.215, 3 seeds)."
    )
    assert rank.startswith("Soft rank of the last layer, none: theory 1 (the limit of great depth")
    assert claim.startswith("Orthogonality gap of the last layer: with batch 0.21")
    assert claim.endswith("smaller, as Daneshmand et al. (2021) report.")


@pytest.mark.parametrize(
    "keys",
    [
        {"model_activation": "relu"}, {"model_residual": "plain"}, {"model_norm_images": 8},
        {"model__target_": "bnexp.models.ConvNet"},
    ],
)  # fmt: skip
def test_no_theory_is_claimed_for_other_networks(keys):
    assert [n.expected for n in read_rank(pair(**keys)).numbers] == [None] * 4


@pytest.mark.parametrize("sizes", [{"depth": 5}, {"width": 64.0}])
def test_no_floor_is_claimed_for_shallow_and_for_narrow_networks(sizes):
    (gap, _) = read_rank([linear_arm("batch", "batch", [table(0.2, 15.0, **sizes)])]).numbers
    assert gap.expected is None


def widths(gap_of_width, norm="batch"):
    return [
        linear_arm(f"{width}", norm, [table(factor * gap_of_width(width), 9.0, width=float(width))
                                      for factor in (0.9, 1.0, 1.1)])
        for width in (128, 256, 512)
    ]  # fmt: skip


def test_the_slope_against_width_is_fitted_for_each_seed():
    measurement = read_rank(widths(lambda width: 2 * width**-0.5))
    (slope,) = [n for n in measurement.numbers if n.name.startswith("slope")]
    assert slope.estimate.mean == pytest.approx(-0.5)
    assert slope.estimate.low == pytest.approx(-0.5)  # a factor moves no slope
    assert (slope.arm, slope.expected) == ("model.norm=batch", -0.46)
    assert (
        "Slope of the orthogonality gap of the last layer against width, model.norm=batch: reported -0.46"
        " (Daneshmand et al. (2021)), measured -0.500"
    ) in measurement.sentences[-1]


def test_two_widths_have_no_slope():
    numbers = read_rank(widths(lambda width: width**-0.5)[:2]).numbers
    assert not any(n.name.startswith("slope") for n in numbers)


def test_the_panels_are_by_depth():
    gap, rank = read_rank(pair()).panels
    assert gap.curves[1].x == list(range(31))
    assert gap.curves[1].mean[-1] == pytest.approx(0.19)
    assert rank.curves[0].mean[:2] == pytest.approx([31.2, 30.2])
