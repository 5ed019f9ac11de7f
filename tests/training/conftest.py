"""A user's own code: a module in the folder where the command starts."""

from __future__ import annotations

import sys

import pytest

QUICK = ("epochs=1", "dataset.train_size=60", "dataset.test_size=40", "tracking.tensorboard=false")
IMPORTS_AND_NET = """
import random
import numpy
import torch
from torch import nn


class Net(nn.Sequential):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))


class ChangesInEval(Net):
    def __init__(self, in_channels, image_size, num_classes, effect=0):
        super().__init__(in_channels, image_size, num_classes)
        self.effect = effect
        self.register_buffer("evaluated", torch.zeros(()))

    def forward(self, images):
        self.evaluated += not self.training
        return super().forward(images) * (1 + self.effect * self.evaluated)
"""


class OwnCode:
    """Runs bnexp with the classes of a text, which begins with ``IMPORTS_AND_NET``, as the module mine."""

    def __init__(self, commands, source: str) -> None:
        self.commands, self.folder = commands, commands.folder
        (self.folder / "mine.py").write_text(IMPORTS_AND_NET + source)

    def run(self, *arguments: str, folder: str = "run"):
        """A quick run with these arguments. ``model._target_`` and ``loss._target_`` need no group."""
        groups = []
        for argument in arguments:
            group, _, rest = argument.partition("._target_=")
            if rest and not any(other.startswith(f"{group}=") for other in arguments):
                groups.append("loss=mse" if group == "loss" else f"{group}=custom")
        return self.commands.bnexp(*groups, *QUICK, f"hydra.run.dir={folder}", *arguments)

    def assert_refused(self, arguments: list[str], text: str) -> None:
        """The run ends in one line with ``text`` and exit code 2, and leaves no folder."""
        result = self.run(*arguments)
        assert (result.code, len(result.err.splitlines())) == (2, 1), result.err
        assert text in result.err
        assert not (self.folder / "run").exists()

    def output(self, *arguments: str, folder: str = "run") -> str:
        """What a run prints that ends well."""
        result = self.run(*arguments, folder=folder)
        assert result.code == 0, result.err
        return result.out + result.err


@pytest.fixture
def own_code(commands, monkeypatch):
    def write(source: str = "") -> OwnCode:
        monkeypatch.syspath_prepend(str(commands.folder))
        monkeypatch.delitem(sys.modules, "mine", raising=False)
        return OwnCode(commands, source)

    return write
