"""What a probe is, and what it gets to see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from bnexp.config.schema import ProbeKeys
from bnexp.data import DataSplits

Row = Mapping[str, float | str]  # one line of probes/NAME.csv, without its step


@dataclass(frozen=True)
class Setup:
    """What stays the same during a run."""

    network: nn.Module
    loss: nn.Module
    data: DataSplits
    keys: ProbeKeys
    batch_size: int
    eval_batch_size: int
    seed: int
    optimizer_lr: Callable[[], float]  # the learning rate now

    def sample(self) -> tuple[Tensor, Tensor]:
        """The ``probe.images`` training images (N, C, S, S) that a probe measures on, and their labels (N,).

        They are the same ones in the whole run, without augmentation.
        """
        return self.data.train.sample(self.keys.images)


@dataclass(frozen=True)
class Moment:
    """A moment of the training.

    ``step`` counts the steps from 1: before and after a step it is the number of that step. After an epoch it
    is the number of its last step, and at the start it is 0. ``images`` (B, C, S, S) and ``labels`` (B,) are
    the batch of the step; at the start and after an epoch they are ``setup.sample()``.
    """

    setup: Setup
    step: int
    images: Tensor
    labels: Tensor

    @property
    def network(self) -> nn.Module:
        return self.setup.network

    @property
    def lr(self) -> float:
        return self.setup.optimizer_lr()


class Probe:
    """Measures the network at some moments. A probe overrides the methods of its moments.

    Each method returns the rows of the moment; ``index`` names the columns that tell these rows apart, such
    as ``layer``. All other values are numbers. A method may do with the network what it likes: afterwards its
    parameters, buffers, gradients, mode and random numbers are as before. A probe keeps nothing from one step
    to the next, because a resumed run would lack it.
    """

    name = ""
    index: tuple[str, ...] = ()

    def check(self, setup: Setup) -> None:
        """Raises UserError, before the training, for what the probe cannot measure."""

    def at_start(self, moment: Moment) -> Sequence[Row]:
        """Once, before the first step."""
        return ()

    def before_step(self, moment: Moment) -> Sequence[Row]:
        """Before a measured step, whose batch the moment has."""
        return ()

    def after_step(self, moment: Moment) -> Sequence[Row]:
        """After a measured step."""
        return ()

    def after_epoch(self, moment: Moment) -> Sequence[Row]:
        """After each epoch."""
        return ()
