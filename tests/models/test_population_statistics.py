"""Precise batch norm statistics against a computation in float64 numpy, and what they leave unchanged."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from bnexp.errors import UserError
from bnexp.models.norms import BatchNorm
from bnexp.models.population_statistics import (
    ChannelStatistics,
    batch_norms,
    population_statistics,
    precise_statistics,
    statistics_shift,
)
from helpers.yaml_defaults import build

CLOSE = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def mlp(norm=nn.BatchNorm1d, dropout=0.0) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 5), nn.Dropout(dropout), norm(5), nn.ReLU(), nn.Linear(5, 4), norm(4), nn.Linear(4, 3)
    ).double()


def images(*sizes: int, shape=(6,)) -> list[torch.Tensor]:
    """Batches of these sizes, whose means and variances differ."""
    return [3 * torch.rand(1) * torch.randn(size, *shape).double() + i for i, size in enumerate(sizes)]


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def normalize(x: np.ndarray, eps: float) -> np.ndarray:
    return (x - x.mean(0)) / np.sqrt(x.var(0) + eps)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, BatchNorm])
@pytest.mark.parametrize("sizes", [(8, 8, 8), (9, 9, 2), (7,)])
def test_the_statistics_are_those_of_all_images_normalised_batch_by_batch(norm, sizes):
    network, batches = mlp(norm), images(*sizes)
    with torch.no_grad():
        network[2].weight.uniform_(0.5, 2)
        network[2].bias.normal_()
    result = population_statistics(network, batches)
    first, second, scale, shift = (
        *(array(network[i].weight) for i in (0, 4)),
        *(array(p) for p in (network[2].weight, network[2].bias)),
    )
    inputs = [array(x) @ first.T + array(network[0].bias) for x in batches]
    hidden = [np.maximum(normalize(x, network[2].eps) * scale + shift, 0) for x in inputs]
    next_inputs = [x @ second.T + array(network[4].bias) for x in hidden]
    assert list(result) == ["2", "5"]
    for name, values in (("2", np.concatenate(inputs)), ("5", np.concatenate(next_inputs))):
        np.testing.assert_allclose(array(result[name].mean), values.mean(0), **CLOSE)
        np.testing.assert_allclose(array(result[name].variance), values.var(0), **CLOSE)


def test_equal_batches_follow_the_formula_of_the_paper():
    network, batches = mlp(), images(8, 8, 8, 8)
    inputs = [array(network[0](x)) for x in batches]
    means, variances = np.array([x.mean(0) for x in inputs]), np.array([x.var(0) for x in inputs])
    mean = means.mean(0)
    variance = (variances + means**2).mean(0) - mean**2
    result = population_statistics(network, batches)["2"]
    np.testing.assert_allclose(array(result.mean), mean, **CLOSE)
    np.testing.assert_allclose(array(result.variance), variance, **CLOSE)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, BatchNorm])
def test_a_channel_of_maps_has_a_value_for_each_pixel(norm):
    network = nn.Sequential(nn.Conv2d(2, 3, 3), norm(3)).double()
    batches = images(4, 4, shape=(2, 6, 5))
    values = np.concatenate([array(network[0](x)) for x in batches])
    result = population_statistics(network, batches)["1"]
    np.testing.assert_allclose(array(result.mean), values.mean((0, 2, 3)), **CLOSE)
    np.testing.assert_allclose(array(result.variance), values.var((0, 2, 3)), **CLOSE)


def test_sums_are_in_float64():
    """The mean of many equal float32 values is exact; a float32 sum would round it."""
    network = nn.BatchNorm1d(1)
    values = torch.full((300_000, 1), 0.1)
    values[::2] += 1000
    result = population_statistics(network, [values, values])[""]
    exact = values.double().numpy()
    np.testing.assert_allclose(array(result.mean), exact.mean(0), rtol=1e-14)
    np.testing.assert_allclose(array(result.variance), exact.var(0), rtol=1e-9)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, BatchNorm])
def test_with_statistics_of_one_batch_eval_mode_gives_what_training_mode_gives(norm):
    network, (batch,) = mlp(norm), images(16)
    expected = copy.deepcopy(network).train()(batch)
    statistics = population_statistics(network, [batch])
    network.eval()
    before = network(batch)
    with precise_statistics(network, statistics):
        torch.testing.assert_close(network(batch), expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(before, expected)
    assert torch.equal(network(batch), before)


def test_dropout_is_off():
    network, batches = mlp(dropout=0.5), images(8, 8)
    noisy = population_statistics(network.train(), batches)
    network[1].p = 0.0
    exact = population_statistics(network, batches)
    for name in ("2", "5"):
        assert torch.equal(noisy[name].variance, exact[name].variance)


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_unchanged(network: nn.Module, before: dict[str, torch.Tensor], modes: list[bool]) -> None:
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert [module.training for module in network.modules()] == modes
    assert not any(module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, BatchNorm])
def test_weights_running_statistics_and_modes_stay(norm):
    network = mlp(norm, dropout=0.5)
    network(images(8)[0])
    network[5].eval()
    before, modes = state(network), [module.training for module in network.modules()]
    assert before["2.num_batches_tracked"] == 1
    generator = torch.get_rng_state()
    batches = images(8, 8)
    torch.set_rng_state(generator)
    statistics = population_statistics(network, batches)
    assert_unchanged(network, before, modes)
    assert torch.equal(torch.get_rng_state(), generator)
    with precise_statistics(network, statistics):
        assert not torch.equal(network.state_dict()["5.running_var"], before["5.running_var"])
    assert_unchanged(network, before, modes)


def test_after_an_error_the_network_is_as_before():
    network = mlp()
    before, modes = state(network), [module.training for module in network.modules()]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        population_statistics(network, [*images(8), torch.ones(2, 7).double()])
    assert_unchanged(network, before, modes)
    statistics = population_statistics(network, images(8))
    with pytest.raises(ZeroDivisionError), precise_statistics(network, statistics):
        raise ZeroDivisionError
    assert_unchanged(network, before, modes)


def test_a_batch_with_a_single_value_a_channel_is_a_mistake():
    with pytest.raises(UserError, match=r"^2: a batch gives each channel .* a single value"):
        population_statistics(mlp(), images(8, 1))


def test_layers_with_running_statistics_are_listed_once_each():
    shared = nn.BatchNorm1d(3)
    network = nn.ModuleDict(
        {
            "first": shared,
            "second": shared,
            "manual": BatchNorm(3),
            "maps": nn.BatchNorm2d(3),
            "batch_only": nn.BatchNorm1d(3, track_running_stats=False),
            "instance": nn.InstanceNorm2d(3, track_running_stats=True),
            "layer": nn.LayerNorm(3),
        }
    )
    assert list(batch_norms(network)) == ["first", "manual", "maps"]


def test_batch_norms_of_torchvision_are_measured():
    network = build("torchvision", arch="resnet18")
    statistics = population_statistics(network, [torch.rand(4, 1, 64, 64), torch.rand(4, 1, 64, 64)])
    assert len(statistics) == 20
    assert all((channels.variance > 0).all() for channels in statistics.values())


def test_a_layer_that_is_called_twice_has_the_statistics_of_both_inputs():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.unused = nn.BatchNorm1d(6), nn.BatchNorm1d(6)

        def forward(self, x):
            return self.norm(input=self.norm(x) * 3 + 1)

    (batch,) = images(8)
    result = population_statistics(Twice(), [batch.float()])
    inputs = array(batch.float().double())
    values = np.concatenate([inputs, normalize(inputs, 1e-5) * 3 + 1])
    assert list(result) == ["norm"]
    np.testing.assert_allclose(array(result["norm"].mean), values.mean(0), atol=1e-5)
    np.testing.assert_allclose(array(result["norm"].variance), values.var(0), rtol=1e-5)


def test_the_shift_is_that_of_the_worst_channel():
    norm = nn.BatchNorm1d(3, eps=0.5)
    norm.running_mean.copy_(torch.tensor([1.0, -2.0, 0.0]))
    norm.running_var.copy_(torch.tensor([3.5, 1.5, 1.5]))
    precise = ChannelStatistics(
        torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), torch.tensor([0.5, 8.5, 1.5], dtype=torch.float64)
    )
    shift = statistics_shift(norm, precise)
    assert shift.mean == pytest.approx(1.0)  # channels: 1 / 1, 3 / 3, 0
    assert shift.variance == pytest.approx(4.5)  # channels: 4 / 1, 9 / 2, 1
