"""CUDA graphs on a CPU: a recorder that keeps the rules of a capture, and trainers to use it with."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bnexp.compute.device import ComputeDevice
from bnexp.data import Split
from bnexp.training.cuda_graph import CudaGraphTrainer, is_capturable, make_capturable
from bnexp.training.metrics import Meter
from bnexp.training.progress import Progress
from bnexp.training.trainer import Trainer
from helpers.tiny_training import batches

MOMENTUM = (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True})
AUGMENTED = {"augment": ("flip", "crop"), "crop_padding": 1, "resize": 8}
BATCH_SIZE = 16
IMAGES = 70


class RaisesOnRead(TorchDispatchMode):
    """Raises where an operation's result is read on the host, as CUDA's sync debug mode does."""

    READS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_unique2")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in self.READS:
            raise RuntimeError("called a synchronizing operation")
        return func(*args, **(kwargs or {}))


class Recording(TorchDispatchMode):
    """The rules of a CUDA graph on a CPU.

    Operations are recorded with the addresses of their tensors and with everything else as constants.
    No result may be read on the host. ``undo`` takes the recorded step back; ``replay`` repeats it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.created, self.overwritten, self.replays = [], set(), [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket.__name__ not in RaisesOnRead.READS
        for tensor in self.written_arguments(func, args, kwargs or {}):
            if tensor.untyped_storage().data_ptr() not in self.created:
                self.overwritten.append((tensor, tensor.clone()))
        result = func(*args, **(kwargs or {}))
        is_view = any(value.alias_info for value in func._schema.returns)
        outputs = [] if is_view else tree_leaves(result)
        self.created |= {t.untyped_storage().data_ptr() for t in outputs if isinstance(t, torch.Tensor)}
        self.calls.append((func, args, kwargs or {}, outputs, result))
        return result

    @staticmethod
    def written_arguments(func, args, kwargs):
        for number, argument in enumerate(func._schema.arguments):
            is_declared = argument.alias_info is not None and argument.alias_info.is_write
            if is_declared or argument.name.startswith(
                "running_"
            ):  # batch norm's schema does not declare them
                value = args[number] if number < len(args) else kwargs.get(argument.name)
                yield from (t for t in tree_leaves(value) if isinstance(t, torch.Tensor))

    @property
    def launched(self) -> list[str]:
        """The operations that compute something; a view of a tensor launches nothing."""
        views = ("select", "slice", "detach", "alias", "view", "t")
        names = [func.overloadpacket.__name__ for func, *_ in self.calls]
        return [name for name in names if name not in views]

    @torch.no_grad()
    def undo(self) -> None:
        for tensor, value in reversed(self.overwritten):
            tensor.copy_(value)

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, outputs, _ in self.calls:
            results = func(*args, **kwargs)
            for output, value in zip(outputs, tree_leaves(results), strict=False):
                if isinstance(output, torch.Tensor):
                    output.copy_(value)


class RecordedTrainer(CudaGraphTrainer):
    """A graph trainer on a CPU: it records and replays instead of capturing."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.recordings: list[Recording] = []

    @property
    def captures(self) -> int:
        return len(self.recordings)

    @property
    def replays(self) -> int:
        return sum(recording.replays for recording in self.recordings)

    def _capture(self):
        rng_state = torch.get_rng_state()
        with Recording() as recording:
            self._step_at_positions(self.batch_size)
        recording.undo()
        torch.set_rng_state(rng_state)
        self.recordings.append(recording)
        return recording.replay

    def _warm_up(self, *, raise_on_sync):
        with RaisesOnRead() if raise_on_sync else contextlib.nullcontext():
            self._step_at_positions(self.batch_size)


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(36, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
    )


def convolutional() -> nn.Module:
    head = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(36, 3))
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), head)


def plain_trainer(
    kind=torch.optim.SGD, keys=None, device="cpu", network=dense, make_schedule=None, **more
) -> Trainer:
    """A plain trainer whose optimizer takes the kernels that a graph needs, so that bits can be compared."""
    torch.manual_seed(0)
    model = network().to(device)
    optimizer = kind(model.parameters(), **(keys or {"lr": 0.1, "momentum": 0.9}))
    if is_capturable(optimizer):
        make_capturable(optimizer)
    schedule = make_schedule(optimizer) if make_schedule else None
    compute_device = ComputeDevice(torch.device(device), torch.float32)
    return Trainer(model, nn.CrossEntropyLoss(), optimizer, compute_device, schedule=schedule, **more)


def graph_trainer(*args, split: Split | None = None, trainer_class=RecordedTrainer, **keys):
    trainer = plain_trainer(*args, **keys)
    return trainer_class(trainer, split or images(trainer.device.type), BATCH_SIZE)


def images(device="cpu", count=IMAGES, **keys) -> Split:
    return batches(count, device=device, **keys)


def train(trainer: Trainer, epochs: int = 3, split: Split | None = None, progress=None, last_step=None):
    """Trains like the loop: losses of all steps, accuracy of each epoch, the final state of the model.

    ``last_step`` ends the last epoch after so many of its steps.
    """
    split, progress = (
        split or getattr(trainer, "split", None) or images(trainer.device.type),
        progress or Progress(),
    )
    losses, accuracies = [], []
    for _ in range(epochs):
        trainer.begin_epoch(0, progress.epoch + 1, progress.current.rng_states)
        meter = Meter(capacity=1000)
        first = progress.current.steps
        for batch in itertools.islice(split.epoch(BATCH_SIZE, 0, progress.epoch + 1, first), last_step):
            meter.add(trainer.step(batch))
            trainer.schedule.after_step()
            progress.count_step()
        window = meter.read()
        progress.add_window(window)
        losses += window.losses
        if last_step is None:
            accuracies.append(progress.finish_epoch(len(split), 1.0)["train/accuracy"])
            trainer.schedule.after_epoch({})
    state = [value.clone() for value in trainer.model.state_dict().values()]
    return losses, accuracies, state


def assert_same_bits(result, expected) -> None:
    assert result[:2] == expected[:2]
    assert all(torch.equal(a, b) for a, b in zip(result[2], expected[2], strict=True))


def assert_close(result, expected) -> None:
    """A GPU may sum in another order at every launch."""
    assert result[0] == pytest.approx(expected[0], rel=1e-4)
    torch.testing.assert_close(result[2], expected[2], rtol=1e-3, atol=1e-5)
