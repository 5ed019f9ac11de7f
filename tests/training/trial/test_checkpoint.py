"""A trainer that was saved and read again goes on as the one that was not."""

from __future__ import annotations

import pytest

MODULE = '''
class Counts(Net):
    """Has a state that no checkpoint holds."""

    calls = 0

    def forward(self, images):
        self.calls += self.training
        return super().forward(images) * (1 + 0.1 * self.calls)


class TemporaryBuffer(Net):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        self.register_buffer("scale", torch.ones(1), persistent=False)

    def forward(self, images):
        if self.training:
            self.scale += 0.1
        return super().forward(images) * self.scale


class OtherGenerator(Net):
    def forward(self, images):
        import numpy

        return super().forward(images) + float(numpy.random.default_rng().normal())


class OtherGeneratorInTraining(Net):
    def forward(self, images):
        logits = super().forward(images)
        if self.training:
            if not hasattr(self, "noise"):
                self.noise = torch.Generator().manual_seed(1)
            logits = logits + torch.randn(logits.shape, generator=self.noise)
        return logits


class ObjectInState(torch.optim.SGD):
    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, lr=lr)

    def state_dict(self):
        return {**super().state_dict(), "extra": object()}


class Countdown(torch.optim.SGD):
    """Counts its steps in an attribute, and takes smaller ones."""

    count = 0

    def step(self, closure=None):
        self.count += 1
        self.param_groups[0]["lr"] = 0.1 / self.count
        super().step(closure)


class CountsForLater(Net):
    calls = 0

    def forward(self, images):
        self.calls += self.training
        return super().forward(images) * (1 if self.calls < 1000 else 0.5)


class AverageInAList(Net):
    """Evaluates a moving average, which no checkpoint holds and which moves from the second step on."""

    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        self.average = [nn.Linear(in_channels * image_size**2, num_classes).requires_grad_(False)]
        self.average[0].load_state_dict(self[1].state_dict())

    def forward(self, images):
        if not self.training:
            return self.average[0](images.flatten(1))
        with torch.no_grad():
            for value, target in zip(self.average[0].parameters(), self[1].parameters()):
                value.lerp_(target, 0.1)
        return super().forward(images)


class GrowingBuffer(Net):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        self.register_buffer("memory", torch.zeros(0, num_classes))

    def forward(self, images):
        logits = super().forward(images)
        self.memory = torch.cat([self.memory, logits.detach()])
        return logits


NORM = nn.BatchNorm2d(1, affine=False)


class SharedStatistics(Net):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        self.insert(0, NORM)


class ClassCounts(Net):
    calls = 0

    def forward(self, images):
        ClassCounts.calls += 1
        return super().forward(images)


STEPS = 0


class ModuleCounts(Net):
    def forward(self, images):
        global STEPS
        STEPS += self.training
        return super().forward(images)


class Lookahead(torch.optim.SGD):
    """Counts in an attribute, with an effect in every fifth step."""

    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, lr=lr)
        self.steps = 0

    def step(self, closure=None):
        super().step()
        self.steps += 1

'''
MISTAKES = {
    "a counter": (["model._target_=mine.Counts"], "gives other logits after it was saved and read again"),
    "a buffer": (["model._target_=mine.TemporaryBuffer"], "must be a parameter or a persistent buffer"),
    "another generator": (["model._target_=mine.OtherGenerator"], "random numbers must come from the global"),
    "an object in the state": (
        ["optimizer=custom", "optimizer._target_=mine.ObjectInState"], "its state_dict must hold only tensors"
    ),
    "another generator in training": (
        ["model._target_=mine.OtherGeneratorInTraining"], "gives other logits in training mode after it was"
    ),
    "an optimizer that counts": (
        ["optimizer=custom", "optimizer._target_=mine.Countdown", "+optimizer.lr=0.1"],
        "mine.Countdown: takes another step after it was saved and read again",
    ),
    "a moving average in a list": (
        ["model._target_=mine.AverageInAList"], "AverageInAList: gives other logits after it was saved and"
    ),
    "a buffer that grows": (
        ["model._target_=mine.GrowingBuffer"], "mine.GrowingBuffer: the checkpoint does not fit this network"
    ),
    "statistics of all networks": (
        ["model._target_=mine.SharedStatistics"], "0.running_mean is one tensor in all networks"
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(own_code, mistake):
    own_code(MODULE).assert_refused(*MISTAKES[mistake])


NUMBERS = {
    "CountsForLater": "calls changes in training, and no checkpoint holds it",
    "ClassCounts": "ClassCounts.calls changes in training, and all runs of a process share it",
    "ModuleCounts": "mine.STEPS changes in training, and all runs of a process share it",
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_may_change_a_later_result_is_told(own_code, name):
    code = own_code(MODULE)
    assert code.output(f"model._target_=mine.{name}").count(f"mine.{name}: {NUMBERS[name]}") == 1
    assert "changes in training" not in code.output("model._target_=mine.Net", folder="other")


def test_a_number_of_an_optimizer_is_told(own_code):
    output = own_code(MODULE).output("optimizer._target_=mine.Lookahead")
    assert output.count("mine.Lookahead: steps changes in training, and no checkpoint holds it") == 1
