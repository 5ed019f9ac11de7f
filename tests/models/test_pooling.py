"""The faster max-pooling gives torch's results, to the bit."""

import pytest
import torch
from torch import nn

from bnexp.models.pooling import MaxPool


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pool_both(maps, grad=None) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(values, gradient of the maps) of MaxPool, then of torch's pool."""
    results = []
    for pool in (MaxPool(), nn.MaxPool2d(2)):
        leaf = maps.clone(memory_format=torch.preserve_format).requires_grad_()
        values = pool(leaf)
        values.backward(torch.ones_like(values) if grad is None else grad)
        results.append((values.detach(), leaf.grad))
    return results


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [(8, 8), (7, 8), (8, 7), (5, 3), (2, 2)])
def test_values_and_gradients_equal_torchs(size, dtype):
    maps = torch.randn(3, 4, *size, generator=torch.Generator().manual_seed(0)).to(dtype)
    grad = torch.randn(3, 4, size[0] // 2, size[1] // 2).to(dtype)
    (values, maps_grad), (torch_values, torch_maps_grad) = pool_both(maps, grad)
    assert values.dtype is dtype
    assert torch.equal(values, torch_values)
    assert torch.equal(maps_grad, torch_maps_grad)


def test_of_equal_values_the_first_has_the_gradient():
    """After a ReLU most windows hold several zeros."""
    maps = torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(0)).relu().round()
    assert (maps == 0).float().mean() > 0.5
    (values, maps_grad), (torch_values, torch_maps_grad) = pool_both(maps)
    assert torch.equal(values, torch_values)
    assert torch.equal(maps_grad, torch_maps_grad)
    zeros_grad = pool_both(torch.zeros(1, 1, 2, 2))[0][1]
    assert torch.equal(zeros_grad, torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]))


def test_one_thread_uses_its_own_kernel_and_several_use_torchs():
    maps = torch.randn(2, 3, 6, 6, requires_grad=True)
    assert type(MaxPool()(maps).grad_fn).__name__ == "_MaxPoolFunctionBackward"
    torch.set_num_threads(2)
    assert type(MaxPool()(maps).grad_fn).__name__ == "MaxPool2DWithIndicesBackward0"


def test_without_gradients_and_in_channels_last():
    maps = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    torch_values = nn.MaxPool2d(2)(maps)
    with torch.inference_mode():
        assert torch.equal(MaxPool()(maps), torch_values)
    channels_last = maps.contiguous(memory_format=torch.channels_last)
    assert torch.equal(MaxPool()(channels_last), torch_values)
    assert MaxPool()(channels_last).is_contiguous(memory_format=torch.channels_last)


def test_a_network_has_torchs_keys_and_trains_to_the_same_bits():
    states = []
    for pool in (MaxPool, lambda: nn.MaxPool2d(2)):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), pool(), nn.Flatten(), nn.Linear(4 * 9, 3))
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for _ in range(4):
            optimizer.zero_grad()
            network(torch.randn(5, 1, 8, 8)).square().mean().backward()
            optimizer.step()
        states.append(network.state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("size", [(6, 4), (5, 3)])
def test_second_derivatives_equal_torchs(size):
    maps = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    results = []
    for pool in (MaxPool(), nn.MaxPool2d(2)):
        leaf = maps.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(pool(leaf).pow(3).sum(), leaf, create_graph=True)
        gradient.square().sum().backward()
        results.append((gradient.detach(), leaf.grad))
    (gradient, second), (torch_gradient, torch_second) = results
    assert second.abs().max() > 1
    assert torch.equal(gradient, torch_gradient)
    torch.testing.assert_close(second, torch_second)
    assert torch.autograd.gradgradcheck(MaxPool(), maps.requires_grad_())
