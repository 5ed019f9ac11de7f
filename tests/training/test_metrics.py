"""The meter: what the steps give, read together."""

import torch

from bnexp.training.metrics import Meter, StepOutput, confusion_counts, confusion_pairs

LABELS = torch.tensor([0, 1, 2])
LOGITS = torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [3.0, 0.0, 0.0]])


def test_a_window_holds_the_losses_and_the_correct_images_of_its_steps():
    meter = Meter(capacity=2)
    assert meter.is_empty
    meter.add(StepOutput(torch.tensor(1.0), LOGITS, LABELS, 3))
    assert not meter.is_full
    meter.add(StepOutput(torch.tensor(2.0), LOGITS[:1], LABELS[:1], 1))
    assert meter.is_full
    window = meter.read()
    assert (window.losses, window.batch_sizes, window.correct) == ([1.0, 2.0], [3, 1], 3)
    assert meter.is_empty


def test_scores_may_be_classes_instead_of_logits():
    meter = Meter(capacity=1)
    meter.add(StepOutput(torch.tensor(1.0), torch.tensor([0, 1, 1]), LABELS, 3))
    assert meter.read().correct == 2


def test_confusions_are_counted_for_the_images_of_this_process():
    counts = confusion_counts(torch.tensor([0, 0, 2, 2, 1]), torch.tensor([0, 1, 2, 2, -1]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 2]]
    assert confusion_pairs(counts) == {(0, 0): 1, (0, 1): 1, (2, 2): 2}
