"""A loss: one number, a mean over images, the same in every step, and no change of its arguments."""

from __future__ import annotations

import pytest

MODULE = '''
import threading


class LossWithParameters(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, logits, labels):
        return self.scale * nn.functional.cross_entropy(logits, labels)


class SumLoss(nn.Module):
    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits, labels, reduction="sum")


class WithPenalty(nn.Module):
    """The spread of the logits in a batch is no mean over images."""

    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits, labels) + 0.1 * logits.std(0).mean()


class RootOfTheMean(nn.Module):
    def forward(self, logits, labels):
        target = nn.functional.one_hot(labels, logits.shape[1]).float()
        return ((logits.softmax(1) - target) ** 2).mean().sqrt()


class Flooding(nn.Module):
    def forward(self, logits, labels):
        return (nn.functional.cross_entropy(logits, labels) - 0.05).abs() + 0.05


class LossPerImage(nn.Module):
    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits, labels, reduction="none")


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


class LabelsInPlace(nn.Module):
    def forward(self, logits, labels):
        labels[labels == 1] = 0
        return nn.functional.cross_entropy(logits, labels)


class LogitsInPlace(nn.Module):
    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits.mul_(1) if logits.requires_grad else logits.zero_(), labels)


class MixupInTraining(nn.Module):
    """Mixes labels by chance while it is in training mode."""

    def forward(self, logits, labels):
        loss = nn.functional.cross_entropy(logits, labels)
        if not self.training:
            return loss
        return (loss + nn.functional.cross_entropy(logits, labels[torch.randperm(len(labels))])) / 2


class HoldsALock(nn.Module):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, logits, labels):
        with self.lock:
            return nn.functional.cross_entropy(logits, labels)


class OwnGenerator(nn.Module):
    """Draws from a generator that no checkpoint holds, while it is in training mode."""

    def __init__(self, seed: int | None = None):
        super().__init__()
        self.generator = numpy.random.default_rng(seed)

    def forward(self, logits, labels):
        factor = self.generator.uniform(0.5, 1.5) if self.training else 1.0
        return factor * nn.functional.cross_entropy(logits, labels)

'''
MISTAKES = {
    "loss with parameters": (["loss._target_=mine.LossWithParameters"], "has parameters of its own"),
    "sum": (["loss._target_=mine.SumLoss"], "must be a mean over the images of a batch"),
    "per image": (["loss._target_=mine.LossPerImage"], "fails on logits"),
    "nearly a mean": (["loss._target_=mine.WithPenalty"], "must be a mean over the images of a batch"),
    "a root": (["loss._target_=mine.RootOfTheMean"], "must be a mean over the images of a batch"),
    "flooding": (["loss._target_=mine.Flooding"], "must be a mean over the images of a batch"),
    "a class without weight": (["loss.weight=[0,1,1,1,1,1,1,1,1,1]"], "weight[0]=0: must be a number, above"),
    "reduction": (["+loss.reduction=sum"], "loss.reduction=sum: must be one of mean"),
    "weights": (["loss.weight=[1,2]"], "must have a number for each of the 10 classes"),
    "logits for NLL": (["loss=custom", "loss._target_=torch.nn.NLLLoss"], "needs log-probabilities"),
    "a loss that changes": (["loss._target_=mine.LossThatChanges"], "changes while it trains"),
    "a loss that torch warns of": (["loss=custom", "loss._target_=torch.nn.MSELoss"], "fails on logits"),
    "labels in place": (["loss._target_=mine.LabelsInPlace"], "LabelsInPlace: changes the labels in place"),
    "a generator of its own": (
        ["loss._target_=mine.OwnGenerator"], "loss._target_=mine.OwnGenerator: draws from generator, a"
    ),
    "a seeded generator of its own": (
        ["loss._target_=mine.OwnGenerator", "+loss.seed=0"], "mine.OwnGenerator: draws from generator, a"
    ),
    "logits in place": (["loss._target_=mine.LogitsInPlace"], "LogitsInPlace: changes the logits in place"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(own_code, mistake):
    own_code(MODULE).assert_refused(*MISTAKES[mistake])


def test_a_loss_that_no_deep_copy_can_follow_is_trained(own_code):
    own_code(MODULE).output("loss._target_=mine.HoldsALock")


def test_a_loss_knows_whether_it_is_in_training(own_code):
    own_code(MODULE).output("loss._target_=mine.MixupInTraining")


def test_probabilities_in_cross_entropy_are_told_and_log_probabilities_fit_nll(own_code):
    code = own_code(MODULE)
    assert "give logits" in code.output("model._target_=mine.Probabilities", folder="a")
    nll = ("loss=custom", "loss._target_=torch.nn.NLLLoss")
    assert "give logits" not in code.output("model._target_=mine.LogProbabilities", *nll, folder="b")
