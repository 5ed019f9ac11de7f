"""Which parts need no trial: exact classes, not all names that begin alike."""

from __future__ import annotations

import pytest

from bnexp.config.schema import Component
from bnexp.training.trial.known import is_known


@pytest.mark.parametrize(
    ("group", "target", "expected"),
    [
        ("model", "bnexp.models.MLP", True),
        ("model", "bnexp.models.from_torchvision", True),
        ("model", "bnexp.models.blocks.Anything", False),
        ("optimizer", "torch.optim.AdamW", True),
        ("optimizer", "torch.optim.Adamax", False),
        ("scheduler", None, True),
        ("scheduler", "bnexp.training.schedulers.InverseSqrtLR", True),
        ("scheduler", "torch.optim.lr_scheduler.StepLRX", False),
        ("loss", "torch.nn.CrossEntropyLoss", True),
        ("loss", "torch.nn.CrossEntropyLossOfMine", False),
    ],
)
def test_a_class_is_known_by_its_whole_name(group, target, expected):
    assert is_known(Component(group, target, {})) == expected
