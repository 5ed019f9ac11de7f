"""``bnexp.open_run``: a run's folder as an object, without its data set and without code of its author."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import bnexp
from bnexp.data.datasets import load_dataset
from bnexp.errors import UserError
from helpers.run_folders import forget_identity


def test_import_and_reading_import_no_torch(run_folder):
    code = (
        "import sys, bnexp; early = 'torch' in sys.modules;"
        f"run = bnexp.open_run({str(run_folder)!r}); run.config, run.metrics, run.summary;"
        f"bnexp.open_sweep({str(run_folder.parent)!r}).verdict();"
        "print(early, 'torch' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["False", "False"]


def test_config_summary_and_metrics_are_those_of_the_files(run_folder):
    run = bnexp.open_run(run_folder)
    assert run.summary == json.loads((run_folder / "summary.json").read_text())
    assert run.config["model"]["norm"] == "batch"
    assert run.config["name"] == run.summary["name"]  # an interpolation, resolved
    table = np.genfromtxt(run_folder / "metrics.csv", delimiter=",", names=True, deletechars="")
    assert list(run.metrics) == list(table.dtype.names)
    for name, column in run.metrics.items():
        np.testing.assert_array_equal(column, table[name])


def test_damaged_metrics_are_told_and_a_byte_order_mark_is_none(run_folder, tmp_path):
    copy = shutil.copytree(run_folder, tmp_path / "copy")
    file = copy / "metrics.csv"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert bnexp.open_run(copy).metrics["epoch"].tolist() == [1, 2]
    file.write_text(file.read_text().replace(",", ";").replace("epoch;", "epoch,"))
    with pytest.warns(UserWarning, match=r"copy/metrics\.csv: line 2 cannot be read"):
        assert bnexp.open_run(copy).metrics["epoch"].tolist() == []


def test_metrics_become_a_data_frame(run_folder):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    metrics = bnexp.open_run(run_folder).metrics
    frame = metrics.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["train/loss"].tolist() == metrics["train/loss"].tolist()
    assert "<td>1</td>" in metrics._repr_html_()


def test_without_pandas_one_line_says_so(run_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pandas is not installed"):
        bnexp.open_run(run_folder).metrics.to_pandas()


@pytest.mark.parametrize("checkpoint", ["last", "best"])
def test_the_network_has_the_recorded_accuracy(run_folder, checkpoint):
    run = bnexp.open_run(run_folder)
    test = load_dataset("digits", None, None).test
    network = run.model(checkpoint)
    assert not network.training
    from bnexp.data import test_indices

    index = test_indices(test.labels, 100)
    predictions = network(run.preprocess(test.pixels[index])).argmax(1)
    accuracy = float((predictions == test.labels[index]).double().mean())
    section = run.summary["final" if checkpoint == "last" else "best"]
    assert accuracy == pytest.approx(section["test/accuracy"])


def test_image_files_are_read_like_the_images_of_the_data_set(run_folder, digits):
    run = bnexp.open_run(run_folder)
    pixels = load_dataset("digits", None, None).test.pixels[:8]
    inputs = run.preprocess(digits)
    assert inputs.shape == (8, 1, 20, 20)
    assert torch.equal(inputs, run.preprocess(pixels))
    assert torch.equal(inputs, run.preprocess(pixels.numpy()))
    assert torch.equal(inputs[:1], run.preprocess(digits[0]))
    predictions = run.predict(digits)
    probabilities = run.model()(inputs).softmax(1).detach()
    assert [p.name for p in predictions] == [run.input.classes[i] for i in probabilities.argmax(1)]
    assert predictions[0].probability == pytest.approx(float(probabilities[0].max()))
    assert sum(predictions[0].probabilities.values()) == pytest.approx(1)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "1", "LA"])
def test_an_image_of_another_mode_is_converted(run_folder, tmp_path, mode):
    gray = Image.new("L", (28, 28), 255)
    gray.convert(mode).save(tmp_path / "white.png")
    white = torch.full((1, 28, 28), 255, dtype=torch.uint8)
    run = bnexp.open_run(run_folder)
    assert torch.equal(run.preprocess(tmp_path / "white.png"), run.preprocess(white))


def test_an_image_of_another_size_is_scaled_and_a_line_says_so(run_folder, tmp_path, caplog):
    Image.new("L", (60, 40), 255).save(tmp_path / "wide.png")
    run = bnexp.open_run(run_folder)
    assert run.preprocess(tmp_path / "wide.png").shape == (1, 1, 20, 20)
    assert "60x40 pixels, scaled to 28x28" in caplog.text


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (torch.zeros(2, 1, 28, 28), "float32"),
        (torch.zeros(2, 3, 28, 28, dtype=torch.uint8), r"must be uint8 \(N, 1, 28, 28\)"),
        (np.zeros((2, 1, 20, 20), np.uint8), r"must be uint8 \(N, 1, 28, 28\)"),
        ([], "empty"),
        (3, "must be image files"),
        (["missing.png"], "missing.png: cannot be read"),
        ([__file__], "cannot be read as an image"),
    ],
)
def test_what_is_no_image_is_one_line(run_folder, images, reason):
    with pytest.raises(UserError, match=reason):
        bnexp.open_run(run_folder).preprocess(images)


def test_a_sweep_is_no_run(sweep):
    with pytest.raises(UserError, match=r"holds 4 runs; bnexp\.open_sweep opens them"):
        bnexp.open_run(sweep)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        bnexp.open_run(tmp_path / "missing")
    with pytest.raises(UserError, match="not a run folder"):
        bnexp.open_run(tmp_path)
    with pytest.raises(UserError, match="no run to compare"):
        bnexp.open_sweep(tmp_path)


def test_a_run_that_has_not_finished(run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "stopped")
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"status": "running", "final": {}}))
    run = bnexp.open_run(folder)
    assert "running" in repr(run)
    assert run.model()  # its checkpoint is there
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(UserError, match="no checkpoint; running"):
        run.model()
    (folder / "metrics.csv").unlink()
    with pytest.raises(UserError, match=r"no metrics.*the run is running"):
        _ = bnexp.open_run(folder).metrics
    (folder / "summary.json").write_text(json.dumps(summary | {"input": None}))
    with pytest.raises(UserError, match="does not say what its network reads"):
        bnexp.open_run(folder).model()


@pytest.mark.parametrize("damage", [{"mean": [0.1, 0.2]}, {"std": [0]}, {"classes": []}, {"channels": "1"}])
def test_a_damaged_input_is_one_line(run_folder, tmp_path, damage):
    folder = shutil.copytree(run_folder, tmp_path / "damaged")
    summary = json.loads((folder / "summary.json").read_text())
    summary["input"] |= damage
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match="input of its network is damaged"):
        bnexp.open_run(folder).model()


def test_a_strangers_code_runs_only_where_it_is_trusted(run_folder, tmp_path, monkeypatch):
    folder = shutil.copytree(run_folder, tmp_path / "strange")
    path = folder / ".hydra" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["model"] = {"_target_": "strangers_net.Net"}
    path.write_text(yaml.safe_dump(config))
    forget_identity(folder)
    (tmp_path / "strangers_net.py").write_text("raise SystemError('it ran')")
    monkeypatch.chdir(tmp_path)
    run = bnexp.open_run(folder)
    assert run.config["model"]["_target_"] == "strangers_net.Net"
    with pytest.raises(UserError, match="must be a class of bnexp"):
        run.model()
    with pytest.raises(UserError, match="cannot be imported"):
        run.model(trust=["strangers_net.Net"])
