"""A scheduler: each of its steps gives a learning rate, also after a stop."""

from __future__ import annotations

import pytest

MODULE = """
from torch.optim.lr_scheduler import ReduceLROnPlateau


class Plateau(ReduceLROnPlateau):
    pass


class Lowest(ReduceLROnPlateau):
    def __init__(self, optimizer):
        super().__init__(optimizer, patience=0)


class Negative(torch.optim.lr_scheduler.LRScheduler):
    def get_lr(self):
        return [0.1 - 0.1 * self.last_epoch for group in self.optimizer.param_groups]


class TextAsRate(torch.optim.lr_scheduler.LRScheduler):
    def get_lr(self):
        return ["fast" for group in self.optimizer.param_groups]


class FailsLater(torch.optim.lr_scheduler.LRScheduler):
    def get_lr(self):
        if self.last_epoch == 3:
            raise KeyError("no rate")
        return [0.1 for group in self.optimizer.param_groups]


class NoState(torch.optim.lr_scheduler.LRScheduler):
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

    def get_lr(self):
        return [lr * 0.5**self.last_epoch for lr in self.base_lrs]


class NoRate(torch.optim.lr_scheduler.LRScheduler):
    def get_lr(self):
        return [None for _ in self.base_lrs]


class NoScheduler:
    def __init__(self, optimizer):
        pass

    def step(self):
        pass
"""
MISTAKES = {
    "negative rate": (
        ["epochs=4", "scheduler=custom", "scheduler._target_=mine.Negative"],
        "Negative: the learning rate is -0.1 after step 2",
    ),
    "text as rate": (
        ["scheduler=custom", "scheduler._target_=mine.TextAsRate"], "TextAsRate: the learning rate is fast"
    ),
    "a step that fails": (
        ["epochs=4", "scheduler=custom", "scheduler._target_=mine.FailsLater"], "FailsLater: its step 3 fails"
    ),
    "milestones": (
        ["scheduler=custom", "scheduler._target_=torch.optim.lr_scheduler.MultiStepLR",
         "+scheduler.milestones=[a]"],
        "scheduler.milestones[0]=a: must be a whole number",
    ),
    "last epoch": (
        ["scheduler=custom", "scheduler._target_=torch.optim.lr_scheduler.StepLR", "+scheduler.step_size=1",
         "+scheduler.last_epoch=5"],
        "scheduler.last_epoch=5: must be one of -1",
    ),
    "a plateau that takes no direction": (
        ["scheduler=custom", "scheduler._target_=mine.Lowest", "+scheduler.monitor=val/accuracy"],
        "scheduler.monitor=val/accuracy: Lowest looks for its minimum; let its __init__ take mode",
    ),
    "plateau by step": (
        ["scheduler=custom", "scheduler._target_=mine.Plateau", "scheduler.interval=step"], "must be epoch"
    ),
    "a scheduler without a state": (
        ["epochs=3", "scheduler=custom", "scheduler._target_=mine.NoState"],
        "mine.NoState: gives the learning rate 0.05 after it was saved and read again, not 0.025",
    ),
    "no rate": (["scheduler=custom", "scheduler._target_=mine.NoRate"], "NoRate: the learning rate is None"),
    "no scheduler": (
        ["scheduler=custom", "scheduler._target_=mine.NoScheduler"], "NoScheduler: has no state_dict"
    ),
    "too few steps": (
        ["scheduler=onecycle", "scheduler.total_steps=3", "batch_size=4"],
        "scheduler.total_steps=3: must be null or at least 15, the steps of epochs=1",
    ),
    "enough steps for fewer epochs": (
        ["scheduler=onecycle", "scheduler.total_steps=33", "batch_size=4", "epochs=3"],
        "must be null or at least 45, the steps of epochs=3; it lasts for epochs=2",
    ),
    "too few steps by other keys": (
        [
            "scheduler=custom", "scheduler._target_=torch.optim.lr_scheduler.OneCycleLR", "batch_size=4",
            "scheduler.interval=step", "+scheduler.max_lr=1", "+scheduler.epochs=1",
            "+scheduler.steps_per_epoch=3",
        ],
        "OneCycleLR: ends after 3 steps, before the last of 15, the steps of epochs=1;"
        " scheduler.total_steps=null makes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(own_code, mistake):
    own_code(MODULE).assert_refused(*MISTAKES[mistake])


def test_a_plateau_of_ones_own_takes_its_direction_from_the_metric(own_code):
    own_init = """
    def __init__(self, optimizer, mode="min", patience=0):
        super().__init__(optimizer, mode=mode, patience=patience)
        print("direction:", mode)
"""
    plateau = "class Plateau(ReduceLROnPlateau):"
    code = own_code(MODULE.replace(f"{plateau}\n    pass\n", plateau + own_init))
    output = code.output("scheduler._target_=mine.Plateau", "+scheduler.monitor=val/accuracy")
    assert "direction: max" in output
    assert "direction: min" not in output
