"""Steps as a CUDA graph: on a CPU with a recorder that keeps a capture's rules; CUDA's own needs a GPU."""

from __future__ import annotations

import copy
import gc
import itertools
import sys
import warnings
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bnexp.seeding import global_rng_state
from bnexp.training.cuda_graph import WARM_UP_STEPS, CudaGraphTrainer, is_capturable, make_capturable
from bnexp.training.progress import Progress
from bnexp.training.schedule import Schedule
from helpers.recorded_graph import (
    AUGMENTED,
    BATCH_SIZE,
    MOMENTUM,
    Recording,
    assert_close,
    assert_same_bits,
    convolutional,
    graph_trainer,
    images,
    plain_trainer,
    train,
)

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
OPTIMIZERS = [
    (torch.optim.SGD, {"lr": 0.1}),
    MOMENTUM,
    (torch.optim.Adam, {"lr": 0.01}),
    (torch.optim.AdamW, {"lr": 0.01}),
]
STEPS_PER_EPOCH = 5
REPLAYS_OF_THREE_EPOCHS = 3 * (STEPS_PER_EPOCH - 1) - WARM_UP_STEPS  # the last batch of an epoch is smaller


@pytest.fixture(autouse=True)
def adam_is_capturable_on_a_cpu(monkeypatch):
    """torch lets Adam be captured on some kinds of device only; their arithmetic is the same."""
    module = sys.modules["torch.optim.adam"]  # it holds AdamW's arithmetic too
    monkeypatch.setattr(module, "_get_capturable_supported_devices", lambda *_, **__: ["cpu"])


@pytest.mark.parametrize(("kind", "keys"), OPTIMIZERS)
def test_a_graph_trains_the_same_bits_as_plain_steps(kind, keys):
    graphed, plain, plain_float_lr = (
        graph_trainer(kind, keys),
        plain_trainer(kind, keys),
        plain_trainer(kind, keys),
    )
    plain.optimizer.param_groups[0]["lr"] = torch.tensor(keys["lr"])  # float32, as the graph reads it
    result = train(graphed)
    assert_same_bits(result, train(plain))
    assert result[0] == pytest.approx(train(plain_float_lr)[0], rel=1e-5)
    assert (graphed.captures, graphed.replays) == (1, REPLAYS_OF_THREE_EPOCHS)


@pytest.mark.parametrize("keys", [{}, {"l1": 0.01, "grad_clip": 0.5}])
def test_dropout_augmentation_and_penalties_are_in_the_graph(keys):
    split = images(**AUGMENTED)
    graphed = graph_trainer(*MOMENTUM, network=convolutional, split=split, **keys)
    plain = plain_trainer(*MOMENTUM, network=convolutional, **keys)
    assert_same_bits(train(graphed), train(plain, split=split))
    assert graphed.replays == REPLAYS_OF_THREE_EPOCHS


def test_a_step_launches_one_replay_and_nothing_else(monkeypatch):
    """Gather, augmentation and metrics are in the graph: a step launches no other operation."""
    split = images(count=160, **AUGMENTED)
    trainer = graph_trainer(*MOMENTUM, network=convolutional, split=split)
    batch_iterator = split.epoch(BATCH_SIZE, 0, 1)
    for batch in itertools.islice(batch_iterator, WARM_UP_STEPS + 1):
        trainer.step(batch)
    replays = []
    monkeypatch.setattr(trainer, "replay_graph", lambda: replays.append(1))
    with Recording() as recording:
        for batch in itertools.islice(batch_iterator, 3):
            trainer.step(batch)
    assert (len(replays), recording.launched) == (3, [])
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.01
    with Recording() as recording:
        trainer.step(next(batch_iterator))
    assert recording.launched == ["fill_"], "the new learning rate"


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_the_graph_follows_the_learning_rate(interval):
    def decay(optimizer):
        return Schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7), interval)

    graphed, plain = graph_trainer(make_schedule=decay), plain_trainer(make_schedule=decay)
    for _ in range(2):
        assert_same_bits(train(graphed), train(plain))
        assert isinstance(graphed.optimizer.param_groups[0]["lr"], float)
    assert graphed.captures == 1


def test_another_momentum_is_captured_anew():
    graphed, plain = graph_trainer(), plain_trainer()
    for trainer in (graphed, plain):
        train(trainer)
        trainer.optimizer.param_groups[0]["momentum"] = 0.5
    assert_same_bits(train(graphed), train(plain))
    assert graphed.captures == 2


def test_an_interrupted_epoch_continues_to_the_same_bits():
    keys = (torch.optim.Adam, {"lr": 0.01})  # its bits show whether a rate was a number or a tensor
    expected = train(graph_trainer(*keys), epochs=2)
    trainer, progress = graph_trainer(*keys), Progress()
    first_losses, _, _ = train(trainer, epochs=1, progress=progress, last_step=2)
    progress.interrupt_epoch(1.0, [global_rng_state(torch.device("cpu"))])
    state, continued = copy.deepcopy(trainer.state(progress)), graph_trainer(*keys)
    losses, accuracies, final_state = train(continued, epochs=2, progress=continued.restore(state))
    assert first_losses + losses == expected[0]
    assert_same_bits((expected[0], accuracies, final_state), expected)


def test_a_checkpoint_of_plain_steps_does_not_switch_the_graph_off():
    plain = plain_trainer()
    plain.optimizer.param_groups[0]["fused"] = None
    train(plain, epochs=1)
    graphed = graph_trainer()
    graphed.restore(plain.state(Progress()))
    assert graphed.optimizer.param_groups[0]["fused"] is True
    train(graphed, epochs=2)
    assert graphed.captures == 1


def test_graphs_take_torchs_optimizers_with_capturable_and_sgd_without_foreach():
    parameters = [nn.Parameter(torch.ones(2))]

    class UsersSgd(torch.optim.SGD):
        pass

    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop):
        assert is_capturable(kind(parameters, lr=0.1))
    for kind in (torch.optim.Adagrad, UsersSgd):
        assert not is_capturable(kind(parameters, lr=0.1))
    assert not is_capturable(torch.optim.LBFGS(parameters))
    assert not is_capturable(torch.optim.SGD(parameters, lr=0.1, foreach=True))


def test_the_warm_up_steps_raise_no_warning(monkeypatch):
    stream = SimpleNamespace(is_capturing=lambda: False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda *_: stream)
    for prepared, expected in ((False, 1), (True, 0)):
        optimizer = copy.deepcopy(torch.optim.Adam([nn.Parameter(torch.ones(2))], capturable=True))
        if prepared:
            make_capturable(optimizer)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            optimizer._accelerator_graph_capture_health_check()
        assert len(caught) == expected


def test_a_finished_trainer_leaves_nothing_to_the_garbage_collector():
    """It would hold the GPU's memory, and be collected while the next run captures its graph."""
    gc.collect()
    gc.disable()
    try:
        trainer = graph_trainer()
        train(trainer)
        reference = weakref.ref(trainer)
        del trainer
        assert reference() is None
    finally:
        gc.enable()


def test_momentum_takes_its_parameters_memory_format():
    plain = plain_trainer(network=convolutional)
    train(plain, epochs=1, split=images(**AUGMENTED))
    state = copy.deepcopy(plain.state(Progress()))
    channels_last = plain_trainer(network=convolutional)
    channels_last.model.to(memory_format=torch.channels_last)
    channels_last.restore(state)
    for parameter, buffers in channels_last.optimizer.state.items():
        assert buffers["momentum_buffer"].stride() == parameter.stride()
    momenta, expected = (
        [buffers["momentum_buffer"] for buffers in trainer.optimizer.state.values()]
        for trainer in (channels_last, plain)
    )
    assert all(torch.equal(a, b) for a, b in zip(momenta, expected, strict=True))


@needs_gpu
@pytest.mark.parametrize(("kind", "keys"), OPTIMIZERS)
def test_a_cuda_graph_trains_the_same_weights(kind, keys):
    plain = plain_trainer(kind, keys, "cuda")
    graphed = graph_trainer(kind, keys, "cuda", trainer_class=CudaGraphTrainer)
    assert_close(train(graphed), train(plain))
    assert graphed.replay_graph is not None


@needs_gpu
def test_dropout_and_augmentation_are_in_the_cuda_graph():
    split = images("cuda", **AUGMENTED)
    graphed = graph_trainer(
        *MOMENTUM, "cuda", trainer_class=CudaGraphTrainer, network=convolutional, split=split
    )
    plain = plain_trainer(*MOMENTUM, "cuda", network=convolutional)
    assert_close(train(graphed), train(plain, split=split))


@needs_gpu
@pytest.mark.parametrize("is_graphed", [False, True])
def test_a_step_never_waits_for_the_gpu(is_graphed):
    split = images("cuda", 200, **AUGMENTED)
    trainer = plain_trainer(device="cuda")
    if is_graphed:
        trainer = CudaGraphTrainer(trainer, split, BATCH_SIZE)
    batch_iterator = split.epoch(BATCH_SIZE, 0, 1)
    for batch in itertools.islice(batch_iterator, WARM_UP_STEPS + 1):
        trainer.step(batch)  # the order is made on the CPU, and a capture waits
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batch_iterator:
            trainer.step(batch)
            trainer.schedule.after_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
