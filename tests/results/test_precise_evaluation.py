"""bnexp-eval --precise-bn: accuracy and loss with precise batch norm statistics, beside the running ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from bnexp.data import datasets, splits
from bnexp.results.saved_config import load_config
from bnexp.training import checkpoint

QUICK = (
    "model=mlp_bn",
    "epochs=2",
    "dataset.train_size=200",
    "dataset.test_size=100",
    "tracking.tensorboard=false",
)
ACCURACY = r"accuracy (\d\.\d{4}), loss (\d+\.\d{4})"


@pytest.fixture
def run(commands) -> Path:
    """A run whose batch is the whole training set: its precise statistics are those of one batch."""
    assert commands.bnexp(*QUICK, "dataset.val_size=0", "batch_size=200").code == 0
    return commands.runs()[-1]


def lines(commands, *arguments) -> list[str]:
    result = commands.eval(*map(str, arguments))
    assert (result.code, result.err) == (0, "")
    return result.out.splitlines()


def images_and_labels(images, index) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the embedded digits, as the network reads them, in float64."""
    return (images.pixels[index].flatten(1).double() / 255 - 0.3055) / 0.3249, images.labels[index]


def test_the_numbers_equal_those_of_a_float64_computation(commands, run):
    printed = lines(commands, run, "--precise-bn", 1)
    weights = {k: v.double() for k, v in checkpoint.load(run / "checkpoints/last.pt")["model"].items()}

    def hidden(images):
        return F.linear(images, weights["hidden.0.linear.weight"], weights["hidden.0.linear.bias"])

    def logits(images, mean, variance):
        x_hat = (hidden(images) - mean) / (variance + 1e-5).sqrt()
        activations = (weights["hidden.0.norm.weight"] * x_hat + weights["hidden.0.norm.bias"]).relu()
        return F.linear(activations, weights["head.weight"], weights["head.bias"])

    digits = datasets.load_dataset("digits", None, None)
    train_index = splits.train_val_indices(
        digits.train.labels, load_config(run, "cpu", []).dataset, 0, digits.classes
    )[0]
    train, _ = images_and_labels(digits.train, train_index)
    test, labels = images_and_labels(digits.test, splits.test_indices(digits.test.labels, 100))
    assert len(train) == 200
    population = hidden(train).mean(0), hidden(train).var(0, correction=0)
    running = weights["hidden.0.norm.running_mean"], weights["hidden.0.norm.running_var"]
    for line, statistics in zip(printed[1:3], (running, population), strict=True):
        accuracy, loss = map(float, re.match(ACCURACY, line).groups())
        output = logits(test, *statistics)
        assert accuracy == (output.argmax(1) == labels).sum() / 100
        assert loss == pytest.approx(float(F.cross_entropy(output, labels)), abs=6e-5)
    assert printed[2].endswith(" with precise batch norm statistics, from 1 training batch of 200")
    assert printed[1] not in printed[2], "the two must differ for this test to tell them apart"
    name, mean, variance = printed[5].split()
    distance = (running[0] - population[0]).abs() / (population[1] + 1e-5).sqrt()
    ratio = (running[1] + 1e-5) / (population[1] + 1e-5)
    assert name == "hidden.0.norm"
    assert float(mean) == pytest.approx(float(distance.max()), rel=1e-3)
    assert float(variance) == pytest.approx(float(torch.maximum(ratio, 1 / ratio).max()), rel=1e-3)


def test_all_other_lines_stay_and_a_second_evaluation_repeats_the_first(commands, run):
    plain, precise = lines(commands, run), lines(commands, run, "--precise-bn", 1)
    assert precise[:2] + precise[6:] == plain
    assert precise[4].split() == ["layer", "mean", "variance"]
    assert lines(commands, run, "--precise-bn", 1) == precise


@pytest.mark.parametrize("split", ["val", "train"])
def test_every_split_and_augmented_training_batches(commands, split):
    keys = ("dataset.augment=[crop]", "batch_size=64", "model.norm=batch_manual")
    assert commands.bnexp(*QUICK, *keys).code == 0
    run = commands.runs()[-1]
    fewer, more = (lines(commands, run, "--split", split, "--precise-bn", n)[2:6] for n in (2, 4))
    assert re.match(
        ACCURACY + " with precise batch norm statistics, from 2 training batches of 64$", fewer[0]
    )
    assert re.match(ACCURACY + " with precise batch norm statistics, from 4 training batches of 64$", more[0])
    assert fewer[3] != more[3]


CUSTOM_NETWORK = """
from torch import nn
def net(image_size, num_classes):
    units = 4 * (image_size - 2) ** 2
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(units, num_classes))
"""


def test_a_network_of_ones_own_is_evaluated_too(commands):
    Path("own_norms.py").write_text(CUSTOM_NETWORK)
    assert commands.bnexp(*QUICK[1:], "model=custom", "model._target_=own_norms.net").code == 0
    printed = lines(commands, commands.runs()[-1], "--trust", "own_norms.net", "--precise-bn", 2)
    assert printed[5].split()[0] == "1"


def test_a_network_without_batch_norm_has_no_precise_statistics(commands):
    assert commands.bnexp("model=mlp", *QUICK[1:]).code == 0
    result = commands.eval(str(commands.runs()[-1]), "--precise-bn", "2", "--export", "weights.safetensors")
    assert (result.code, result.out) == (2, "")
    reason = "the run's network has no batch norm with running statistics"
    assert result.err == f"bnexp: --precise-bn=2: {reason}\n"
    assert not Path("weights.safetensors").exists()


@pytest.mark.parametrize("count", ["0", "-3", "2", "99999999999999999999"])
def test_a_number_of_batches_out_of_range_is_one_line(commands, run, count):
    result = commands.eval(str(run), f"--precise-bn={count}", "--export", "weights.safetensors")
    assert (result.code, result.out) == (2, "")
    allowed = "must be at least 1 and at most 1, the batches of 200 in 200 training images"
    assert result.err == f"bnexp: --precise-bn={count}: {allowed}\n"
    assert not Path("weights.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--precise-bn", "many"), "--precise-bn: invalid int value: 'many'"),
        (("--precise-bn", "1", "--image", "a.png"), "--precise-bn: is for the images of the data set"),
    ],
)
def test_a_wrong_use_is_one_line(commands, run, arguments, line):
    result = commands.eval(str(run), *arguments)
    assert (result.code, result.out, len(result.err.splitlines())) == (2, "", 1)
    assert result.err.startswith(f"bnexp: {line}")
