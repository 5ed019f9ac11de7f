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
        ["model._target_=mine.OtherGeneratorInTraining"], "draws from noise, a generator of its own"
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


SLOW_WEIGHTS = """
from collections import deque
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


class Lookahead(torch.optim.SGD):
    \"\"\"Slow weights with an effect in every fifth step (Zhang et al. 2019).\"\"\"

    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, lr=lr)
        self.hold([value.detach().clone() for value in self.parameters()])
        self.param_groups[0]["steps"] = 0

    def parameters(self):
        return self.param_groups[0]["params"]

    def hold(self, values):
        self.slow = values

    def held(self):
        return self.slow

    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        self.param_groups[0]["steps"] += 1
        if self.param_groups[0]["steps"] % 5 == 0:
            for value, slow in zip(self.parameters(), self.held()):
                slow.lerp_(value, 0.5)
                value.copy_(slow)


class ByParameter(Lookahead):
    def hold(self, values):
        self._slow = dict(zip(self.parameters(), values))

    def held(self):
        return self._slow.values()


class Memory:
    def __init__(self, values):
        self.past = deque([values])


class InAnObject(Lookahead):
    def hold(self, values):
        self.memory = Memory(values)

    def held(self):
        return self.memory.past[0]


class InOneVector(Lookahead):
    def hold(self, values):
        self.slow = torch.cat([value.flatten() for value in values])

    def held(self):
        sizes = [value.numel() for value in self.parameters()]
        parts = zip(self.slow.split(sizes), self.parameters())
        return [part.view_as(value) for part, value in parts]


class InState(Lookahead):
    def hold(self, values):
        for value, slow in zip(self.parameters(), values):
            self.state[value]["slow"] = slow

    def held(self):
        return [self.state[value]["slow"] for value in self.parameters()]


class Views(Lookahead):
    \"\"\"Holds views of parameters and gradients, and a slow copy in its state.\"\"\"

    hold, held = InState.hold, InState.held

    def step(self, closure=None):
        self.values = [value.data.view(-1) for value in self.parameters()]
        self.gradients = [value.grad for value in self.parameters()]
        super().step()


class Wrapper(torch.optim.Optimizer):
    \"\"\"Around an optimizer whose state no checkpoint holds. Its effect begins later.\"\"\"

    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, {"lr": lr})
        self.inner = torch.optim.Adam(self.param_groups[0]["params"], lr=lr)
        self.param_groups[0]["steps"] = 0

    @torch.no_grad()
    def step(self, closure=None):
        before = [value.clone() for value in self.param_groups[0]["params"]]
        self.inner.step()
        self.param_groups[0]["steps"] += 1
        if self.param_groups[0]["steps"] < 10:
            for value, old in zip(self.param_groups[0]["params"], before):
                value.copy_(old - 0.1 * value.grad)


class SavingWrapper(Wrapper):
    def state_dict(self):
        inner = self.inner.state_dict()
        numbers = {number: {name: value.clone() for name, value in values.items()}
                   for number, values in inner["state"].items()}
        return {**super().state_dict(), "inner": {**inner, "state": numbers}}

    def load_state_dict(self, state):
        self.inner.load_state_dict(state["inner"])
        super().load_state_dict({name: value for name, value in state.items() if name != "inner"})


class Scheduler(LRScheduler):
    def __init__(self, optimizer):
        self.first = [value.detach().clone() for value in optimizer.param_groups[0]["params"]]
        super().__init__(optimizer)

    def get_lr(self):
        return [0.1 for _ in self.base_lrs]


class ForgetfulScheduler(Scheduler):
    def state_dict(self):
        return {name: value for name, value in super().state_dict().items() if name != "first"}
"""
UNSAVED = {
    "optimizer._target_=mine.Lookahead": "slow[0]",
    "optimizer._target_=mine.ByParameter": "_slow[hidden.0.linear.weight]",
    "optimizer._target_=mine.InAnObject": "memory.past[0][0]",
    "optimizer._target_=mine.InOneVector": "slow",
    "optimizer._target_=mine.Wrapper": "inner.state[hidden.0.linear.weight]['exp_avg']",
    "scheduler._target_=mine.ForgetfulScheduler": "first[0]",
}
SAVED = ("optimizer._target_=mine.InState", "optimizer._target_=mine.Views",
         "optimizer._target_=mine.SavingWrapper", "scheduler._target_=mine.Scheduler")  # fmt: skip


@pytest.mark.parametrize("part", UNSAVED)
def test_tensors_that_no_checkpoint_holds_are_refused_whenever_their_effect_comes(own_code, part):
    own_code(SLOW_WEIGHTS).assert_refused([part], f"{part}: {UNSAVED[part]} is in no checkpoint")


@pytest.mark.parametrize("part", SAVED)
def test_tensors_in_a_state_dict_and_views_of_the_network_are_not_refused(own_code, part):
    own_code(SLOW_WEIGHTS).output(part)
