"""Steps as a graph: on a CPU with a recorder that does what a capture does; CUDA's own needs a GPU."""

from __future__ import annotations

import contextlib
import copy
import gc
import sys
import time
import warnings
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bnexp.compute.device import ComputeDevice
from bnexp.compute.processes import Processes
from bnexp.data import Batches, Images
from bnexp.errors import UserError
from bnexp.runs.loggers import Logger
from bnexp.signals import StopSignal
from bnexp.training import build
from bnexp.training.cuda_graph import TRIAL, WARM_UP, CudaGraphSteps, is_capturable, make_capturable, trial
from bnexp.training.metrics import PlainSteps
from bnexp.training.progress import Progress
from bnexp.training.schedule import Schedule
from bnexp.training.trainer import Trainer

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
MOMENTUM = (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True})
OPTIMIZERS = [
    (torch.optim.SGD, {"lr": 0.1}),
    MOMENTUM,
    (torch.optim.Adam, {"lr": 0.01}),
    (torch.optim.AdamW, {"lr": 0.01}),
]
AUGMENTED = {"augment": ("flip", "crop"), "crop_padding": 1, "resize": 8}


class Watched(TorchDispatchMode):
    """Raises where an operation's result is read on the host, as CUDA's sync debug mode does."""

    READS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_unique2")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in self.READS:
            raise RuntimeError("called a synchronizing operation")
        return func(*args, **(kwargs or {}))


class Recorded(TorchDispatchMode):
    """A CUDA graph's rules on a CPU: operations are recorded with their tensors' places in memory and with
    all else as constants, none may be read on the host, and nothing has happened until they are replayed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.made, self.before, self.replays = [], set(), [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket.__name__ not in Watched.READS
        for written in self.written(func, args, kwargs or {}):
            if written.untyped_storage().data_ptr() not in self.made:
                self.before.append((written, written.clone()))
        out = func(*args, **(kwargs or {}))
        new = [] if any(r.alias_info for r in func._schema.returns) else tree_leaves(out)
        self.made |= {t.untyped_storage().data_ptr() for t in new if isinstance(t, torch.Tensor)}
        self.calls.append((func, args, kwargs or {}, new, out))
        return out

    @staticmethod
    def written(func, args, kwargs):
        for number, argument in enumerate(func._schema.arguments):
            says_so = argument.alias_info is not None and argument.alias_info.is_write
            if says_so or argument.name.startswith("running_"):  # batch norm's are written without a word
                value = args[number] if number < len(args) else kwargs.get(argument.name)
                yield from (t for t in tree_leaves(value) if isinstance(t, torch.Tensor))

    @torch.no_grad()
    def undo(self) -> None:
        for tensor, value in reversed(self.before):
            tensor.copy_(value)

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, new, _ in self.calls:
            again = func(*args, **kwargs)
            for place, value in zip(new, tree_leaves(again), strict=False):
                if isinstance(place, torch.Tensor):
                    place.copy_(value)


class OnCpu(CudaGraphSteps):
    def __init__(self, optimizer) -> None:
        super().__init__(optimizer)
        self.recorded = []

    @property
    def captures(self) -> int:
        return len(self.recorded)

    @property
    def replays(self) -> int:
        return sum(recorded.replays for recorded in self.recorded)

    def _captured(self, step):
        noise = torch.get_rng_state()
        with Recorded() as recorded:
            self._plain(step, self.batch_size)
        recorded.undo()
        torch.set_rng_state(noise)
        self.recorded.append(recorded)
        return recorded.replay

    def _aside(self, step, *, strict):
        with Watched() if strict else contextlib.nullcontext():
            self._plain(step, self.batch_size)


@pytest.fixture(autouse=True)
def capturable_on_a_cpu(monkeypatch):
    """torch lets Adam be captured on some kinds of device only; their arithmetic is the same."""
    module = sys.modules["torch.optim.adam"]  # AdamW's arithmetic is there too
    monkeypatch.setattr(module, "_get_capturable_supported_devices", lambda *_, **__: ["cpu"])


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(36, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
    )


def convolutional() -> nn.Module:
    head = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(36, 3))
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), head)


def trainer(kind=torch.optim.SGD, keys=None, device="cpu", network=dense, **more) -> Trainer:
    """With an optimizer that could be in a graph, used in one or not: it takes the same kernels then."""
    torch.manual_seed(0)
    model = network().to(device)
    optimizer = kind(model.parameters(), **(keys or {"lr": 0.1, "momentum": 0.9}))
    if is_capturable(optimizer):
        make_capturable(optimizer)
    return Trainer(
        model, nn.CrossEntropyLoss(), optimizer, ComputeDevice(torch.device(device), torch.float32), **more
    )


def graphed(*words, graph=OnCpu, **keys) -> Trainer:
    built = trainer(*words, **keys)
    built.graph = graph(built.optimizer)
    return built


def images(device="cpu", count=70, **keys) -> Batches:
    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 1, 6, 6), dtype=torch.uint8, generator=stream)
    given = Images(pixels, torch.randint(0, 3, (count,), generator=stream))
    return Batches(given, torch.device(device), mean=(0.5,), std=(0.5,), **keys)


class Listener(Logger):
    def __init__(self):
        self.losses = []

    def steps(self, first_step, losses):
        self.losses += losses


def trained(built: Trainer, epochs: int = 3, batches: Batches | None = None, stop=None, progress=None):
    """The loss of every step, train/accuracy of every epoch, and the weights and buffers at the end."""
    listener, progress = Listener(), progress or Progress()
    batches = batches or images(built.place.device)
    accuracy = []
    for _ in range(epochs):
        found = built.train_epoch(
            batches, 16, seed=0, progress=progress, window=4, recorder=listener, stop=stop or StopSignal()
        )
        accuracy.append(found and found["train/accuracy"])
    return listener.losses, accuracy, [value.clone() for value in built.model.state_dict().values()]


def assert_same(ours, theirs) -> None:
    assert ours[:2] == theirs[:2]
    assert all(torch.equal(a, b) for a, b in zip(ours[2], theirs[2], strict=True))


def assert_close(ours, theirs) -> None:
    """A GPU may sum in another order at every launch."""
    assert ours[0] == pytest.approx(theirs[0], rel=1e-4)
    torch.testing.assert_close(ours[2], theirs[2], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("kind", "keys"), OPTIMIZERS)
def test_a_graph_trains_what_plain_steps_train(kind, keys):
    one, other, numbered = graphed(kind, keys), trainer(kind, keys), trainer(kind, keys)
    other.optimizer.param_groups[0]["lr"] = torch.tensor(keys["lr"])  # as a graph has it, in float32
    ours = trained(one)
    assert_same(ours, trained(other))
    assert ours[0] == pytest.approx(trained(numbered)[0], rel=1e-5)
    assert (one.graph.captures, one.graph.replays) == (1, 3 * 4 - WARM_UP)


@pytest.mark.parametrize("more", [{}, {"l1": 0.01, "grad_clip": 0.5}])
def test_dropout_augmentation_and_penalties_are_in_the_graph(more):
    one, other = (
        graphed(*MOMENTUM, network=convolutional, **more),
        trainer(*MOMENTUM, network=convolutional, **more),
    )
    batches = images(**AUGMENTED)
    assert_same(trained(one, batches=batches), trained(other, batches=batches))
    assert one.graph.replays == 3 * 4 - WARM_UP


def test_a_step_is_one_replay_and_nothing_else():
    """Gather, augmentation and metrics included: beside it no operation is launched at all."""
    built = graphed(*MOMENTUM, network=convolutional)
    batches = images(count=160, **AUGMENTED)
    steps = built.graph.epoch(built.step, batches, 16, 0, 1, 0)
    for _ in range(WARM_UP + 1):
        next(steps)
    replays = []
    built.graph.replay = lambda: replays.append(1)
    with Recorded() as launched:
        for _ in range(3):
            next(steps)
    assert (len(replays), launched.calls) == (3, [])
    for group in built.optimizer.param_groups:
        group["lr"] = 0.01
    with Recorded() as launched:
        next(steps)
    assert [call[0].overloadpacket.__name__ for call in launched.calls] == ["fill_"], "the new learning rate"


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_the_graph_follows_the_learning_rate(interval):
    batches, found = images(), []
    for built in (trainer(), graphed()):
        scheduler = torch.optim.lr_scheduler.ExponentialLR(built.optimizer, 0.7)
        built.schedule = Schedule(scheduler, interval)
        first = trained(built, batches=batches)
        built.schedule.after_epoch({})
        found.append((first, trained(built, batches=batches)))
        assert isinstance(built.optimizer.param_groups[0]["lr"], float)
    for one, other in zip(*found, strict=True):
        assert_same(one, other)
    assert built.graph.captures == 1


def test_what_else_changes_in_the_optimizer_is_recorded_anew():
    found = []
    for built in (trainer(), graphed()):
        trained(built)
        built.optimizer.param_groups[0]["momentum"] = 0.5
        found.append(trained(built))
    assert_same(*found)
    assert built.graph.captures == 2


def test_another_split_or_batch_size_is_another_graph():
    one, other = graphed(), trainer()
    for count in (70, 100):
        assert_same(trained(one, batches=images(count=count)), trained(other, batches=images(count=count)))
    assert one.graph.captures == 2


def test_a_cut_epoch_goes_on_where_it_was_cut():
    keys = (torch.optim.Adam, {"lr": 0.01})  # its bits show a rate that is once a number, once a tensor
    whole = trained(graphed(*keys), epochs=2)
    built, progress = graphed(*keys), Progress()

    class After(StopSignal):
        """A signal after some steps."""

        def __init__(self, steps):
            super().__init__()
            self.steps = steps

        @property
        def received(self):
            self.steps -= 1
            return None if self.steps > 0 else 2

        @received.setter
        def received(self, value):
            pass

    cut = trained(built, epochs=1, stop=After(2), progress=progress)
    assert (progress.tally.batches, cut[1]) == (2, [None])
    state, built = copy.deepcopy(built.state(progress)), graphed(*keys)
    rest = trained(built, epochs=2, progress=built.restore(state))
    assert cut[0] + rest[0] == whole[0]
    assert rest[1] == whole[1]
    assert all(torch.equal(a, b) for a, b in zip(rest[2], whole[2], strict=True))


def test_a_checkpoint_from_elsewhere_does_not_take_the_graph_away():
    plain = trainer()
    plain.optimizer.param_groups[0]["fused"] = None
    trained(plain, epochs=1)
    built = graphed()
    built.restore(plain.state(Progress()))
    assert built.optimizer.param_groups[0]["fused"] is True
    trained(built, epochs=2)
    assert built.graph.captures == 1


def test_which_optimizers_can():
    parameters = [nn.Parameter(torch.ones(2))]

    class Mine(torch.optim.SGD):
        pass

    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop):
        assert is_capturable(kind(parameters, lr=0.1))
    for kind in (torch.optim.Adagrad, Mine):
        assert not is_capturable(kind(parameters, lr=0.1))
    assert not is_capturable(torch.optim.SGD(parameters, lr=0.1, foreach=True))


def test_the_steps_outside_of_the_graph_raise_no_warning(monkeypatch):
    stream = SimpleNamespace(is_capturing=lambda: False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda *_: stream)
    for prepared in (False, True):
        optimizer = copy.deepcopy(torch.optim.Adam([nn.Parameter(torch.ones(2))], capturable=True))
        if prepared:
            make_capturable(optimizer)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            optimizer._accelerator_graph_capture_health_check()
        assert len(seen) == (0 if prepared else 1)


class Forgetful(nn.Module):
    """Asks Python at each step what to do: recorded, it does the same for ever."""

    def __init__(self):
        super().__init__()
        self.inner, self.calls = dense(), 0

    def forward(self, x):
        self.calls += 1
        return self.inner(x) * self.calls


class Reading(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = dense()

    def forward(self, x):
        return self.inner(x) * (2.0 if x.mean().item() > 0 else 1.0)


def way(steps=PlainSteps, network=dense, **keys):
    """What a trial takes: makes steps, and what they train."""

    def make():
        built = trainer(network=network, **keys)
        return (steps(built.optimizer) if issubclass(steps, CudaGraphSteps) else steps()), built.step

    return make


def tried(network, graph=OnCpu, batches=None):
    return trial(way(network=network), way(graph, network), batches or images(), 16)


class Waiting(PlainSteps):
    """Plain steps that take their time, so that the other way is faster beyond doubt."""

    def epoch(self, *words):
        for size in super().epoch(*words):
            time.sleep(0.02)
            yield size


def test_a_trial_takes_what_is_the_same_and_faster():
    pays, words = trial(way(Waiting), way(OnCpu), images(), 16)
    assert pays
    assert words.endswith(f"x as fast in a trial of {TRIAL} steps")


def test_a_trial_refuses_what_is_slower():
    class Slow(OnCpu):
        def _replayed(self, step):
            super()._replayed(step)
            time.sleep(0.02)

    pays, words = tried(dense, Slow)
    assert not pays
    assert words.startswith("0.")


def test_a_trial_refuses_what_gives_other_losses():
    assert tried(Forgetful) == (False, "it gives other losses")


def test_a_trial_refuses_what_cannot_be_recorded():
    pays, words = tried(Reading)
    assert not pays
    assert words == "it can't be recorded (called a synchronizing operation)"


def test_a_trial_in_a_set_of_less_than_a_batch_sees_no_graph():
    seen = []

    class Noted(OnCpu):
        def _captured(self, step):
            seen.append(step)
            return super()._captured(step)

    assert tried(dense, Noted, images(count=10))[1].endswith(f"x as fast in a trial of {TRIAL} steps")
    assert seen == []


def parsed(graphs="auto", target="torch.optim.SGD", deterministic=False):
    return SimpleNamespace(
        name="mine", batch_size=16, l1=0.0, grad_clip=None, optimizer=SimpleNamespace(target=target),
        device=SimpleNamespace(graphs=graphs, precision="fp32", compile=False, deterministic=deterministic),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "keys", "schedule", "world", "words"),
    [
        (torch.optim.Adagrad, {"lr": 0.1}, None, 1, "optimizer._target_=mine.Opt can't run inside a graph"),
        (*MOMENTUM, {"max_lr": 1, "total_steps": 9}, 1, "the momentum too"),
        (*MOMENTUM, None, 2, "torchrun's talk to each other"),
    ],
)
def test_what_cannot_be_in_a_graph_is_refused_in_one_line_and_left_out_by_default(
    kind, keys, schedule, world, words, monkeypatch
):
    monkeypatch.setattr(build.device, "why_no_graph", lambda *_: None)  # as on a GPU
    built = trainer(kind, keys)
    if schedule:
        built.schedule = Schedule(torch.optim.lr_scheduler.OneCycleLR(built.optimizer, **schedule), "step")
    built.processes = Processes(world=world)
    with pytest.raises(UserError, match=r"^device\.graphs=true: ") as caught:
        build._graph(parsed(graphs=True, target="mine.Opt"), built, images(), None)
    assert words in str(caught.value)
    assert build._graph(parsed(), built, images(), None) is None


def chosen(network, monkeypatch, caplog, batches=None, before=None, **keys):
    """What the default takes, as on a GPU, and what it says of it."""
    monkeypatch.setattr(build.device, "why_no_graph", lambda *_: None)
    monkeypatch.setattr(build, "GraphedSteps", OnCpu)
    monkeypatch.setattr(build, "PlainSteps", Waiting)
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    built = Trainer(
        model, nn.CrossEntropyLoss(), optimizer, ComputeDevice(torch.device("cpu"), torch.float32)
    )
    start = [value.clone() for value in model.state_dict().values()]
    with caplog.at_level("INFO"):
        built.graph = build._graph(parsed(**keys), built, batches or images(), before)
    assert all(torch.equal(a, b) for a, b in zip(start, model.state_dict().values(), strict=True))
    assert not optimizer.state
    return built, caplog.text


def test_the_default_takes_a_graph_after_a_trial_that_moves_nothing(monkeypatch, caplog):
    batches = images(**AUGMENTED)
    built, said = chosen(convolutional, monkeypatch, caplog, batches)
    assert "mine: one CUDA graph a step: " in said
    plain = trainer(network=convolutional)
    assert_same(trained(built, batches=batches), trained(plain, batches=batches))


def test_the_default_leaves_a_network_from_elsewhere_alone(monkeypatch, caplog):
    built, said = chosen(Forgetful, monkeypatch, caplog)
    assert (built.graph, said) == (None, "")
    assert built.optimizer.param_groups[0]["fused"] is None


def test_the_default_says_why_there_is_no_graph(monkeypatch, caplog):
    monkeypatch.setattr(Reading, "__module__", "bnexp.models")
    built, said = chosen(Reading, monkeypatch, caplog)
    assert built.graph is None
    assert "mine: no CUDA graph: it can't be recorded (called a sync" in said
    assert built.optimizer.param_groups[0]["fused"] is None


def test_the_default_has_no_clock_choose_where_bits_count_or_a_run_goes_on(monkeypatch, caplog):
    monkeypatch.setattr(build, "trial", None)  # it would raise
    for keys, graph in (
        ({"deterministic": True}, False),
        ({"before": False}, False),
        ({"before": True}, True),
    ):
        built, said = chosen(dense, monkeypatch, caplog, **keys)
        assert ((built.graph is not None), said) == (graph, "")


def test_nothing_of_a_finished_run_stays_for_the_garbage_collector():
    """It would hold the GPU's memory, and be collected while the next run records its graph."""
    gc.collect()
    gc.disable()
    try:
        built = graphed()
        trained(built)
        kept = weakref.ref(built.graph)
        del built
        assert kept() is None
    finally:
        gc.enable()


def test_momentum_takes_its_parameters_memory_format():
    plain = trainer(network=convolutional)
    trained(plain, epochs=1, batches=images(**AUGMENTED))
    state = copy.deepcopy(plain.state(Progress()))
    other = trainer(network=convolutional)
    other.model.to(memory_format=torch.channels_last)
    other.restore(state)
    for parameter, kept in other.optimizer.state.items():
        assert kept["momentum_buffer"].stride() == parameter.stride()
    momenta = [kept["momentum_buffer"] for kept in plain.optimizer.state.values()]
    again = [kept["momentum_buffer"] for kept in other.optimizer.state.values()]
    assert all(torch.equal(a, b) for a, b in zip(momenta, again, strict=True))


@needs_gpu
@pytest.mark.parametrize(("kind", "keys"), OPTIMIZERS)
def test_a_cuda_graph_trains_the_same_weights(kind, keys):
    plain, one = trainer(kind, keys, "cuda"), graphed(kind, keys, "cuda", graph=CudaGraphSteps)
    assert_close(trained(one), trained(plain))
    assert one.graph.replay is not None


@needs_gpu
def test_dropout_and_augmentation_are_in_the_cuda_graph():
    one = graphed(*MOMENTUM, "cuda", graph=CudaGraphSteps, network=convolutional)
    plain = trainer(*MOMENTUM, "cuda", network=convolutional)
    batches = images("cuda", **AUGMENTED)
    assert_close(trained(one, batches=batches), trained(plain, batches=batches))


@needs_gpu
@pytest.mark.parametrize("graph", [None, CudaGraphSteps])
def test_a_step_never_waits_for_the_gpu(graph):
    built = graphed(device="cuda", graph=CudaGraphSteps) if graph else trainer(device="cuda")
    steps = (built.graph or PlainSteps()).epoch(built.step, images("cuda", 200, **AUGMENTED), 16, 0, 1, 0)
    for _ in range(WARM_UP + 1):  # the order is made on the CPU, and a capture waits
        next(steps)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in steps:
            built.schedule.after_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
def test_the_trial_on_a_gpu():
    ways = way(device="cuda"), way(CudaGraphSteps, device="cuda")
    pays, words = trial(*ways, images("cuda", 1000), 16)
    assert words.endswith(f"x as fast in a trial of {TRIAL} steps"), words
    assert pays
