"""A folder of images whose classes are uneven: weights, balanced accuracy, and predictions by file name."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bnexp
from bnexp.runs.confusion import read_confusion
from bnexp.training.loss_mean import balanced_weights

COUNTS = {"cat": 60, "dog": 20, "eel": 10}


@pytest.fixture
def pets(tmp_path, monkeypatch) -> Path:
    """Dark cats, gray dogs, bright eels; one file is no image."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    for level, (name, count) in enumerate(COUNTS.items()):
        folder = tmp_path / "pets" / name
        folder.mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(90 * level, 90 * level + 60, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}{number}.png")
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("no image")
    return tmp_path / "pets"


def test_each_class_has_the_same_sum_of_weights():
    labels = torch.tensor([0] * 6 + [1] * 2 + [2])
    weights = balanced_weights(labels, 3)
    assert (weights * labels.bincount()).tolist() == pytest.approx([3, 3, 3])
    assert float(weights[labels].mean()) == pytest.approx(1)


def test_a_run_with_balanced_weights_and_its_predictions(pets, commands):
    result = commands.bnexp(
        "dataset=image_folder", f"dataset.root={pets}", "loss.weight=balanced", "epochs=3", "batch_size=8",
        "tracking.tensorboard=false", "dataset.mean=auto", "dataset.std=auto",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "1 .txt" in result.out + result.err  # counted and named
    assert "cat/notes.txt" in result.out + result.err
    (folder,) = commands.runs()
    result = commands.eval(str(folder), "--predictions", "predictions.csv")
    assert result.code == 0
    rows = list(csv.DictReader(Path("predictions.csv").read_text().splitlines()))
    assert list(rows[0])[4:] == ["p(cat)", "p(dog)", "p(eel)"]
    for row in rows:
        assert (pets / row["image"]).is_file()
        assert row["image"].startswith(f"{row['label']}/")
        assert float(row["probability"]) == float(row[f"p({row['prediction']})"])
    shares = [np.mean([row["prediction"] == name for row in rows if row["label"] == name]) for name in COUNTS]
    printed = re.search(r"^balanced accuracy (\S+):", result.out, re.MULTILINE)[1]
    assert float(printed) == pytest.approx(np.mean(shares), abs=1e-4)
    final = commands.summary()["final"]
    assert float(printed) == pytest.approx(final["test/balanced_accuracy"], abs=1e-4)
    confusion = read_confusion(folder)["final"]
    assert confusion == Counter((row["label"], row["prediction"]) for row in rows)
    files = [pets / row["image"] for row in rows[:5]]
    for row, prediction in zip(rows, bnexp.open_run(folder).predict(files), strict=False):
        assert row["prediction"] == prediction.name
        assert float(row["probability"]) == pytest.approx(prediction.probability, abs=1e-5)


def test_balanced_weights_change_the_training(pets, commands):
    losses = []
    for weight in ("null", "balanced", "[1,1,9]"):
        arguments = ("dataset=image_folder", f"dataset.root={pets}", "epochs=1", "tracking.tensorboard=false")
        assert commands.bnexp(*arguments, f"loss.weight={weight}").code == 0
        losses.append(commands.summary()["final"]["train/loss"])
    assert len(set(losses)) == 3
    assert commands.bnexp("loss.weight=equal").err.count("\n") == 1


@pytest.mark.pictures
def test_a_verdict_gives_balanced_accuracy_too(pets, commands):
    arguments = ("dataset=image_folder", f"dataset.root={pets}", "epochs=2", "batch_size=13")
    result = commands.bnexp(
        "-m", *arguments, "model.norm=none,batch", "seed=0,1,2", "hydra.sweep.dir=sweep",
        "tracking.tensorboard=false",
    )  # fmt: skip
    assert result.code == 0, result.err
    means = {
        norm: 100 * np.mean([
            json.loads((run / "summary.json").read_text())["best"]["test/balanced_accuracy"]
            for run in commands.runs() if f"norm={norm}," in run.name
        ])
        for norm in ("none", "batch")
    }  # fmt: skip
    text = " ".join(result.out.split())
    pattern = (
        r"Balanced accuracy, the mean recall of the uneven classes: none (\S+) %; batch (\S+) %, (\S+) points"
    )
    printed = [float(number) for number in re.search(pattern, text).groups()]
    expected = [means["none"], means["batch"], means["batch"] - means["none"]]
    assert printed == pytest.approx(expected, abs=0.006)
    rows = list(csv.DictReader(Path("sweep/comparison.csv").read_text().splitlines()))
    assert [float(row["balanced_accuracy_mean"]) for row in rows] == pytest.approx(expected[:2])
    assert float(rows[1]["balanced_accuracy_difference"]) == pytest.approx(expected[2])
    page = Path("sweep/report.html").read_text()
    assert "Balanced accuracy, the mean recall of the uneven classes" in page
    assert "Which classes are confused?" in page
    assert Path("sweep/confusion.pdf").is_file()
    result = commands.compare("sweep", "--metric", "test/balanced_accuracy")
    assert result.code == 0
    assert "test balanced accuracy" in result.out
    assert f"{means['none']:.2f} +-" in result.out
    assert "the mean recall" not in result.out  # the verdict is on it already


def test_even_classes_have_no_balanced_accuracy(commands):
    assert commands.bnexp("epochs=1", "dataset.train_size=100", "tracking.tensorboard=false").code == 0
    assert "test/balanced_accuracy" not in commands.summary()["final"]
    result = commands.compare(str(commands.runs()[0]), "--metric", "test/balanced_accuracy")
    assert result.code == 2
    assert result.err.count("\n") == 1
