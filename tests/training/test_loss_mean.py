"""A loss is a mean over images: what passes, what is refused, and an evaluation in batches of any size."""

import pytest
import torch
from torch import nn

from bnexp.compute.device import prepare_device
from bnexp.config.schema import Device
from bnexp.data import Split
from bnexp.data.images import Images
from bnexp.errors import UserError
from bnexp.training.loss_mean import check_is_mean, image_weights, weighs_images
from bnexp.training.losses import OneHotMSE
from bnexp.training.trainer import Trainer


def test_a_mean_and_a_weighted_mean_pass_and_anything_else_is_refused():
    device = torch.device("cpu")
    weight = torch.tensor([1.0, 5.0, 0.5])
    for loss in (
        nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1), nn.MultiMarginLoss(), OneHotMSE(),
        nn.CrossEntropyLoss(weight=weight), nn.CrossEntropyLoss(ignore_index=1),
        nn.MultiMarginLoss(weight=weight),
    ):  # fmt: skip
        check_is_mean(loss, "loss", 3, device)
    with pytest.raises(UserError, match="must be a mean over the images"):
        check_is_mean(nn.CrossEntropyLoss(reduction="sum"), "loss", 3, device)
    with pytest.raises(UserError, match="fails on logits"):
        check_is_mean(nn.CrossEntropyLoss(reduction="none"), "loss", 3, device)


def test_weights_of_images_by_hand():
    labels = torch.tensor([0, 1, 2, 1])
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.5]), ignore_index=2)
    assert image_weights(loss, labels).tolist() == [1, 5, 0, 5]
    assert image_weights(OneHotMSE(), labels).tolist() == [1, 1, 1, 1]
    assert weighs_images(loss)
    assert not weighs_images(nn.CrossEntropyLoss())


@pytest.mark.parametrize("options", [{"weight": torch.tensor([1.0, 5.0, 0.5])}, {"ignore_index": 1}, {}])
def test_the_loss_of_an_evaluation_does_not_depend_on_the_batch_size(options):
    torch.manual_seed(0)
    network, loss = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), nn.CrossEntropyLoss(**options)
    images = Images(
        torch.randint(0, 256, (50, 1, 2, 2), dtype=torch.uint8), torch.randint(0, 3, (50,)).sort()[0]
    )
    split = Split(images, torch.device("cpu"), mean=[0.5], std=[0.5])
    trainer = Trainer(
        network,
        loss,
        torch.optim.SGD(network.parameters(), 0.1),
        prepare_device(Device("cpu", "fp32", False, False, 1, False)),
    )
    losses = [trainer.classify(split, size)[0] for size in (1, 7, 50)]
    pixels, labels = next(split.in_order(50))
    assert losses == pytest.approx([loss(network(pixels), labels).item()] * 3, rel=1e-6)
