import os
import random
import signal
from pathlib import Path

import numpy as np
import torch

from bnexp import seeding
from bnexp.training import checkpoint
from bnexp.training.trainer import Trainer
from helpers.records import record


def test_a_stream_depends_on_its_arguments_only():
    first = torch.rand(3, generator=seeding.generator(1, "order", 2))
    torch.rand(100)
    assert torch.equal(first, torch.rand(3, generator=seeding.generator(1, "order", 2)))
    other_arguments = [
        (2, "order", 2),
        (1, "augment", 2),
        (1, "order", 3),
        (12, "order", ""),
        (1, "order", "22"),
    ]
    for arguments in other_arguments:
        assert not torch.equal(first, torch.rand(3, generator=seeding.generator(*arguments)))


def test_derived_seeds_never_change():
    """The next version of bnexp must reproduce a recorded run."""
    assert seeding.derive(0, "order", 1) == 8024286156118006313
    assert 0 <= seeding.derive(2**63 - 1, "init", "a.weight") < 2**63


def test_global_stream_restores_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    with seeding.global_stream(0, "init"):
        numbers = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with seeding.global_stream(0, "init"):
        assert torch.equal(torch.rand(2), numbers)


def draw():
    """Numbers of every global generator; a normal number leaves a second one in store for the next draw."""
    return [torch.rand(1).item(), random.gauss(0, 1), random.random(), np.random.randn(), np.random.rand()]


def test_python_and_numpy_are_seeded_beside_torch():
    seeding.seed_global(3, "noise", 1)
    numbers = draw()
    draw()
    seeding.seed_global(3, "noise", 1)
    assert draw() == numbers
    seeding.seed_global(3, "noise", 2)
    assert not set(draw()) & set(numbers)


def test_the_state_of_every_global_generator_survives_a_checkpoint(tmp_path):
    cpu = torch.device("cpu")
    draw()
    (tmp_path / "a").mkdir()
    checkpoint.save({"model": {}, "noise": [seeding.global_rng_state(cpu)]}, tmp_path / "a" / "last.pt")
    numbers = draw()
    draw()
    (state,) = checkpoint.load(tmp_path / "a" / "last.pt")["noise"]
    seeding.set_global_rng_state(state, cpu)
    assert draw() == numbers


def test_global_stream_restores_python_and_numpy():
    seeding.seed_global(0, "a")
    expected = draw()
    seeding.seed_global(0, "a")
    with seeding.global_stream(0, "init"):
        draw()
    assert draw() == expected


# Augmentation by random and dropout by numpy, in training and in evaluation; weights from numpy.
RANDOM_NET = """
import random
import numpy as np
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, image_size, num_classes):
        super().__init__()
        self.linear = nn.Linear(image_size ** 2, num_classes)
        self.linear.weight.data = torch.tensor(np.random.randn(num_classes, image_size ** 2)).float() / 8

    def forward(self, images):
        if random.random() < 0.5:
            images = images.flip(3)
        images = images * random.gauss(1, 0.2)
        mask = np.random.rand(*images.shape) + 0.1 * np.random.randn() < 0.8
        return self.linear((images * torch.from_numpy(mask)).flatten(1))
"""
RUN = (
    "model=custom", "model._target_=random_net.Net", "epochs=2", "dataset.train_size=300",
    "dataset.test_size=100", "batch_size=50", "device.threads=1",
)  # fmt: skip


def test_a_network_that_draws_from_random_and_numpy_is_reproduced_and_resumed(commands, monkeypatch):
    Path("random_net.py").write_text(RANDOM_NET, encoding="utf-8")
    monkeypatch.syspath_prepend(str(commands.folder))
    assert commands.bnexp(*RUN, "hydra.run.dir=first").code == 0
    draw()
    assert commands.bnexp(*RUN, "hydra.run.dir=second").code == 0
    assert record(Path("second")) == record(Path("first"))

    original_step, steps = Trainer.step, []

    def step_with_signal(trainer, batch):
        steps.append(None)
        if len(steps) == 8:  # in the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return original_step(trainer, batch)

    monkeypatch.setattr(Trainer, "step", step_with_signal)
    assert commands.bnexp(*RUN, "hydra.run.dir=resumed").code == 143
    draw()
    assert commands.resume("resumed", "--trust", "random_net.Net").code == 0
    assert record(Path("resumed")) == record(Path("first"))

    test = commands.summary()["final"]
    line = f"accuracy {test['test/accuracy']:.4f}, loss {test['test/loss']:.4f}"
    for _ in range(2):
        draw()
        assert line in commands.eval("first", "--trust", "random_net.Net").out
