"""The schedulers that torch does not have."""

import pytest
import torch

from bnexp.training.schedulers import InverseSqrtLR


def test_inverse_sqrt_follows_its_formula():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = InverseSqrtLR(optimizer, decay=0.1)
    for t in range(50):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * (1 + 0.1 * t) ** -0.5)
        optimizer.step()
        scheduler.step()


def test_inverse_sqrt_continues_from_its_state():
    rates = []
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = InverseSqrtLR(optimizer, decay=0.1)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    restored_optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    restored = InverseSqrtLR(restored_optimizer, decay=0.1)
    restored.load_state_dict(scheduler.state_dict())
    restored_optimizer.load_state_dict(optimizer.state_dict())
    for both in ((optimizer, scheduler), (restored_optimizer, restored)):
        both[0].step()
        both[1].step()
    assert optimizer.param_groups[0]["lr"] == restored_optimizer.param_groups[0]["lr"] < rates[-1]
