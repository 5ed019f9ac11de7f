"""The pictures: what is drawn, what its words say, and that any name can be drawn."""

import io
import math

import pytest

from bnexp.report.analysis.curves import band, time_to_target
from bnexp.report.analysis.verdict import compare
from bnexp.report.plots.comparison import MOST, draw_pictures
from bnexp.report.read.runs import read_runs
from helpers.made_runs import compared, made, made_run

GROUPS = {"none": [97.0, 97.2, 96.9, None, 97.1], "batch": [98.0, 98.1, 98.2, 98.1, 98.0]}


def drawn(found):
    return {picture.name: picture for picture in draw_pictures(found)}


def test_every_picture_is_there_and_has_words(tmp_path):
    found = drawn(compared(tmp_path, GROUPS))
    assert set(found) == {"forest", "twins", "curves", "finals", "target"}
    for picture in found.values():
        assert picture.alt
        assert picture.caption
        assert picture.svg.startswith("<svg")
        assert "currentColor" in picture.svg
        assert "#ffffff" not in picture.svg  # no white card on a dark page
        assert "<script" not in picture.svg
        png = io.BytesIO()
        picture.write_png(png)
        assert png.getvalue().startswith(b"\x89PNG")


def test_a_grid_of_learning_rates_shows_stability(tmp_path):
    for lr in (0.01, 0.1):
        made(tmp_path, {"none": [97, None], "batch": [98, 98.2]}, optimizer_lr=lr)
    found = drawn(compare(*read_runs([tmp_path])))
    assert set(found) == {"forest", "twins", "stability", "curves", "curves-2", "finals", "target"}
    (axes,) = found["stability"].figure.axes
    crosses = [line for line in axes.get_lines() if line.get_marker() == "x"]
    assert [text.get_text() for text in axes.texts] == ["1", "1"]  # one diverged at each rate
    assert all(line.get_ydata()[0] < 97 for line in crosses)
    assert [one.get_title("left") for one in found["twins"].figure.axes] == ["lr=0.01", "lr=0.1"]


def test_curves_by_second_of_training(tmp_path):
    """60,000 images at 1,000 a second (2,000 in seed 1): the mean's seconds are the means at each epoch."""
    made(tmp_path, {"none": [97, 98, 97]})
    path = tmp_path / "model.norm=none,seed=1" / "metrics.csv"
    path.write_text(path.read_text().replace(",1000,", ",2000,"))
    runs, _ = read_runs([tmp_path])
    assert runs[0].train_s == [60, 120, 180]
    assert band(runs, "test/accuracy").seconds == (50, 100, 150)
    curves = drawn(compare(*read_runs([tmp_path])))["curves"].figure.axes
    assert [one.get_ylabel() for one in curves[::2]] == [
        "train accuracy (%)",
        "test accuracy (%)",
        "train loss",
        "test loss",
    ]
    assert [one.get_xlabel() for one in curves[-2:]] == ["epoch", "training time (s)"]
    means = [next(line for line in one.get_lines() if line.get_marker() == "o") for one in curves[-2:]]
    assert [list(line.get_xdata()) for line in means] == [[1, 2, 3], [50, 100, 150]]


def test_without_a_count_of_images_there_are_no_seconds(tmp_path):
    for seed in range(3):
        made_run(tmp_path, 0.9, seed=seed, dataset_name="image_folder")
    runs, _ = read_runs([tmp_path])
    assert (runs[0].train_s, band(runs, "test/accuracy").seconds) == ([], ())
    found = drawn(compare(runs))
    assert [one.get_xlabel() for one in found["curves"].figure.axes][-1] == "epoch"
    assert "target" not in found


def test_a_difference_far_beyond_the_others_is_an_arrow(tmp_path):
    for lr, low in ((0.1, 97), (0.2, 97.2), (0.3, 97.1), (1, 40)):
        made(tmp_path, {"none": [low, low + 0.1, low], "batch": [98, 98, 98.1]}, optimizer_lr=lr)
    forest = drawn(compare(*read_runs([tmp_path])))["forest"]
    (axes,) = forest.figure.axes
    assert axes.get_xlim()[1] < 3
    assert [text.get_text() for text in axes.texts] == ["+58.00"]
    assert "An arrow: the difference lies beyond the axis." in forest.caption


def test_the_forest_draws_differences_intervals_zero_and_delta(tmp_path):
    picture = drawn(compared(tmp_path, GROUPS))["forest"]
    (axes,) = picture.figure.axes
    spans = [list(line.get_xdata()) for line in axes.get_lines()]
    assert [0, 0] in spans
    assert axes.collections[0].get_datalim(axes.transData).intervalx == pytest.approx([-0.1, 0.1])
    assert "±0.1" in picture.caption


def test_twins_that_diverged_end_in_an_x_at_the_bottom(tmp_path):
    (axes,) = drawn(compared(tmp_path, GROUPS))["twins"].figure.axes
    crosses = [line for line in axes.get_lines() if line.get_marker() == "x" and len(line.get_xdata())]
    assert len(crosses) == 1
    assert crosses[0].get_ydata()[0] < 96.9


def test_bands_say_what_they_are(tmp_path):
    caption = drawn(compared(tmp_path, GROUPS))["curves"].caption
    assert "95 % t interval (n=5)" in caption
    few = compared(tmp_path / "few", {"none": [97, 98, 97], "batch": [98, 98, 97]})
    assert "least to greatest (n=3)" in drawn(few)["curves"].caption


def test_a_mean_stops_where_a_run_does(tmp_path):
    made(tmp_path, {"none": [97, 98, 97]})
    runs, _ = read_runs([tmp_path])
    cut = tmp_path / "model.norm=none,seed=1" / "metrics.csv"
    cut.write_text("\n".join(cut.read_text().splitlines()[:3]) + "\n")
    shorter, problems = read_runs([tmp_path])
    assert len(band(runs, "test/accuracy").mean) == 3
    found = band(shorter, "test/accuracy", scale=100)
    assert found.epochs == (1, 2)
    assert found.mean[1] == pytest.approx((96 + 97 + 96) / 3)
    assert (found.low[1], found.high[1]) == (96, 97)
    assert "disagree" in problems[0].reason


def test_reached_without_curves():
    found = time_to_target([], "test", 0.9)
    assert (found.count, found.runs) == (0, 0)
    assert math.isnan(found.epochs)


def test_names_with_dollars_and_tags_are_drawn_as_they_are(tmp_path):
    name = "$x^{$<b>&"
    picture = drawn(compared(tmp_path, {"none": [97, 98, 97], name: [98, 99, 98]}))["forest"]
    assert "$x^{$&lt;b&gt;&amp;" in picture.svg


def test_many_groups_are_cut_to_what_can_be_told_apart(tmp_path):
    found = drawn(compared(tmp_path, {f"norm{i}": [97 + 0.1 * i, 97.3] for i in range(MOST + 3)}))
    assert len(found["twins"].figure.axes[0].get_xticks()) == MOST
