"""How much better the network is on training images than on images that it was not trained on."""

from __future__ import annotations

import torch

from bnexp.data import Split
from bnexp.probes.probe import Moment, Probe, Row


class Gap(Probe):
    """Loss and accuracy on training and on test images after each epoch, both in eval mode.

    (Luo et al. 2019, "Towards understanding regularization in batch normalization": the gap between the two.)
    The losses of the run itself do not show it: those of training are of earlier weights, with the statistics
    of batches and with dropout.

    - ``train_loss``, ``train_accuracy``: on ``probe.images`` training images, not augmented
    - ``test_loss``, ``test_accuracy``: on as many images of the validation set; without one, of the test set
    - ``loss_gap``: test_loss - train_loss
    - ``accuracy_gap``: train_accuracy - test_accuracy, from 0 to 1
    """

    name = "gap"

    @torch.no_grad()
    def after_epoch(self, moment: Moment) -> list[Row]:
        data = moment.setup.data
        train_loss, train_accuracy = self._evaluate(moment, data.train)
        test_loss, test_accuracy = self._evaluate(moment, data.test if data.val is None else data.val)
        return [
            {
                "train_loss": train_loss,
                "train_accuracy": train_accuracy,
                "test_loss": test_loss,
                "test_accuracy": test_accuracy,
                "loss_gap": test_loss - train_loss,
                "accuracy_gap": train_accuracy - test_accuracy,
            }
        ]

    def _evaluate(self, moment: Moment, split: Split) -> tuple[float, float]:
        """Mean loss and accuracy."""
        moment.network.eval()
        images, labels = split.sample(moment.setup.keys.images)
        logits = moment.network(images)
        return float(moment.setup.loss(logits, labels)), float((logits.argmax(1) == labels).double().mean())
