"""The first weights of a network follow from the seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bnexp.training.checkpoint import load

MODULE = '''
class SeedsTorch(Net):
    def __init__(self, in_channels, image_size, num_classes):
        torch.manual_seed(0)
        super().__init__(in_channels, image_size, num_classes)


class SeedsNumpy(Net):
    def __init__(self, in_channels, image_size, num_classes):
        numpy.random.seed(0)
        super().__init__(in_channels, image_size, num_classes)
        self[1].weight.data += float(numpy.random.normal())


class SeedsPython(Net):
    def __init__(self, in_channels, image_size, num_classes):
        random.seed(0)
        super().__init__(in_channels, image_size, num_classes)


class OwnStart(Net):
    """Other weights each time, whatever the seed."""

    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        self[1].weight.data.fill_(float(numpy.random.default_rng().normal()))


class OneStart(Net):
    """The same weights for every seed, and no generator that shows it."""

    def __init__(self, in_channels, image_size, num_classes):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(in_channels, image_size, num_classes)


class SharedLayer(Net):
    """Has a layer that is made with the class, and trained by every run of a process."""

    layer = nn.Linear(784, 784)

    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        self.insert(1, SharedLayer.layer)


class NoText(Exception):
    def __str__(self):
        raise RuntimeError


class FailsWithoutText(Net):
    def __init__(self, in_channels, image_size, num_classes):
        raise NoText


class OnlyOnce(Net):
    made = 0

    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        OnlyOnce.made += 1
        if OnlyOnce.made > 1:
            raise RuntimeError("there can be only one")
'''
MISTAKES = {
    "seeds torch": (["model._target_=mine.SeedsTorch"], "mine.SeedsTorch: calls torch.manual_seed itself"),
    "seeds numpy": (["model._target_=mine.SeedsNumpy"], "mine.SeedsNumpy: calls np.random.seed itself"),
    "seeds Python": (["model._target_=mine.SeedsPython"], "mine.SeedsPython: calls random.seed itself"),
    "another start each time": (["model._target_=mine.OwnStart"], "other first weights each time that it is"),
    "a layer of the class": (["model._target_=mine.SharedLayer"], "1.weight is one tensor in all networks"),
    "made once": (["model._target_=mine.OnlyOnce"], "cannot be made (RuntimeError: there can be only"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(own_code, mistake):
    own_code(MODULE).assert_refused(*MISTAKES[mistake])


def test_a_constructor_that_fails_is_named_with_the_line_of_its_file(own_code):
    code = own_code(MODULE)
    text = (code.folder / "mine.py").read_text()
    line = text[: text.index("raise NoText")].count("\n") + 1
    code.assert_refused(
        ["model._target_=mine.FailsWithoutText"],
        f"mine.FailsWithoutText: cannot be made (NoText: no text: its __str__ fails; mine.py, line {line})\n",
    )


def test_one_start_for_all_seeds_is_told(own_code):
    output = own_code(MODULE).output("model._target_=mine.OneStart")
    assert output.count("mine.OneStart: all seeds begin with the same weights") == 1


def test_a_module_that_seeds_or_draws_at_its_import_changes_no_weight(own_code):
    networks = []
    for name, line in (("seeds", "torch.manual_seed(0)"), ("draws", "torch.rand(3)"), ("neither", "")):
        own_code(line).output("model._target_=mine.Net", "seed=1", "optimizer.lr=0", folder=name)
        networks.append(load(Path(name, "checkpoints/last.pt"))["model"])
    for key, value in networks[-1].items():
        assert torch.equal(networks[0][key], value)
        assert torch.equal(networks[1][key], value)
