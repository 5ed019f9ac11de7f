"""The gap between training and test images, read from tables whose numbers are known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bnexp.report.measurements.gap import group_images, last_gap, read_gap
from bnexp.report.read.probe_tables import ProbeTable
from helpers.probe_tables import arm


def table(gap: float, epochs: int = 10):
    """The gap grows from 0 to ``gap`` in the first 7 epochs and stays there."""
    return [
        {
            "step": epoch, "train_loss": 0.1, "train_accuracy": 0.9, "test_loss": 0.1 + gap,
            "loss_gap": gap * min(epoch / 7, 1), "accuracy_gap": gap / 10,
        }
        for epoch in range(1, epochs + 1)
    ]  # fmt: skip


def test_a_gap_is_the_mean_of_the_last_epochs():
    assert last_gap("loss_gap")(ProbeTable(tuple(table(0.5)))) == pytest.approx(0.5)
    assert last_gap("loss_gap")(ProbeTable(tuple(table(0.7, epochs=1)))) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("norm", "norm_images", "images"),
    [("batch", 16, 16), ("batch", None, 512), ("batch_manual", None, 512), ("layer", None, None)],
)
def test_the_images_that_share_statistics(norm, norm_images, images):
    settings = {"model.norm": norm, "model.norm_images": norm_images, "batch_size": 512}
    assert group_images(replace(arm("a", [table(0.1)]), settings=settings)) == images


def ghost(images: int, gaps, **keys):
    return arm(
        f"M={images}", [table(gap) for gap in gaps], model_norm="batch", model_norm_images=images, **keys
    )


def test_smaller_groups_are_held_against_the_publication():
    whole = ghost(512, [0.40, 0.41, 0.39], is_baseline=True)
    measurement = read_gap(
        [whole, ghost(16, [0.30, 0.31, 0.29], index=1), ghost(4, [0.41, 0.40, 0.4], index=2)]
    )
    smaller, unclear = measurement.sentences[:2]
    assert "with M=16 0.75" in smaller
    assert smaller.endswith("smaller, as Luo et al. (2019) report.")
    assert "not decided. Luo et al. (2019) report it smaller; that does not show here" in unclear
    means = {(number.name, number.arm): number.estimate.mean for number in measurement.numbers}
    assert means["loss gap", "M=16"] == pytest.approx(0.3)
    assert means["accuracy gap", "M=16"] == pytest.approx(0.03)


def test_the_second_panel_has_the_gap_against_the_inverse_number_of_images():
    arms = [ghost(512, [0.4, 0.5], is_baseline=True), ghost(16, [0.3, 0.1], index=1)]
    by_step, by_noise = read_gap(arms).panels
    assert [curve.label for curve in by_step.curves] == ["M=512", "M=16"]
    (curve,) = by_noise.curves
    assert curve.x == [1 / 512, 1 / 16]
    assert curve.mean == pytest.approx([0.45, 0.2])
    assert (curve.low[1], curve.high[1]) == pytest.approx((0.1, 0.3))


def test_other_arms_have_one_panel_and_no_claim():
    arms = [arm("none", [table(0.4)] * 3, is_baseline=True, model_norm="none"),
            arm("batch", [table(0.2)] * 3, model_norm="layer")]  # fmt: skip
    measurement = read_gap(arms)
    assert len(measurement.panels) == 1
    assert not any("Luo" in sentence for sentence in measurement.sentences)
