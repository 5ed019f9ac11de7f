"""A whole run of a network of the user's own: its trial changes nothing, and it can be repeated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bnexp.training import run
from bnexp.training.checkpoint import load

MODULE = '''
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


class LateAverage(Net):
    """After 10 steps it evaluates a moving average of its layer, which no checkpoint holds."""

    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        self.register_buffer("steps", torch.zeros(()))
        self.average = [nn.Linear(in_channels * image_size**2, num_classes).requires_grad_(False)]

    def forward(self, images):
        self.steps += self.training
        if self.training and self.steps >= 10:
            self.average[0].weight.data.lerp_(self[1].weight.data, 0.1)
        is_averaged = not self.training and self.steps >= 10
        return self.average[0](images.flatten(1)) if is_averaged else super().forward(images)


class LateLayer(Net):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, images):
        self.steps += self.training
        if self.steps == 10 and len(self) == 2:
            self.append(nn.Linear(10, 10).requires_grad_(False))
        return super().forward(images)


class SetsTheDefaultType(Net):
    def forward(self, images):
        torch.set_default_dtype(torch.float64)
        return super().forward(images)


class LateLoss(nn.Module):
    steps = 0

    def forward(self, logits, labels):
        self.steps += logits.requires_grad
        return nn.functional.cross_entropy(logits, labels) * (1 if self.steps < 10 else 2)


class DeletesTheBest(Net):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, images):
        from pathlib import Path

        self.steps += self.training
        if not self.training and Path("run/checkpoints/best.pt").exists():
            Path("run/checkpoints/best.pt").write_text("")
        return super().forward(images)

'''


def test_a_working_network_trains_to_the_same_bits_with_its_trial(own_code, monkeypatch):
    code, metrics = own_code(), []
    for name, is_tried in (("with", True), ("without", False)):
        monkeypatch.setattr(run, "needs_trial", lambda config, is_tried=is_tried: is_tried)
        code.output("model._target_=mine.Net", "optimizer=adam", folder=name)
        metrics.append(json.loads(Path(name, "summary.json").read_text())["final"])
    assert metrics[0] == metrics[1]


def test_a_parameter_that_is_switched_on_later_is_named_once(own_code):
    code = own_code(MODULE)
    arguments = ("model._target_=mine.Thaws", "epochs=9", "batch_size=32")
    output = code.output(*arguments, folder="late")
    assert output.count("are not trained: 1.weight, 1.bias; let them require it in __init__") == 1
    output = code.output(*arguments, "+model.late=false", folder="early")  # the advice
    assert "are not trained" not in output
    late, early = (load(Path(run, "checkpoints/last.pt"))["model"]["1.weight"] for run in ("late", "early"))
    assert not torch.equal(late, early)  # late has the first weights


IRREPRODUCIBLE = {
    "model._target_=mine.LateAverage": "mine.LateAverage: gives other logits when it is built",
    "model._target_=mine.LateLayer": "mine.LateLayer: cannot be built from its checkpoint again",
    "model._target_=mine.ChangesInEval +model.effect=1": "mine.ChangesInEval: gives other logits when it is",
    "loss._target_=mine.LateLoss": "mine.LateLoss: gives another loss when it is built anew",
}


@pytest.mark.parametrize("component", IRREPRODUCIBLE)
def test_a_run_whose_checkpoint_does_not_give_its_results_again_has_failed(own_code, component):
    result = own_code(MODULE).run(*component.split(), "epochs=8", "batch_size=30")
    assert (result.code, len(result.err.splitlines())) == (1, 1), result.err
    assert IRREPRODUCIBLE[component] in result.err
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["status"] == "failed"
    assert IRREPRODUCIBLE[component] in summary["error"]
    assert summary["final"]["test/accuracy"] >= 0  # recorded, though it does not count


def test_a_run_that_cannot_be_repeated_is_not_finished_by_a_second_command(own_code):
    code, arguments = own_code(MODULE), ("model._target_=mine.LateAverage", "epochs=8", "batch_size=30")
    results = [
        code.run(*arguments),
        code.run(*arguments),
        code.commands.resume("run", "epochs=9", "--trust", "mine.LateAverage"),
    ]
    assert [result.code for result in results] == [1, 1, 1], results[2].err
    assert len({result.err for result in results}) == 1
    assert json.loads(Path("run/summary.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("val_size", [0, 20])
def test_a_run_whose_checkpoint_gives_its_results_again_is_finished(own_code, val_size):
    own_code().output("model._target_=mine.Net", "epochs=3", f"dataset.val_size={val_size}")
    assert json.loads(Path("run/summary.json").read_text())["status"] == "finished"


def test_a_checkpoint_that_cannot_be_read_at_the_end_costs_no_record(own_code):
    result = own_code(MODULE).run("model._target_=mine.DeletesTheBest", "epochs=3", "optimizer.lr=5")
    assert result.code == 2
    assert "best.pt: not a checkpoint that can be read" in result.err
    assert json.loads(Path("run/summary.json").read_text())["status"] == "failed"
    assert Path("run/metrics.csv").exists()


def test_a_step_may_set_the_default_type(own_code):
    try:
        own_code(MODULE).output("model._target_=mine.SetsTheDefaultType")
    finally:
        torch.set_default_dtype(torch.float32)
