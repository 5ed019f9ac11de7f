"""Tables of probes in run folders: from there to the verdict's sentences, pictures and data."""

from __future__ import annotations

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bnexp.report.analysis.verdict import compare
from bnexp.report.measurements.collect import measurements
from bnexp.report.read.runs import read_runs
from bnexp.report.render.terminal import render_text
from bnexp.report.write import write_report
from helpers.probe_tables import write_probe
from helpers.run_folders import write_sweep


@pytest.fixture
def sweep(tmp_path):
    """Runs with a probe of one's own, and percentiles that drift without batch norm alone."""
    write_sweep(
        tmp_path, {"none": [97.0, 97.2, 96.9], "batch": [98.0, 98.1, 98.2]}, tracking={"tensorboard": True}
    )
    for run in sorted(path.parent for path in tmp_path.rglob("summary.json")):
        slope = 0.01 if "batch" in str(run) else 0.1
        rows = [
            {"step": step, "layer": "hidden.0", "p15": -1 + slope * step, "p50": slope * step, "p85": 1.0}
            for step in (1, 2, 3, 4, 5)
        ]
        write_probe(run, "activations", rows)
        write_probe(run, "own", [{"step": step, "value": step**2} for step in (1, 2, 3)])
    return tmp_path


def verdict_of(folder):
    return compare(*read_runs([folder]))


def test_a_probe_of_ones_own_is_drawn_column_by_column(sweep):
    own = next(m for m in measurements(verdict_of(sweep)) if m.probe == "own")
    (panel,) = own.panels
    assert [(curve.label, curve.x, curve.mean) for curve in panel.curves] == [
        (name, [1, 2, 3], [1, 4, 9]) for name in ("none", "batch")
    ]


def test_the_drift_is_relative_to_the_width(sweep):
    numbers = next(m for m in measurements(verdict_of(sweep)) if m.probe == "activations").numbers
    # The values 1..5 have the standard deviation sqrt(2); the 85th percentile does not move.
    assert numbers[0].estimate.mean == pytest.approx(2 / 3 * 0.1 * 2**0.5 / (2 - 0.3))


def test_report_json_text_and_tensorboard_have_the_measurement(sweep):
    verdict = verdict_of(sweep)
    page = write_report(verdict, sweep).read_text()
    text = " ".join(render_text(verdict).split())
    record = json.loads((sweep / "comparison.json").read_text())
    activations = next(m for m in record["measurements"] if m["probe"] == "activations")
    for sentence in activations["sentences"]:
        assert sentence in text
        assert sentence in page.replace("&#39;", "'").replace("&amp;", "&")
    assert activations["numbers"][1]["arm"] == "batch"
    for ending in ("svg", "png", "pdf"):
        assert (sweep / f"probe-activations.{ending}").stat().st_size > 1000
    events = EventAccumulator(str(next((sweep / "means" / "measurements").iterdir()))).Reload()
    assert events.Tags()["images"] == ["probe-activations", "probe-own"]
    (image,) = events.Images("probe-activations")
    assert image.encoded_image_string == (sweep / "probe-activations.png").read_bytes()


@pytest.mark.parametrize("text", ["", "step,layer\n", "step,layer\n1", "no,header\n1,2\n", "step\nx\n"])
def test_a_damaged_table_is_no_measurement(sweep, text):
    for path in sweep.rglob("probes/own.csv"):
        path.write_text(text)
    assert [m.probe for m in measurements(verdict_of(sweep))] == ["activations"]
