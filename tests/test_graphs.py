"""The graphed step: its bookkeeping with a stand-in for the capture; the graph itself needs a GPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bnexp import build, graphs
from bnexp.data import Batches, Images
from bnexp.device import Place
from bnexp.engine import Schedule, Trainer
from bnexp.errors import UserError
from bnexp.graphs import GraphedStep, make_capturable
from bnexp.processes import Processes
from bnexp.progress import Progress
from bnexp.stop import StopSignal
from bnexp.tracking import Logger

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
OPTIMIZERS = [
    (torch.optim.SGD, {"lr": 0.1}),
    (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    (torch.optim.Adam, {"lr": 0.01}),
    (torch.optim.AdamW, {"lr": 0.01}),
]


class StandIn(GraphedStep):
    """Runs the step at each replay, on the static tensors and rates alone, as a graph does."""

    captures = 0

    def _captured(self):
        self.captures += 1
        frozen = [dict(group) for group in self.optimizer.param_groups]

        def replay() -> None:
            now = self.optimizer.param_groups
            kept = [dict(group) for group in now]
            for group, constants in zip(now, frozen, strict=True):
                group.update(constants)
            self.loss, self.logits = self.step(self.images, self.labels)
            for group, before in zip(now, kept, strict=True):
                group.update(before)

        return replay

    def _aside(self, images, labels):
        return self.step(images, labels)


def trainer(kind=torch.optim.SGD, keys=None, device="cpu", graph=None) -> Trainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = kind(model.to(device).parameters(), **(keys or {"lr": 0.1, "momentum": 0.9}))
    if graph is GraphedStep or kind is torch.optim.SGD:
        assert make_capturable(optimizer)
    place = Place(torch.device(device), torch.float32)
    built = Trainer(model, nn.CrossEntropyLoss(), optimizer, place)
    built.graph = graph and graph(built.step, optimizer, 16)
    return built


def trained(built: Trainer, epochs: int = 3) -> tuple[list[float], list[torch.Tensor]]:
    """The loss of every step, and the parameters and buffers at the end."""
    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (70, 1, 6, 6), dtype=torch.uint8, generator=stream)
    images = Images(pixels, torch.randint(0, 3, (70,), generator=stream))
    batches = Batches(images, built.place.device, mean=(0.5,), std=(0.5,))
    losses: list[float] = []

    class Listener(Logger):
        def steps(self, first_step, found):
            losses.extend(found)

    progress = Progress()
    for _ in range(epochs):
        built.train_epoch(
            batches, 16, seed=0, progress=progress, window=4, recorder=Listener(), stop=StopSignal()
        )
    return losses, [value.clone() for value in built.model.state_dict().values()]


def test_every_batch_trains_once_the_last_one_too():
    plain, graphed = trainer(), trainer(graph=StandIn)
    losses, weights = trained(plain)
    assert len(losses) == 15
    again, same = trained(graphed)
    assert again == losses
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))
    assert graphed.graph.captures == 1
    assert graphed.graph.warm == graphs.WARM_UP


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_the_graph_follows_the_learning_rate(interval):
    found = []
    for graph in (None, StandIn):
        built = trainer(graph=graph)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(built.optimizer, 0.7)
        built.schedule = Schedule(scheduler, interval)
        losses = trained(built)[0]
        built.schedule.after_epoch({})
        found.append(losses + trained(built)[0])
        assert isinstance(built.optimizer.param_groups[0]["lr"], float)
    assert found[0] == found[1]
    assert built.graph.captures == 1


def test_what_else_changes_in_the_optimizer_is_recorded_anew():
    found = []
    for graph in (None, StandIn):
        built = trainer(graph=graph)
        first = trained(built)[0]
        built.optimizer.param_groups[0]["momentum"] = 0.5
        found.append(first + trained(built)[0])
    assert found[0] == found[1]
    assert built.graph.captures == 2


def test_what_it_gives_is_kept():
    built = trainer(graph=StandIn)
    images, labels = torch.randn(16, 1, 6, 6), torch.zeros(16, dtype=torch.int64)
    given = [built.graph(images, labels) for _ in range(6)]
    losses = [float(loss) for loss, _ in given]
    assert losses == sorted(set(losses), reverse=True)
    images.zero_()
    assert len({logits.data_ptr() for _, logits in given}) == 6


def test_which_optimizers_can():
    parameters = [nn.Parameter(torch.ones(2))]

    class Mine(torch.optim.SGD):
        pass

    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop):
        assert make_capturable(kind(parameters, lr=0.1))
    for kind in (torch.optim.Adagrad, Mine):
        assert not make_capturable(kind(parameters, lr=0.1))


@pytest.mark.parametrize(
    ("kind", "keys", "schedule", "world", "words"),
    [
        (torch.optim.Adagrad, {"lr": 0.1}, None, 1, "optimizer._target_=mine.Opt can't run inside a graph"),
        (
            torch.optim.SGD,
            {"lr": 0.1, "momentum": 0.9},
            {"max_lr": 1, "total_steps": 9},
            1,
            "the momentum too",
        ),
        (torch.optim.SGD, {"lr": 0.1}, None, 2, "torchrun's talk to each other"),
    ],
)
def test_what_cannot_be_in_a_graph_is_refused_in_one_line(kind, keys, schedule, world, words):
    built = trainer(kind, keys)
    if schedule:
        built.schedule = Schedule(torch.optim.lr_scheduler.OneCycleLR(built.optimizer, **schedule), "step")
    built.processes = Processes(world=world)
    config = SimpleNamespace(optimizer=SimpleNamespace(target="mine.Opt"))
    with pytest.raises(UserError, match=r"^device\.graphs=true: ") as caught:
        build._check_graphs(config, built)
    assert words in str(caught.value)


@needs_gpu
@pytest.mark.parametrize(("kind", "keys"), OPTIMIZERS)
def test_a_graph_trains_the_same_weights(kind, keys):
    plain, graphed = trainer(kind, keys, "cuda"), trainer(kind, keys, "cuda", GraphedStep)
    make_capturable(plain.optimizer)  # the same kernels
    for ours, theirs in zip(trained(graphed), trained(plain), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert graphed.graph.replay is not None


@needs_gpu
@pytest.mark.parametrize("graph", [None, GraphedStep])
def test_a_step_never_waits_for_the_gpu(graph):
    built = trainer(device="cuda", graph=graph)
    trained(built)
    images, labels = (
        torch.randn(16, 1, 6, 6, device="cuda"),
        torch.zeros(16, dtype=torch.int64, device="cuda"),
    )
    step = built.graph or built.step
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            step(images, labels)
            built.schedule.after_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
