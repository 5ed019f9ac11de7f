"""No part sets a global generator in a step: all steps would draw the same numbers."""

from __future__ import annotations

import pytest

MODULE = '''
def dropout(values, training):
    return nn.functional.dropout(values, 0.5, training)


class SeedsTorch(Net):
    def forward(self, images):
        torch.manual_seed(0)
        return super().forward(dropout(images, self.training))


class SeedsByACounter(Net):
    """Other numbers in each step, but the same for every seed of a run."""

    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, images):
        self.steps += self.training
        torch.manual_seed(int(self.steps))
        return super().forward(dropout(images, self.training))


class SeedsNumpy(Net):
    def forward(self, images):
        numpy.random.seed(0)
        return super().forward(images)


class SeedsPython(Net):
    def forward(self, images):
        random.seed(0)
        return super().forward(images)


class SeedsInEval(Net):
    """Repeats its evaluation, which does no harm."""

    def forward(self, images):
        if not self.training:
            torch.manual_seed(0)
        return super().forward(images)


class Draws(Net):
    def forward(self, images):
        factor = random.random() + numpy.random.random() if self.training else 1.0
        return super().forward(dropout(images, self.training)) * factor


class Loss(nn.Module):
    def forward(self, logits, labels):
        torch.manual_seed(0)
        return nn.functional.cross_entropy(logits, labels)


class Optimizer(torch.optim.SGD):
    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, lr=lr)

    def step(self, closure=None):
        numpy.random.seed(0)
        super().step()


class OwnChoice(Net):
    """Leaves the images out by a chance that most trials do not see."""

    def __init__(self, in_channels, image_size, num_classes, kind: str = "python"):
        super().__init__(in_channels, image_size, num_classes)
        kinds = {"python": random.Random, "numpy": numpy.random.default_rng, "old": numpy.random.RandomState}
        self.choices = kinds[kind](0)

    def forward(self, images):
        return super().forward(images * (not self.training or self.choices.random() > 0.01))


CHOICES = random.Random(0)


class ChoiceOfTheModule(Net):
    def forward(self, images):
        return super().forward(images * (not self.training or CHOICES.random() > 0.01))


class ChoiceOfTheClass(Net):
    chance = numpy.random.default_rng(0)

    def forward(self, images):
        return super().forward(images * (not self.training or self.chance.random() > 0.01))


class HoldsSystemRandom(Net):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        self.name = random.SystemRandom()


class DrawsInInit(Net):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        self.choices = random.Random(0)
        self.scale = self.choices.random()
'''
OWN = "mine.OwnChoice: draws from choices, a generator of its own, and no checkpoint holds its state"
MISTAKES = {
    "a choice by Python": (["model._target_=mine.OwnChoice"], OWN),
    "a choice by numpy": (["model._target_=mine.OwnChoice", "+model.kind=numpy"], OWN),
    "a choice by numpy's older class": (["model._target_=mine.OwnChoice", "+model.kind=old"], OWN),
    "a choice of the module": (["model._target_=mine.ChoiceOfTheModule"], "Module: draws from CHOICES, a"),
    "a choice of the class": (["model._target_=mine.ChoiceOfTheClass"], "OfTheClass: draws from chance, a"),
    "torch": (["model._target_=mine.SeedsTorch"], "mine.SeedsTorch: calls torch.manual_seed in each step"),
    "numpy": (["model._target_=mine.SeedsNumpy"], "mine.SeedsNumpy: calls np.random.seed in each step"),
    "Python": (["model._target_=mine.SeedsPython"], "mine.SeedsPython: calls random.seed in each step"),
    "a counter": (["model._target_=mine.SeedsByACounter"], "calls torch.manual_seed in each step"),
    "a loss": (["loss._target_=mine.Loss"], "loss._target_=mine.Loss: calls torch.manual_seed in each step"),
    "an optimizer": (["optimizer._target_=mine.Optimizer"], "mine.Optimizer: calls np.random.seed in each"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(own_code, mistake):
    own_code(MODULE).assert_refused(*MISTAKES[mistake])


@pytest.mark.parametrize("name", ["Draws", "SeedsInEval", "DrawsInInit", "HoldsSystemRandom"])
def test_a_network_may_draw_and_repeat_its_evaluation(own_code, name):
    own_code(MODULE).output(f"model._target_=mine.{name}")
