"""What the probes landscape and shift show, read from tables whose numbers are known."""

from __future__ import annotations

import math

import pytest

from bnexp.report.measurements.landscape import QUANTITIES, greatest_rate, read_landscape
from bnexp.report.measurements.shift import cosine, distance, read_shift, relative_distance
from bnexp.report.read.probe_tables import ProbeTable
from helpers.probe_tables import arm


def landscape(scale=1.0, losses=(1.0, 2.0, 4.0), steps=(1, 11, 21)):
    """Four factors a step, the last two of equal loss; all ranges are in proportion to ``scale`` and step."""
    return [
        {
            "step": step, "lr_factor": factor, "loss": 3.0, "moved_loss": scale * step * loss,
            "gradient_norm": 1.0, "gradient_distance": scale * step * factor,
            "smoothness": scale * step * loss,
        }
        for step in steps
        for factor, loss in zip((0.5, 1.0, 2.0, 4.0), (*losses, losses[-1]), strict=True)
    ]  # fmt: skip


def test_numbers_are_medians_over_the_steps():
    numbers = read_landscape([arm("none", [landscape()] * 3, is_baseline=True)]).numbers
    assert [number.estimate.mean for number in numbers] == pytest.approx([11 * 3, 11 * 3.5, 11 * 4])
    assert [number.name.split(",")[0] for number in numbers] == list(QUANTITIES)


def test_batch_norm_is_held_against_the_paper():
    none = arm("none", [landscape(2.0), landscape(2.1), landscape(1.9)], is_baseline=True)
    batch = arm("batch", [landscape(1.0)] * 3, model_norm="batch")
    noise = arm("batch_noise", [landscape(1.0)] * 3, model_norm="batch_noise")
    sentences = read_landscape([none, batch, noise]).sentences
    # At the first step the loss is lower up to factor 1 with scale 1, at the first factor alone with 2.
    smoothness = next(text for text in sentences if text.startswith("Effective smoothness"))
    assert "median over the measured steps: with batch 0.50 (" in smoothness
    assert smoothness.endswith("3 seeds) times that with none: smaller, as Santurkar et al."
                               " (2018, figure 4) report.")  # fmt: skip
    assert not any("Santurkar" in text for text in sentences if "with batch_noise" in text)
    rate = next(text for text in sentences if text.startswith("Greatest measured learning rate"))
    assert "with batch 2.000 (2.000 to 2.000, 3 seeds)" in rate
    assert rate.endswith("greater, as Bjorck et al. (2018) report.")


@pytest.mark.parametrize(
    ("losses", "rate"),
    [((1, 2, 4), 1.0), ((1, 4, 2), 0.5), ((1, math.nan, 2), 0.5), ((4, 1, 4), None), ((1, 1, 1), None)],
)
def test_the_greatest_rate_is_that_before_the_loss_first_rises(losses, rate):
    value = greatest_rate(ProbeTable(tuple(landscape(losses=losses, steps=(1,)))))
    assert value == rate if rate else math.isnan(value)


def test_a_loss_that_overflows_is_counted_and_outlived_by_the_median():
    rows = landscape()
    rows[0]["moved_loss"], rows[5]["smoothness"] = math.inf, math.nan
    measurement = read_landscape([arm("none", [rows], is_baseline=True)])
    assert measurement.sentences[0] == (
        "none: the loss is not a finite number at 1 of 12 points along the gradient."
    )
    assert [number.estimate.mean for number in measurement.numbers[:2]] == pytest.approx([21 * 3, 11 * 3.5])


def test_one_measured_step_has_the_loss_ratio_alone():
    (panel,) = read_landscape([arm("none", [landscape(steps=(1,))], is_baseline=True)]).panels
    assert panel.curves[0].x == [0.5, 1.0, 2.0, 4.0]
    assert panel.curves[0].mean == pytest.approx([1 / 3, 2 / 3, 4 / 3, 4 / 3])


def test_only_the_multiples_of_the_paper_make_a_range():
    rows = landscape()
    wide = [{**row, "lr_factor": 100.0, "moved_loss": 1e9, "gradient_distance": 1e9} for row in rows[::4]]
    plain, wider = (
        read_landscape([arm("none", [table], is_baseline=True)]) for table in (rows, [*rows, *wide])
    )
    assert [number.estimate for number in wider.numbers] == [number.estimate for number in plain.numbers]
    few = read_landscape([arm("none", [[row for row in rows if row["lr_factor"] != 2]], is_baseline=True)])
    assert few.numbers == []
    assert [panel.title for panel in few.panels] == ["first step"]


def test_the_greatest_ratio_stands_without_a_claim():
    none = arm("none", [landscape(2.0)] * 3, is_baseline=True)
    sentences = read_landscape([none, arm("batch", [landscape()] * 3, model_norm="batch")]).sentences
    assert sentences[-1] == (
        "Greatest L(W - eta g) / L(W) at the first step: with batch 0.500 (0.500 to 0.500, 3 seeds) times"
        " that with none."
    )


def shift(values, angle=0.9):
    """Three layers; the first has nothing below it."""
    return [
        {"step": step, "layer": layer, "gradient_norm": 2.0, "gradient_distance": value, "cosine": angle}
        for step in (1, 2)
        for layer, value in zip(("a", "b", "c"), (0.0, *values), strict=True)
    ]


def test_shift_is_the_median_over_the_layers_above_the_first():
    table = ProbeTable(tuple(shift((1.0, 2.0))))
    assert (distance(table), relative_distance(table), cosine(table)) == (1.5, 0.75, 0.9)
    measurement = read_shift([arm("none", [table.rows], is_baseline=True)])
    assert measurement.panels[0].curves[0].mean == [1.5, 1.5]
    assert measurement.sentences == [
        "Cosine of a layer's gradients before and after the layers below move, none: 0.9 (1 seed)."
    ]


@pytest.mark.parametrize(
    ("factors", "ending"),
    [
        ([2.0, 2.1, 1.9], ": greater. Santurkar et al. (2018, section 2.2) report it not smaller;"
                          " this agrees."),
        ([0.5, 2.0, 1.1], ": not decided. Santurkar et al. (2018, section 2.2) report it not smaller;"
                          " this agrees."),
        (
            [0.50, 0.51, 0.49],
            ": smaller. Santurkar et al. (2018, section 2.2) report it not smaller; that does not show here.",
        ),
    ],
)  # fmt: skip
def test_the_paper_reports_that_shift_is_not_smaller(factors, ending):
    none = arm("none", [shift((1.0, 2.0))] * 3, is_baseline=True)
    batch = arm("batch", [shift((factor, 2 * factor)) for factor in factors], model_norm="batch")
    sentences = read_shift([none, batch]).sentences
    assert sentences[2].startswith("Internal covariate shift ||G - G'||: with batch")
    assert sentences[2].endswith(ending)
    assert len(sentences) == 4
