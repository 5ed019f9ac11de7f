"""The probe precise: accuracies and variance shifts against a computation in float64."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bnexp.data import datasets, splits
from bnexp.probes.dropout_variance import dropout_variances
from bnexp.report.measurements.theory import dropout_variance
from bnexp.training import checkpoint
from helpers.fused_runs import make_run
from helpers.probe_runs import read_probe, train

EPS = 1e-5
DEEP = ("model.norm=batch", "model.hidden=[30,20]", "model.dropout=0.4", "batch_size=32")


def last_rows(folder: Path) -> dict[str, dict[str, str]]:
    """The rows after the last epoch by layer."""
    return {row["layer"]: row for row in read_probe(folder, "precise")}


class Reference:
    """The last weights of a run in float64, and its images as the network reads them."""

    def __init__(self, folder: Path) -> None:
        self.weights = {
            name: value.double().numpy()
            for name, value in checkpoint.load(folder / "checkpoints/last.pt")["model"].items()
        }
        digits = datasets.load_dataset("digits", None, None)
        keys = make_run(folder.parent / "settings", 0).config.dataset
        train_index, val_index = splits.train_val_indices(digits.train.labels, keys, 0, digits.classes)
        pixels = (digits.train.pixels.flatten(1).double().numpy() / 255 - 0.3055) / 0.3249
        self.train, self.val = pixels[train_index], pixels[val_index]
        self.val_labels = digits.train.labels[val_index].numpy()

    def linear(self, x: np.ndarray, layer: str) -> np.ndarray:
        return x @ self.weights[f"{layer}.weight"].T + self.weights[f"{layer}.bias"]

    def hidden(self, z: np.ndarray, norm: str, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
        x_hat = (z - mean) / np.sqrt(variance + EPS)
        return np.maximum(x_hat * self.weights[f"{norm}.weight"] + self.weights[f"{norm}.bias"], 0)

    def running(self, norm: str) -> tuple[np.ndarray, np.ndarray]:
        return self.weights[f"{norm}.running_mean"], self.weights[f"{norm}.running_var"]


def test_accuracies_and_shift_of_one_layer(tmp_path):
    folder = train(tmp_path / "run", "model.norm=batch", "optimizer.lr=1", "probes=[precise]", epochs=1)
    reference, rows = Reference(folder), last_rows(folder)
    z = reference.linear(reference.train, "hidden.0.linear")
    population = z.mean(0), z.var(0)
    running = reference.running("hidden.0.norm")
    z_val = reference.linear(reference.val, "hidden.0.linear")
    for kind, statistics in (("running", running), ("precise", population)):
        logits = reference.linear(reference.hidden(z_val, "hidden.0.norm", *statistics), "head")
        accuracy = (logits.argmax(1) == reference.val_labels).mean()
        assert float(rows["all"][f"accuracy_{kind}"]) == pytest.approx(accuracy, abs=1e-9)
    ratio = (running[1] + EPS) / (population[1] + EPS)
    ratio = np.maximum(ratio, 1 / ratio)
    for name in ("hidden.0.norm", "all"):
        assert float(rows[name]["variance_shift"]) == pytest.approx(ratio.mean(), rel=1e-4)
        assert float(rows[name]["largest_shift"]) == pytest.approx(ratio.max(), rel=1e-4)
    assert "expected_shift" not in rows["all"]


def test_the_shift_of_a_deeper_layer_is_that_in_eval_mode_and_its_theory_that_of_li(tmp_path):
    folder = train(tmp_path / "run", *DEEP, "probes=[precise]", epochs=3)
    reference, rows = Reference(folder), last_rows(folder)
    z = reference.linear(reference.train, "hidden.0.linear")
    x = reference.hidden(z, "hidden.0.norm", *reference.running("hidden.0.norm"))
    real = reference.linear(x, "hidden.1.linear").var(0)
    ratio = (reference.running("hidden.1.norm")[1] + EPS) / (real + EPS)
    measured = np.maximum(ratio, 1 / ratio).mean()
    added = [dropout_variance(0.6, w, (x**2).mean(0)) for w in reference.weights["hidden.1.linear.weight"]]
    expected = (1 + np.array(added) / (real + EPS)).mean()
    row = rows["hidden.1.norm"]
    assert float(row["variance_shift"]) == pytest.approx(measured, rel=1e-4)
    assert float(row["expected_shift"]) == pytest.approx(expected, rel=1e-4)
    assert rows["hidden.0.norm"]["expected_shift"] == ""  # no dropout stands before it
    assert rows["all"]["expected_shift"] == row["expected_shift"]


def test_the_running_accuracy_is_that_of_every_epoch(tmp_path):
    folder = train(tmp_path / "run", *DEEP, "probes=[precise]", epochs=3)
    rows = [row for row in read_probe(folder, "precise") if row["layer"] == "all"]
    with (folder / "metrics.csv").open() as file:
        metrics = list(csv.DictReader(file))
    assert [row["accuracy_running"] for row in rows] == [row["val/accuracy"] for row in metrics]
    assert [int(row["step"]) for row in rows] == [7, 14, 21]


def test_without_a_validation_set_the_test_images_are_evaluated(tmp_path):
    folder = train(tmp_path / "run", *DEEP, "probes=[precise]", "dataset.val_size=0", epochs=1)
    with (folder / "metrics.csv").open() as file:
        (metrics,) = csv.DictReader(file)
    assert last_rows(folder)["all"]["accuracy_running"] == metrics["test/accuracy"]


def test_probe_layers_chooses_layers(tmp_path):
    folder = train(tmp_path / "run", *DEEP, "probes=[precise]", "probe.layers=[hidden.1.norm]", epochs=1)
    assert list(last_rows(folder)) == ["all", "hidden.1.norm"]


def test_what_dropout_adds_is_what_sampled_masks_add():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Dropout(0.3), nn.Linear(4, 3), nn.BatchNorm1d(3)).double()
    images = torch.randn(400_000, 4).double() + torch.tensor([0.0, 1.0, 2.0, -1.0])
    (added,) = dropout_variances(network, images.split(100_000)).values()
    with torch.no_grad():
        noisy, exact = network[:2].train()(images), network[1](images)
    torch.testing.assert_close(added, noisy.var(0) - exact.var(0), rtol=0.02, atol=0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_layer_that_reads_beside_the_dropout_is_not_behind_it():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout, self.linear, self.norm = nn.Dropout(0.5), nn.Linear(4, 3), nn.BatchNorm1d(3)

        def forward(self, x):
            self.dropout(x)
            return self.norm(self.linear(x))

    assert dropout_variances(Beside(), [torch.ones(5, 4)]) == {}


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (["model.norm=layer"], "probes: precise measures batch norm layers, and this network has none"),
        (
            ["model.norm=batch", "probe.layers=[hidden.0.nrom]"],
            "probe.layers=hidden.0.nrom: must be one of hidden.0.norm; did you mean hidden.0.norm?",
        ),
    ],
)
def test_what_cannot_be_measured_is_one_line(commands, keys, line):
    result = commands.bnexp("probes=[precise]", *keys)
    assert (result.code, result.err) == (2, f"bnexp: {line}\n")
