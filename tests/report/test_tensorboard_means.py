"""The means of the groups as runs of TensorBoard."""

import shutil

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from bnexp.report.analysis.curves import band
from bnexp.report.analysis.verdict import compare
from bnexp.report.read.runs import find_runs, read_runs
from bnexp.report.render.tensorboard_means import write_means
from bnexp.report.write import write_report
from helpers.run_folders import write_run, write_sweep

TRACKED = {"tracking": {"tensorboard": True}}


@pytest.fixture
def sweep(tmp_path):
    return write_sweep(tmp_path, {"none": [97.0, 97.2, 96.9], "batch": [98.0, 98.1, 98.2]}, **TRACKED)


def verdict_of(folder):
    return compare(*read_runs([folder]))


def event_files(folder):
    return sorted(folder.glob("means/*/*"))


def read_events(folder, group):
    (path,) = (folder / "means" / group).iterdir()  # one file, whatever was written before
    return EventAccumulator(str(path)).Reload()


def test_each_group_has_its_mean_under_the_tags_of_its_runs_and_its_band_behind_them(sweep):
    verdict = verdict_of(sweep)
    write_report(verdict, sweep)
    assert [path.parent.name for path in event_files(sweep)] == ["batch", "none"]
    events = read_events(sweep, "none")
    tags = events.Tags()["scalars"]
    means = ["test/accuracy", "test/loss", "train/accuracy", "train/loss"]
    assert sorted(tags)[: len(means)] == means
    assert sorted(tags)[len(means) :] == [
        f"variation/{tag}/{end}" for tag in means for end in ("high", "low")
    ]
    expected = band(verdict.summaries[0].group.runs, "test/accuracy")
    for tag, values in (
        ("test/accuracy", expected.mean),
        ("variation/test/accuracy/low", expected.low),
        ("variation/test/accuracy/high", expected.high),
    ):
        points = [(point.step, point.value) for point in events.Scalars(tag)]
        assert points == [(i + 1, pytest.approx(value)) for i, value in enumerate(values)]


def test_a_margin_chart_names_mean_low_and_high(sweep):
    write_report(verdict_of(sweep), sweep)
    (tensor,) = read_events(sweep, "batch").Tensors("custom_scalars__config__")
    layout = Layout.FromString(tensor.tensor_proto.string_val[0])
    charts = {chart.title: chart.margin.series for category in layout.category for chart in category.chart}
    assert list(charts) == ["test accuracy", "train accuracy", "test loss", "train loss"]
    (series,) = charts["test accuracy"]
    assert (series.value, series.lower, series.upper) == (
        "test/accuracy",
        "variation/test/accuracy/low",
        "variation/test/accuracy/high",
    )


def test_means_are_replaced_as_a_whole_and_are_no_runs(sweep, monkeypatch):
    now = 1_800_000_000.0
    monkeypatch.setattr("bnexp.report.render.tensorboard_means.time.time", lambda: now)
    write_report(verdict_of(sweep), sweep)
    runs = list(find_runs(sweep))
    assert len(runs) == 6
    for run in runs:
        if "batch" in run.name:
            shutil.rmtree(run)
    own = sweep / "means" / "none" / "notes.txt"
    own.write_text("a user's file")
    write_run(sweep, 0.99, seed=0, model_norm="a/b", **TRACKED)
    now += 60
    write_report(verdict_of(sweep), sweep)
    names = [(path.parent.name, path.name) for path in event_files(sweep)]
    assert names == [
        ("a b", "events.out.tfevents.1800000060.means"),
        ("none", "events.out.tfevents.1800000060.means"),
        ("none", "notes.txt"),
    ]
    assert not (sweep / "means" / "batch").exists()
    runs, problems = read_runs([sweep])
    assert len(runs) == 4
    assert problems == []


def test_runs_without_tensorboard_get_no_means(tmp_path):
    write_sweep(tmp_path, {"none": [97.0, 97.2]}, tracking={"tensorboard": False})
    write_means(verdict_of(tmp_path), tmp_path, {})
    assert not (tmp_path / "means").exists()
