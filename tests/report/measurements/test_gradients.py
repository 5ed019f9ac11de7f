"""Gradient growth and tails, read from tables whose numbers are known."""

from __future__ import annotations

import pytest

from bnexp.report.measurements.gradients import expected_growth, growth_per_layer, read_gradients
from bnexp.report.measurements.theory import gradient_growth
from bnexp.report.read.probe_tables import ProbeTable
from helpers.probe_tables import arm

MLP = {"model__target_": "bnexp.models.MLP", "model_activation": "relu", "batch_size": 64}


def table(growth: float, layers: int = 24, kurtosis: float = 3.0):
    """Layers from the first to the last, and the one that gives the logits."""
    return [
        {
            "step": 1, "layer": f"hidden.{depth}", "depth": float(depth),
            "random_square": growth ** (layers - depth) if depth <= layers else 77.0,
            "kurtosis": kurtosis, "abs_p50": 1.0, "abs_p90": 2.0, "abs_p99": 3.0, "abs_p999": 4.0,
            "abs_max": 5.0 * kurtosis,
        }
        for depth in range(1, layers + 2)
    ]  # fmt: skip


@pytest.mark.parametrize("growth", [0.5, 1.0, 1.493])
def test_growth_is_the_factor_from_a_layer_to_the_one_below(growth):
    assert growth_per_layer(ProbeTable(tuple(table(growth)))) == pytest.approx(growth)


def test_too_few_layers_have_no_growth():
    measurement = read_gradients([arm("all runs", [table(2.0, layers=3)], is_baseline=True)])
    assert measurement.numbers == []


def test_only_a_network_with_two_hidden_layers_has_a_picture_by_depth():
    for layers, titles in ((1, ["values of the middle layer's gradient"]), (2, ["gradient by depth"])):
        measurement = read_gradients([arm("all runs", [table(2.0, layers=layers)], is_baseline=True)])
        assert [panel.title for panel in measurement.panels][: len(titles)] == titles
        assert ("depth" in measurement.title) == (layers > 1)


def settings(**keys):
    names = {"model._target_": "bnexp.models.MLP", "model.activation": "relu", "batch_size": 64}
    return names | {key.replace("_", ".", 1): value for key, value in keys.items()}


@pytest.mark.parametrize(
    ("keys", "growth"),
    [
        ({"model_norm": "batch"}, gradient_growth(64)),
        ({"model_norm": "batch_manual", "model_activation": "linear"}, 62 / 61),
        ({"model_norm": "none", "model_init": "kaiming"}, 1.0),
        ({"model_norm": "none", "model_init": "default"}, 1 / 6),
        ({"model_norm": "none", "model_init": "lecun"}, 0.5),
    ],
)
def test_the_theory_of_a_network(keys, growth):
    value, source = expected_growth(settings(**keys))
    assert value == pytest.approx(growth)
    assert source


@pytest.mark.parametrize(
    "keys",
    [
        {"model_norm": "layer"}, {"model_norm": "batch", "model_activation": "tanh"},
        {"model_norm": "batch", "model_dropout": 0.5}, {"model_norm": "batch", "model_norm_images": 8},
        {"model_norm": "batch", "model_norm_position": "after"},
        {"model_norm": "batch", "model_residual": "plain"},
        {"model_norm": "batch", "model__target_": "bnexp.models.ConvNet"},
    ],
)  # fmt: skip
def test_no_theory_is_claimed_for_other_networks(keys):
    assert expected_growth(settings(**keys)) is None


def test_the_sentences_have_theory_and_measurement():
    none = arm("none", [table(1.0, kurtosis=9.0)] * 3, is_baseline=True)
    batch = arm("batch", [table(1.49), table(1.50), table(1.48)], model_norm="batch")
    batch.settings.update(settings(model_norm="batch"))
    sentences = read_gradients([none, batch]).sentences
    assert sentences[1] == (
        "Gradient growth per layer, batch: theory 1.493 (Yang et al. 2019, equation 25), measured"
        " 1.490 (1.465 to 1.515, 3 seeds)."
    )
    assert sentences[2].startswith(
        "Kurtosis of the middle layer's gradient at the first step: with batch 0.333"
    )
    assert sentences[2].endswith("smaller, as Bjorck et al. (2018) report.")
