"""Mistakes that only a step shows are told in one line, before training, with the key that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bnexp.training.checkpoint import load

QUICK = (
    "epochs=1",
    "dataset.train_size=60",
    "dataset.test_size=40",
    "tracking.tensorboard=false",
    "hydra.run.dir=run",
)
MODULE = '''
import random
import numpy
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau


class Net(nn.Sequential):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))


class LateLayer(Net):
    """Makes a layer in its first forward pass."""

    def forward(self, images):
        logits = super().forward(images)
        if not hasattr(self, "head"):
            self.head = nn.Linear(logits.shape[1], logits.shape[1])
        return self.head(logits)


class TupleInEval(Net):
    def forward(self, images):
        logits = super().forward(images)
        return logits if self.training else (logits, images)


class TupleInTraining(Net):
    def forward(self, images):
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


class LayersInAList(nn.Module):
    def __init__(self, in_channels, image_size, num_classes, frozen: bool = False):
        super().__init__()
        self.layers = [nn.Linear(in_channels * image_size**2, 8)]
        self.layers[0].requires_grad_(not frozen)
        self.head = nn.Linear(8, num_classes)

    def forward(self, images):
        return self.head(self.layers[0](images.flatten(1)))


OUTSIDE = nn.Linear(10, 10)


class LayersElsewhere(Net):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        self.parts = {"scale": [torch.ones(num_classes, requires_grad=True)]}

    def forward(self, images):
        return OUTSIDE(super().forward(images)) * self.parts["scale"][0]


class LossWithParameters(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, logits, labels):
        return self.scale * nn.functional.cross_entropy(logits, labels)


class SumLoss(nn.Module):
    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits, labels, reduction="sum")


class LossPerImage(nn.Module):
    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits, labels, reduction="none")


class Plateau(ReduceLROnPlateau):
    pass


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


class AlwaysTraining(Net):
    def train(self, mode=True):
        return super().train(True)


class Lazy(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.Flatten(), nn.LazyLinear(num_classes))


class Probabilities(Net):
    def forward(self, images):
        return super().forward(images).softmax(1)


class LogProbabilities(Net):
    def forward(self, images):
        return super().forward(images).log_softmax(1)


class LossThatChanges(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, logits, labels):
        if logits.requires_grad:
            self.temperature += 0.1
        return nn.functional.cross_entropy(logits * self.temperature, labels)


class HalfOfThem(torch.optim.SGD):
    def __init__(self, params, lr: float = 0.1):
        super().__init__(list(params)[:1], lr=lr)


class ObjectInState(torch.optim.SGD):
    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, lr=lr)

    def state_dict(self):
        return {**super().state_dict(), "extra": object()}


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


class Thaws(Net):
    """Begins with a frozen layer, whose gradient it switches on while it trains."""

    def __init__(self, in_channels, image_size, num_classes, late: bool = True):
        super().__init__(in_channels, image_size, num_classes)
        self.insert(1, nn.Linear(in_channels * image_size**2, in_channels * image_size**2))
        self.late, self.passes = late, 0
        self[1].requires_grad_(not late)

    def forward(self, images):
        self.passes += self.training
        if self.training:
            self[1].requires_grad_(self.passes > 6)
        return super().forward(images)


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


class Detached(Net):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        self.insert(1, nn.Linear(784, 784))

    def forward(self, images):
        return self[2](self[1](self[0](images)).detach())


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


class OtherGeneratorInTraining(Net):
    def forward(self, images):
        logits = super().forward(images)
        if self.training:
            if not hasattr(self, "noise"):
                self.noise = torch.Generator().manual_seed(1)
            logits = logits + torch.randn(logits.shape, generator=self.noise)
        return logits


class CountsForLater(Net):
    calls = 0

    def forward(self, images):
        self.calls += self.training
        return super().forward(images) * (1 if self.calls < 1000 else 0.5)


class BatchStatistics(Net):
    def forward(self, images):
        return super().forward(images - images.mean(0))


class NoRunningStatistics(nn.Sequential):
    def __init__(self, in_channels, image_size, num_classes):
        norm = nn.BatchNorm2d(in_channels, track_running_stats=False)
        super().__init__(norm, nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))


class Countdown(torch.optim.SGD):
    """Counts its steps in an attribute, and takes smaller ones."""

    count = 0

    def step(self, closure=None):
        self.count += 1
        self.param_groups[0]["lr"] = 0.1 / self.count
        super().step(closure)


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


class NoLr(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {})

    def step(self, closure=None):
        pass
'''
MISTAKES = {
    "seeds torch": (["model._target_=mine.SeedsTorch"], "mine.SeedsTorch: calls torch.manual_seed itself"),
    "seeds numpy": (["model._target_=mine.SeedsNumpy"], "mine.SeedsNumpy: calls np.random.seed itself"),
    "seeds Python": (["model._target_=mine.SeedsPython"], "mine.SeedsPython: calls random.seed itself"),
    "another start each time": (["model._target_=mine.OwnStart"], "other first weights each time that it is"),
    "a layer of the class": (["model._target_=mine.SharedLayer"], "1.weight is one tensor in all networks"),
    "made once": (["model._target_=mine.OnlyOnce"], "cannot be made (RuntimeError: there can be only"),
    "closure": (["optimizer=custom", "optimizer._target_=torch.optim.LBFGS"], "LBFGS: its step fails"),
    "sparse gradients": (
        ["optimizer=custom", "optimizer._target_=torch.optim.SparseAdam"], "SparseAdam: its step fails"
    ),
    "no lr": (["optimizer=custom", "optimizer._target_=mine.NoLr"], "have no lr"),
    "loss with parameters": (["+loss._target_=mine.LossWithParameters"], "has parameters of its own"),
    "sum": (["+loss._target_=mine.SumLoss"], "must be a mean over the images of a batch"),
    "per image": (["+loss._target_=mine.LossPerImage"], "fails on logits"),
    "reduction": (["+loss.reduction=sum"], "loss.reduction=sum: must be one of mean"),
    "weights": (["loss.weight=[1,2]"], "must have a number for each of the 10 classes"),
    "late layer": (["model._target_=mine.LateLayer"], "makes parameters in its first forward pass"),
    "tuple in eval": (["model._target_=mine.TupleInEval"], "gives a tuple in eval mode"),
    "tuple in training": (["model._target_=mine.TupleInTraining"], "gives no single tensor for 2 images"),
    "a counter": (["model._target_=mine.Counts"], "gives other logits after it was saved and read again"),
    "a buffer": (["model._target_=mine.TemporaryBuffer"], "must be a parameter or a persistent buffer"),
    "another generator": (["model._target_=mine.OtherGenerator"], "random numbers must come from the global"),
    "always in training": (["model._target_=mine.AlwaysTraining"], "stays in training mode after eval()"),
    "layers in a list": (
        ["model._target_=mine.LayersInAList"], "mine.LayersInAList: layers[0].weight, layers[0].bias would be"
    ),
    "layers elsewhere": (
        ["model._target_=mine.LayersElsewhere"], "LayersElsewhere: parts['scale'][0], a parameter (10, 10)"
    ),
    "lazy": (["model._target_=mine.Lazy"], "mine.Lazy: 1: lazy layers have no weights"),
    "logits for NLL": (["loss=custom", "+loss._target_=torch.nn.NLLLoss"], "needs log-probabilities"),
    "a loss that changes": (["+loss._target_=mine.LossThatChanges"], "changes while it trains"),
    "a loss that torch warns of": (["loss=custom", "+loss._target_=torch.nn.MSELoss"], "fails on logits"),
    "some parameters": (
        ["optimizer=custom", "optimizer._target_=mine.HalfOfThem"], "leaves out 3 of 4 parameters, among them"
    ),
    "an object in the state": (
        ["optimizer=custom", "optimizer._target_=mine.ObjectInState"], "its state_dict must hold only tensors"
    ),
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
    "plateau by step": (
        ["scheduler=custom", "scheduler._target_=mine.Plateau", "scheduler.interval=step"], "must be epoch"
    ),
    "another generator in training": (
        ["model._target_=mine.OtherGeneratorInTraining"], "gives other logits in training mode after it was"
    ),
    "an optimizer that counts": (
        ["optimizer=custom", "optimizer._target_=mine.Countdown", "+optimizer.lr=0.1"],
        "mine.Countdown: takes another step after it was saved and read again",
    ),
    "a scheduler without a state": (
        ["epochs=3", "scheduler=custom", "scheduler._target_=mine.NoState"],
        "mine.NoState: gives the learning rate 0.05 after it was saved and read again, not 0.025",
    ),
    "no rate": (["scheduler=custom", "scheduler._target_=mine.NoRate"], "NoRate: the learning rate is None"),
    "no scheduler": (
        ["scheduler=custom", "scheduler._target_=mine.NoScheduler"], "NoScheduler: has no state_dict"
    ),
    "a key that no CPU supports": (
        ["optimizer=adam", "+optimizer.capturable=true"], "torch.optim.Adam: its step fails"
    ),
    "too few steps": (
        ["scheduler=onecycle", "scheduler.total_steps=3", "batch_size=4"], "must be at least 15"
    ),
}  # fmt: skip


def arguments_of(mistake):
    arguments = list(MISTAKES[mistake][0])
    if any("model._target_" in argument for argument in arguments):
        arguments.insert(0, "model=custom")
    return [argument.replace("+loss._target_", "loss._target_") for argument in arguments]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_that_a_step_shows_is_one_line_and_exit_code_2(commands, mistake):
    (commands.folder / "mine.py").write_text(MODULE)
    arguments = arguments_of(mistake)
    if any("loss._target_=mine" in argument for argument in arguments):
        arguments += ["loss=mse"]
    result = commands.bnexp(*QUICK, *arguments)
    assert (result.code, len(result.err.splitlines())) == (2, 1), result.err
    assert MISTAKES[mistake][1] in result.err
    assert not (commands.folder / "run").exists()


def test_a_frozen_layer_may_lie_in_a_list(commands):
    (commands.folder / "mine.py").write_text(MODULE)
    arguments = ("model=custom", "model._target_=mine.LayersInAList", "+model.frozen=true")
    result = commands.bnexp(*QUICK, *arguments)
    assert (result.code, result.err) == (0, ""), result.err


def test_a_working_network_of_ones_own_trains_to_the_same_bits_with_its_trial(commands, monkeypatch):
    from bnexp.training import build

    (commands.folder / "mine.py").write_text(MODULE)
    metrics = []
    for name, is_tried in (("with", True), ("without", False)):
        monkeypatch.setattr(build, "needs_trial", lambda config, is_tried=is_tried: is_tried)
        quick = [*QUICK[:-1], f"hydra.run.dir={name}"]
        result = commands.bnexp("model=custom", "model._target_=mine.Net", "optimizer=adam", *quick)
        assert result.code == 0, result.err
        metrics.append(json.loads((commands.folder / name / "summary.json").read_text())["final"])
    assert metrics[0] == metrics[1]


def test_a_parameter_that_is_switched_on_later_is_named_once(commands):
    (commands.folder / "mine.py").write_text(MODULE)
    arguments = ("model=custom", "model._target_=mine.Thaws", *QUICK[1:], "epochs=9", "batch_size=32")
    result = commands.bnexp(*arguments, "hydra.run.dir=late")
    assert result.code == 0, result.err
    text = result.out + result.err
    assert text.count("are not trained: 1.weight, 1.bias; let them require it in __init__") == 1
    result = commands.bnexp(*arguments, "+model.late=false", "hydra.run.dir=early")  # the advice
    assert result.code == 0, result.err
    assert "are not trained" not in result.out + result.err
    late, early = (load(Path(run, "checkpoints/last.pt"))["model"]["1.weight"] for run in ("late", "early"))
    assert not torch.equal(late, early)  # late has the first weights


def test_parameters_without_a_gradient_are_told(commands):
    (commands.folder / "mine.py").write_text(MODULE)
    result = commands.bnexp("model=custom", "model._target_=mine.Detached", *QUICK)
    assert result.code == 0, result.err
    assert (result.out + result.err).count("does not depend on 1.weight, 1.bias: the first step") == 1


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("CountsForLater", "mine.CountsForLater: calls changes in training, and no checkpoint holds it"),
        (
            "NoRunningStatistics",
            "mine.NoRunningStatistics: in eval mode an image has other logits in another",
        ),
        ("BatchStatistics", "mine.BatchStatistics: in eval mode an image has other logits in another batch"),
    ],
)
def test_what_may_change_a_later_result_is_told(commands, name, line):
    (commands.folder / "mine.py").write_text(MODULE)
    for network, count in ((name, 1), ("Net", 0)):
        result = commands.bnexp(
            "model=custom", f"model._target_=mine.{network}", *QUICK[:-1], f"hydra.run.dir={network}"
        )
        assert result.code == 0, result.err
        assert (result.out + result.err).count(line.replace(name, network)) == count


def test_a_constructor_that_fails_is_named_with_the_line_of_its_file(commands):
    (commands.folder / "mine.py").write_text(MODULE)
    line = MODULE[: MODULE.index("raise NoText")].count("\n") + 1
    result = commands.bnexp("model=custom", "model._target_=mine.FailsWithoutText", *QUICK)
    assert (result.code, result.err) == (
        2,
        "bnexp: model._target_=mine.FailsWithoutText: cannot be made"
        f" (NoText: no text: its __str__ fails; mine.py, line {line})\n",
    )
    assert not Path("run").exists()


def test_one_start_for_all_seeds_is_told(commands):
    (commands.folder / "mine.py").write_text(MODULE)
    result = commands.bnexp("model=custom", "model._target_=mine.OneStart", *QUICK)
    assert result.code == 0, result.err
    assert (result.out + result.err).count("mine.OneStart: all seeds begin with the same weights") == 1


def test_a_module_that_seeds_or_draws_at_its_import_changes_no_weight(commands, monkeypatch):
    for name, line in (("seeds", "torch.manual_seed(0)"), ("draws", "torch.rand(3)"), ("neither", "")):
        (commands.folder / f"{name}.py").write_text(f"{MODULE}\n{line}\n")
        quick = [*QUICK[:-1], "seed=1", f"hydra.run.dir={name}", "optimizer.lr=0"]
        assert commands.bnexp("model=custom", f"model._target_={name}.Net", *quick).code == 0
    seeds, draws, neither = (
        load(Path(name, "checkpoints/last.pt"))["model"] for name in ("seeds", "draws", "neither")
    )
    for key, value in neither.items():
        assert torch.equal(seeds[key], value)
        assert torch.equal(draws[key], value)


def test_probabilities_in_cross_entropy_are_told_and_log_probabilities_fit_nll(commands):
    (commands.folder / "mine.py").write_text(MODULE)
    result = commands.bnexp("model=custom", "model._target_=mine.Probabilities", *QUICK[:-1])
    assert result.code == 0, result.err
    assert "give logits" in result.out + result.err
    nll = ("loss=custom", "loss._target_=torch.nn.NLLLoss")
    result = commands.bnexp("model=custom", "model._target_=mine.LogProbabilities", *nll, *QUICK[:-1])
    assert result.code == 0, result.err
    assert "give logits" not in result.out + result.err


def test_a_plateau_of_ones_own_takes_its_direction_from_the_metric(commands):
    own_init = """
    def __init__(self, optimizer, mode="min", patience=0):
        super().__init__(optimizer, mode=mode, patience=patience)
        print("direction:", mode)
"""
    text = MODULE.replace(
        "class Plateau(ReduceLROnPlateau):\n    pass\n", "class Plateau(ReduceLROnPlateau):" + own_init
    )
    (commands.folder / "own_plateau.py").write_text(text)
    scheduler = (
        "scheduler=custom",
        "scheduler._target_=own_plateau.Plateau",
        "+scheduler.monitor=val/accuracy",
    )
    result = commands.bnexp(*scheduler, *QUICK)
    assert result.code == 0, result.err
    assert "direction: max" in result.out
    assert "direction: min" not in result.out
