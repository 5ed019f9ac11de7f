"""The pictures: what is drawn, and that every path can be told apart."""

from __future__ import annotations

import io
import math

import pytest
import torch

from bnexp.descent.picture import _box, _levels, draw_paths
from bnexp.report.plots.style import MAX_GROUPS
from helpers.descents import descend


def lines_by_label(axes):
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


@pytest.mark.parametrize("function", ["square", "ellipse", "rosenbrock", "wave", "regression"])
def test_every_picture_has_alt_text_svg_and_png(function):
    picture = draw_paths([descend(f"function={function}", label="sgd")])
    assert picture.alt.startswith(f"{function}")
    assert picture.caption
    assert picture.svg.startswith("<svg")
    png = io.BytesIO()
    picture.write_png(png)
    assert png.getvalue().startswith(b"\x89PNG")


def test_a_curve_joins_the_points_of_each_path():
    arms = [descend("function=square", "steps=4", f"optimizer.lr={lr}", label=lr) for lr in ("0.1", "0.3")]
    (axes,) = draw_paths(arms).figure.axes
    lines = lines_by_label(axes)
    assert list(lines) == ["0.1", "0.3"]
    for arm in arms:
        x, y = lines[arm.label].get_data()
        assert list(x) == [row.point[0] for row in arm.path.rows]
        assert list(y) == [row.value for row in arm.path.rows]
    assert axes.get_xlabel() == "x"
    assert axes.get_ylabel() == "value"


def test_contours_have_labels_equal_units_and_a_mark_at_the_minimum():
    figure = draw_paths([descend(label="sgd"), descend("optimizer=newton", label="newton")]).figure
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x1", "x2")
    place, size = axes.get_position(), figure.get_size_inches()
    units = [
        place.width * size[0] / (axes.get_xlim()[1] - axes.get_xlim()[0]),
        place.height * size[1] / (axes.get_ylim()[1] - axes.get_ylim()[0]),
    ]
    assert units[0] == pytest.approx(units[1])
    marks = [line for line in axes.get_lines() if line.get_marker() == "+"]
    assert [tuple(map(float, mark.get_xydata()[0])) for mark in marks] == [(0.0, 0.0)]
    assert len(axes.texts) >= 4  # the contours' values


def test_a_path_that_diverges_does_not_flatten_the_others():
    calm = descend("function=square", "optimizer.lr=0.1", label="calm")
    wild = descend("function=square", "optimizer.lr=1.1", "steps=100", label="wild")
    ((low, high),) = _box([calm, wild])
    assert -25 < low < -10  # its first steps are shown
    assert 10 < high < 25
    lines = lines_by_label(draw_paths([calm, wild]).figure.axes[0])
    assert len(lines["wild"].get_xdata()) < 10
    assert len(lines["calm"].get_xdata()) == 21


def test_a_path_alone_that_overflows_is_drawn_where_it_begins():
    (axes,) = draw_paths([descend("function=rosenbrock", "optimizer.lr=0.1", label="sgd")]).figure.axes
    assert max(map(abs, (*axes.get_xlim(), *axes.get_ylim()))) < 100


def test_the_best_paths_are_drawn_in_their_typed_order():
    rates = [0.02 * i for i in range(1, MAX_GROUPS + 4)]
    arms = [descend("function=square", f"optimizer.lr={lr}", label=f"{lr:.2f}") for lr in rates]
    picture = draw_paths(arms)
    labels = list(lines_by_label(picture.figure.axes[0]))
    assert labels == [f"{lr:.2f}" for lr in rates[-MAX_GROUPS:]]
    assert f"Shown: the best {MAX_GROUPS} of {len(rates)} descents." in picture.caption


def test_regression_is_drawn_against_epochs_and_seconds():
    arms = [
        descend("function=regression", f"batch_size={size}", "epochs=2", "optimizer.lr=0.01", label=size)
        for size in ("442", "10")
    ]
    epochs, seconds = draw_paths(arms).figure.axes
    assert (epochs.get_xlabel(), seconds.get_xlabel()) == ("epoch", "seconds of the steps")
    assert max(lines_by_label(epochs)["10"].get_xdata()) == 2
    assert seconds.get_xscale() == "log"


def three(a, b, c):
    return a**2 + b**2 + c**2


def test_a_function_of_three_variables_is_drawn_as_its_value():
    arm = descend("function=custom", f"function._target_={__name__}.three", "start=[1,2,3]", label="three")
    (axes,) = draw_paths([arm]).figure.axes
    assert axes.get_xlabel() == "step"
    assert lines_by_label(axes)["three"].get_ydata()[0] == 14


def test_levels_are_round_and_rise():
    levels = _levels(torch.tensor([[math.nan, 1.0, 2.34567], [5.0, 17.123, math.inf]]))
    assert levels == sorted(set(levels))
    assert all(float(f"{level:.2g}") == level for level in levels)
    assert _levels(torch.tensor([[math.nan]])) == []
