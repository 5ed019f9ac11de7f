"""The axes of a measurement's picture."""

from __future__ import annotations

import pytest

from bnexp.report.measurements.measurement import Curve, Measurement, Panel
from bnexp.report.plots.measurements import draw_measurement


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.8, 1.9], {"0.8", "0.9", "1"}),
        ([2.0, 24.0], {"2", "5", "10", "20"}),
        ([0.01, 0.3, 9.0], {"0.01", "0.1", "1"}),
    ],
)
def test_a_log_axis_has_several_labels_and_no_clutter(values, labels):
    x = [float(number) for number in range(len(values))]
    panel = Panel("title", "step", "value", [Curve("none", 0, x, values, values, values)], y_scale="log")
    picture = draw_measurement(Measurement("own", "title", [], [], [panel], "caption"))
    axes = picture.figure.axes[0]
    low, high = axes.get_ylim()
    ticks = [
        (position, formatter(position))
        for positions, formatter in (
            (axes.yaxis.get_majorticklocs(), axes.yaxis.get_major_formatter()),
            (axes.yaxis.get_minorticklocs(), axes.yaxis.get_minor_formatter()),
        )
        for position in positions
    ]
    shown = {label for position, label in ticks if label and low <= position <= high}
    assert labels <= shown
    assert 3 <= len(shown) <= 12
