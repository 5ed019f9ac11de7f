"""The losses that torch does not have."""

import pytest
import torch

from bnexp.training.losses import OneHotMSE


def test_one_hot_mse_equals_a_sum_by_hand():
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.5, -1.0]])
    targets = torch.tensor([2, 1])
    expected = (1 + 4 + 4 + 0 + 0.25 + 1) / 6
    assert OneHotMSE()(logits, targets).item() == pytest.approx(expected)


def test_one_hot_mse_has_the_gradient_of_its_formula():
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 2, 1, 1])
    OneHotMSE()(logits, targets).backward()
    one_hot = torch.eye(3, dtype=torch.float64)[targets]
    torch.testing.assert_close(logits.grad, 2 * (logits.detach() - one_hot) / 12)


def test_one_hot_mse_of_half_logits_under_autocast_is_float32():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = OneHotMSE()(torch.zeros(2, 4).bfloat16(), torch.tensor([0, 3]))
    assert loss.item() == pytest.approx(0.25)


@pytest.mark.parametrize("target", [-1, 3])
def test_a_class_out_of_range_is_an_error(target):
    with pytest.raises(RuntimeError):
        OneHotMSE()(torch.zeros(1, 3), torch.tensor([target]))
