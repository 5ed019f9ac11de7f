"""The pictures of a report: which are drawn, what they show, what their captions say."""

import io
import math
import os
import subprocess
import sys

import matplotlib
import pytest

from bnexp.report.analysis.curves import band, time_to_target
from bnexp.report.analysis.verdict import compare
from bnexp.report.plots.pictures import draw_pictures
from bnexp.report.plots.style import MAX_GROUPS, WIDE, spread
from bnexp.report.read.runs import read_runs
from helpers.run_folders import compare_groups, write_run, write_sweep

GROUPS = {"none": [97.0, 97.2, 96.9, None, 97.1], "batch": [98.0, 98.1, 98.2, 98.1, 98.0]}


def pictures_by_name(verdict):
    return {picture.name: picture for picture in draw_pictures(verdict)}


def pictures_of_folder(folder):
    return pictures_by_name(compare(*read_runs([folder])))


def test_a_matplotlibrc_of_the_user_changes_no_picture(tmp_path):
    verdict = compare_groups(tmp_path, GROUPS)
    expected = [(picture.svg, png_of(picture)) for picture in draw_pictures(verdict)]
    own_style = {"text.usetex": True, "axes.titlecolor": "red", "lines.linewidth": 9, "savefig.dpi": 3}
    with matplotlib.rc_context(own_style):
        assert [(picture.svg, png_of(picture)) for picture in draw_pictures(verdict)] == expected
        assert {key: matplotlib.rcParams[key] for key in own_style} == own_style


def png_of(picture):
    file = io.BytesIO()
    picture.write_png(file)
    return file.getvalue()


def test_every_picture_has_alt_text_caption_svg_and_png(tmp_path):
    pictures = pictures_by_name(compare_groups(tmp_path, GROUPS))
    assert list(pictures) == ["forest", "curves", "target"]
    for picture in pictures.values():
        assert picture.alt
        assert picture.caption
        assert picture.svg.startswith("<svg")
        assert "currentColor" in picture.svg
        assert "#ffffff" not in picture.svg  # no white background on a dark page
        assert "<script" not in picture.svg
        png = io.BytesIO()
        picture.write_png(png)
        assert png.getvalue().startswith(b"\x89PNG")


def test_several_learning_rates_give_a_picture_of_their_own(tmp_path):
    for lr in (0.01, 0.1):
        write_sweep(tmp_path, {"none": [97, None], "batch": [98, 98.2]}, optimizer_lr=lr)
    pictures = pictures_of_folder(tmp_path)
    assert list(pictures) == ["learning-rates", "forest", "curves", "target", "curves-2", "target-2"]
    assert pictures["learning-rates"].title == "Which learning rates suit each norm?"
    (axes,) = pictures["learning-rates"].figure.axes
    crosses = [line for line in axes.get_lines() if line.get_marker() == "x"]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["1 lost", "1 lost", "none", "batch"]  # one diverged at each rate; the lines' names
    assert all(line.get_ydata()[0] < 97 for line in crosses)
    panels = pictures["forest"].figure.axes
    assert [panel.get_title("left") for panel in panels[::2]] == ["lr=0.01", "lr=0.1"]


def test_seconds_of_a_mean_are_the_mean_seconds_at_each_epoch(tmp_path):
    """An epoch of 60,000 images takes 60 s at 1,000 images a second, and 30 s in seed 1 at 2,000."""
    write_sweep(tmp_path, {"none": [97, 98, 97]})
    path = tmp_path / "model.norm=none,seed=1" / "metrics.csv"
    path.write_text(path.read_text().replace(",1000,", ",2000,"))
    runs, _ = read_runs([tmp_path])
    assert runs[0].train_s == [60, 120, 180]
    assert band(runs, "test/accuracy").seconds == (50, 100, 150)
    pictures = pictures_of_folder(tmp_path)
    panels = pictures["curves"].figure.axes
    assert [panel.get_title("left") for panel in panels] == [
        "training accuracy (%)",
        "test accuracy (%)",
        "training loss",
        "test loss",
    ]
    by_second, shares = pictures["target"].figure.axes
    assert [axes.get_xlabel() for axes in (by_second, shares)] == ["training time (s)"] * 2
    means = [
        next(line for line in axes.get_lines() if line.get_marker() == "o") for axes in (panels[1], by_second)
    ]
    assert [list(line.get_xdata()) for line in means] == [[1, 2, 3], [50, 100, 150]]


def test_without_a_number_of_images_no_picture_shows_seconds(tmp_path):
    for seed in range(3):
        write_run(tmp_path, 0.9, seed=seed, dataset_name="image_folder")
    runs, _ = read_runs([tmp_path])
    assert (runs[0].train_s, band(runs, "test/accuracy").seconds) == ([], ())
    pictures = pictures_by_name(compare(runs))
    assert [panel.get_xlabel() for panel in pictures["curves"].figure.axes][-1] == "epoch"
    assert "target" not in pictures
    assert pictures["curves"].figure.get_figwidth() == WIDE  # alone in its row of the page


def test_a_difference_far_beyond_the_others_is_an_arrow(tmp_path):
    for lr, low in ((0.1, 97), (0.2, 97.2), (0.3, 97.1), (1, 40)):
        write_sweep(tmp_path, {"none": [low, low + 0.1, low], "batch": [98, 98, 98.1]}, optimizer_lr=lr)
    forest = pictures_of_folder(tmp_path)["forest"]
    differences = forest.figure.axes[1::2]
    assert all(axes.get_xlim()[1] < 3 for axes in differences)
    arrows = [line for line in differences[-1].get_lines() if line.get_marker() == ">"]
    assert len(arrows) == 1
    assert [text.get_text()[:6] for text in differences[-1].texts] == ["baseli", "+58.00"]
    assert "Arrow: the difference lies beyond the axis." in forest.caption


def test_the_forest_draws_the_zero_line_and_the_band_of_delta(tmp_path):
    forest = pictures_by_name(compare_groups(tmp_path, GROUPS))["forest"]
    _, axes = forest.figure.axes
    spans = [list(line.get_xdata()) for line in axes.get_lines()]
    assert [0, 0] in spans
    assert axes.collections[0].get_datalim(axes.transData).intervalx == pytest.approx([-0.1, 0.1])
    assert "±0.1" in forest.caption


def test_the_forest_draws_a_line_for_each_pair_of_twins_and_counts_lost_runs(tmp_path):
    forest = pictures_by_name(compare_groups(tmp_path, GROUPS))["forest"]
    values, differences = forest.figure.axes
    assert [label.get_text() for label in values.get_yticklabels()] == ["none (n=4, 1 lost)", "batch (n=5)"]
    lines = [path.vertices.tolist() for path in values.collections[0].get_paths()]
    assert sorted(lines, key=len)[-4:] == [
        [[none, 0], [batch, -1]] for none, batch in ((97.0, 98.0), (97.2, 98.1), (96.9, 98.2), (97.1, 98.0))
    ]
    assert [text.get_text() for text in values.texts] == ["97.05 ± 0.13", "98.08 ± 0.08"]
    assert differences.texts[1].get_text().startswith("+1.02 [")
    narrow_values, narrow_differences = forest.narrow_figure.axes  # below one another
    assert narrow_values.get_position().x0 == narrow_differences.get_position().x0


def test_a_single_group_has_no_differences(tmp_path):
    forest = pictures_by_name(compare_groups(tmp_path, {"none": [97.0, 97.2, 96.9]}))["forest"]
    assert forest.title == "What did the runs reach?"
    assert len(forest.figure.axes) == 1


def test_labels_are_spread_apart_in_their_order():
    assert spread([1.0, 5.0], 1.0) == [1.0, 5.0]
    moved = spread([2.0, 2.1, 2.05], 1.0)
    assert moved[0] < moved[2] < moved[1]
    assert min(moved[2] - moved[0], moved[1] - moved[2]) == pytest.approx(1.0, abs=0.01)


def test_the_caption_of_curves_names_the_kind_of_band(tmp_path):
    caption = pictures_by_name(compare_groups(tmp_path, GROUPS))["curves"].caption
    assert "95 % t interval (n=5)" in caption
    three_seeds = compare_groups(tmp_path / "few", {"none": [97, 98, 97], "batch": [98, 98, 97]})
    assert "least to greatest (n=3)" in pictures_by_name(three_seeds)["curves"].caption


def test_the_mean_curve_ends_where_the_first_run_ends(tmp_path):
    write_sweep(tmp_path, {"none": [97, 98, 97]})
    runs, _ = read_runs([tmp_path])
    path = tmp_path / "model.norm=none,seed=1" / "metrics.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:3]) + "\n")
    truncated_runs, problems = read_runs([tmp_path])
    assert len(band(runs, "test/accuracy").mean) == 3
    truncated_band = band(truncated_runs, "test/accuracy", scale=100)
    assert truncated_band.epochs == (1, 2)
    assert truncated_band.mean[1] == pytest.approx((96 + 97 + 96) / 3)
    assert (truncated_band.low[1], truncated_band.high[1]) == (96, 97)
    assert "disagree" in problems[0].reason


def test_time_to_target_without_runs_is_nan():
    times = time_to_target([], "test", 0.9)
    assert (times.count, times.runs) == (0, 0)
    assert math.isnan(times.epochs)


def test_dollars_and_tags_in_names_are_drawn_literally(tmp_path):
    name = "$x^{$<b>&"
    forest = pictures_by_name(compare_groups(tmp_path, {"none": [97, 98, 97], name: [98, 99, 98]}))["forest"]
    assert "$x^{$&lt;b&gt;&amp;" in forest.svg


def test_a_picture_shows_no_more_than_max_groups(tmp_path):
    groups = {f"norm{i}": [97 + 0.1 * i, 97.3] for i in range(MAX_GROUPS + 3)}
    pictures = pictures_by_name(compare_groups(tmp_path, groups))
    assert len(pictures["forest"].figure.axes[0].get_yticks()) == MAX_GROUPS
    assert f"the first {MAX_GROUPS} of {MAX_GROUPS + 3} groups" in pictures["forest"].caption


def test_a_curve_that_stays_at_its_highest_value_has_an_axis_with_a_height(tmp_path):
    write_run(tmp_path, 1.0, curve=[0.5] + [1.0] * 10)
    panels = pictures_of_folder(tmp_path)["curves"].figure.axes  # a warning of matplotlib fails the test
    limits = {axes.get_title("left"): axes.get_ylim() for axes in panels}
    low, high = limits["test accuracy (%)"]
    assert low < 50 < 100 < high


def test_pictures_do_not_depend_on_the_backend_of_the_environment():
    program = (
        "from bnexp.report.plots.style import drawing_style\nwith drawing_style(): import matplotlib.figure"
    )
    environment = os.environ | {"MPLBACKEND": "garbage"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
