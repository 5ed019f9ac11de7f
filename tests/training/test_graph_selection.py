"""Whether a run's step becomes a CUDA graph: obstacles, the trial, the default."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bnexp.compute.processes import Processes
from bnexp.errors import UserError
from bnexp.training import graph_selection
from bnexp.training.cuda_graph import CudaGraphTrainer
from bnexp.training.graph_selection import TIMED_STEPS, graph_is_faster, with_cuda_graph
from bnexp.training.schedule import Schedule
from bnexp.training.trainer import Trainer
from helpers.recorded_graph import (
    AUGMENTED,
    BATCH_SIZE,
    MOMENTUM,
    RecordedTrainer,
    assert_same_bits,
    convolutional,
    dense,
    graph_trainer,
    images,
    plain_trainer,
    train,
)
from helpers.tiny_training import CPU

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


class CountsItsCalls(nn.Module):
    """Its output depends on a number in Python, which a graph records once and for ever."""

    def __init__(self):
        super().__init__()
        self.inner, self.calls = dense(), 0

    def forward(self, x):
        self.calls += 1
        return self.inner(x) * self.calls


class ReadsAValue(nn.Module):
    """Reads a tensor's value on the host, which a graph cannot."""

    def __init__(self):
        super().__init__()
        self.inner = dense()

    def forward(self, x):
        return self.inner(x) * (2.0 if x.mean().item() > 0 else 1.0)


class SlowTrainer(Trainer):
    """Plain steps that are slower than any graph beyond doubt."""

    def step(self, batch):
        time.sleep(0.02)
        return super().step(batch)


class SlowGraphTrainer(RecordedTrainer):
    def step(self, batch):
        time.sleep(0.02)
        return super().step(batch)


def slow_trainer(**keys) -> SlowTrainer:
    plain = plain_trainer(**keys)
    return SlowTrainer(plain.model, plain.loss, plain.optimizer, plain.device)


def compare(network, split=None, trainer_class=RecordedTrainer, make_plain=plain_trainer):
    """The result of a trial between plain steps and a graph on a CPU."""
    split = split or images()
    return graph_is_faster(
        lambda: make_plain(network=network),
        lambda: graph_trainer(network=network, split=split, trainer_class=trainer_class),
        split,
        BATCH_SIZE,
    )


def test_a_trial_accepts_a_graph_with_the_same_losses_that_is_faster():
    wins, reason = compare(dense, make_plain=slow_trainer)
    assert wins
    assert reason.endswith(f"x as fast in a trial of {TIMED_STEPS} steps")


def test_a_trial_refuses_a_slower_graph():
    wins, reason = compare(dense, trainer_class=SlowGraphTrainer)
    assert not wins
    assert reason.startswith("0.")


def test_a_trial_refuses_other_losses():
    assert compare(CountsItsCalls) == (False, "it gives other losses")


def test_a_trial_refuses_what_cannot_be_captured():
    assert compare(ReadsAValue) == (False, "it can't be recorded (called a synchronizing operation)")


def test_a_trial_with_less_than_a_batch_of_images_captures_nothing():
    captures = []

    class CountsCaptures(RecordedTrainer):
        def _capture(self):
            captures.append(1)
            return super()._capture()

    _, reason = compare(dense, images(count=10), CountsCaptures)
    assert reason.endswith(f"x as fast in a trial of {TIMED_STEPS} steps")
    assert captures == []


def parsed_config(graphs="auto", target="torch.optim.SGD", deterministic=False):
    return SimpleNamespace(
        name="mine", batch_size=BATCH_SIZE, optimizer=SimpleNamespace(target=target),
        device=SimpleNamespace(graphs=graphs, precision="fp32", compile=False, deterministic=deterministic),
    )  # fmt: skip


def one_cycle(optimizer):
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1, total_steps=9)
    return Schedule(scheduler, "step")


@pytest.mark.parametrize(
    ("kind", "keys", "make_schedule", "world_size", "message"),
    [
        (torch.optim.Adagrad, {"lr": 0.1}, None, 1, "optimizer._target_=mine.Opt can't run inside a graph"),
        (*MOMENTUM, one_cycle, 1, "the momentum too"),
        (*MOMENTUM, None, 2, "torchrun's talk to each other"),
    ],
)
def test_an_obstacle_is_an_error_where_a_graph_is_asked_for_and_no_graph_by_default(
    kind, keys, make_schedule, world_size, message, monkeypatch
):
    monkeypatch.setattr(graph_selection, "graph_obstacle", lambda *_: None)  # as on a GPU
    monkeypatch.setattr(Processes, "wrap_ddp", lambda self, module: module)
    trainer = plain_trainer(
        kind, keys, make_schedule=make_schedule, processes=Processes(world_size=world_size)
    )
    with pytest.raises(UserError, match=r"^device\.graphs=true: ") as caught:
        with_cuda_graph(parsed_config(graphs=True, target="mine.Opt"), trainer, images())
    assert message in str(caught.value)
    assert with_cuda_graph(parsed_config(), trainer, images()) is trainer


def select(network, monkeypatch, caplog, split=None, used_before=None, **keys):
    """The trainer that the default selects, as on a GPU where graphs are faster; and the log."""
    monkeypatch.setattr(graph_selection, "graph_obstacle", lambda *_: None)
    monkeypatch.setattr(graph_selection, "CudaGraphTrainer", RecordedTrainer)
    monkeypatch.setattr(graph_selection, "Trainer", SlowTrainer)
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    plain = Trainer(model, nn.CrossEntropyLoss(), optimizer, CPU)
    initial_state = [value.clone() for value in model.state_dict().values()]
    with caplog.at_level("INFO"):
        trainer = with_cuda_graph(parsed_config(**keys), plain, split or images(), used_before)
    final_state = model.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(initial_state, final_state, strict=True))
    assert not optimizer.state
    return trainer, caplog.text


def test_the_default_selects_a_graph_after_a_trial_that_moves_nothing(monkeypatch, caplog):
    split = images(**AUGMENTED)
    trainer, log = select(convolutional, monkeypatch, caplog, split)
    assert "mine: one CUDA graph a step: " in log
    assert isinstance(trainer, RecordedTrainer)
    assert_same_bits(train(trainer), train(plain_trainer(network=convolutional), split=split))


def test_the_default_selects_no_graph_for_a_network_from_elsewhere(monkeypatch, caplog):
    trainer, log = select(CountsItsCalls, monkeypatch, caplog)
    assert (type(trainer), log) == (Trainer, "")
    assert trainer.optimizer.param_groups[0]["fused"] is None


def test_the_default_says_why_there_is_no_graph(monkeypatch, caplog):
    monkeypatch.setattr(ReadsAValue, "__module__", "bnexp.models")
    trainer, log = select(ReadsAValue, monkeypatch, caplog)
    assert type(trainer) is Trainer
    assert "mine: no CUDA graph: it can't be recorded (called a sync" in log
    assert trainer.optimizer.param_groups[0]["fused"] is None


@pytest.mark.parametrize(
    ("keys", "is_graphed"),
    [({"deterministic": True}, False), ({"used_before": False}, False), ({"used_before": True}, True)],
)
def test_no_trial_decides_where_bits_count_or_a_run_continues(monkeypatch, caplog, keys, is_graphed):
    monkeypatch.setattr(graph_selection, "graph_is_faster", None)  # a call would raise
    trainer, log = select(dense, monkeypatch, caplog, **keys)
    assert (isinstance(trainer, RecordedTrainer), log) == (is_graphed, "")


@needs_gpu
def test_the_trial_on_a_gpu():
    split = images("cuda", 1000)
    wins, reason = graph_is_faster(
        lambda: plain_trainer(device="cuda"),
        lambda: graph_trainer(device="cuda", split=split, trainer_class=CudaGraphTrainer),
        split,
        BATCH_SIZE,
    )
    assert reason.endswith(f"x as fast in a trial of {TIMED_STEPS} steps"), reason
    assert wins
