"""The device of a run: every run sets every switch, and a device that does not exist is a one-line error."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from bnexp.compute import device, process_tuning
from bnexp.compute.device import ComputeDevice, prepare_device
from bnexp.compute.memory import memory_guard
from bnexp.compute.process_tuning import set_threads
from bnexp.config import schema
from bnexp.errors import OutOfMemory, UserError

QUICK = ("epochs=2", "dataset.train_size=200", "dataset.test_size=100", "tracking.tensorboard=false")


def settings(**keys) -> schema.Device:
    defaults = {
        "name": "auto", "precision": "fp32", "compile": False, "graphs": False, "threads": None,
        "deterministic": False, "sync_bn": False,
    }  # fmt: skip
    return schema.Device(**(defaults | keys))


@pytest.fixture
def pretend_gpus(monkeypatch):
    """Makes torch report these kinds of GPU as available."""

    def pretend(*kinds: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
        # cached like torch's own function: torch._dynamo looks at the function inside
        monkeypatch.setattr(torch.backends.mps, "is_available", functools.cache(lambda: "mps" in kinds))

    return pretend


@pytest.fixture(autouse=True)
def backends():
    """Restores the switches that the fixture in conftest does not."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    values = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    yield
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = values


@pytest.mark.parametrize(
    ("kinds", "picked"), [((), "cpu"), (("mps",), "mps"), (("cuda",), "cuda"), (("cuda", "mps"), "cuda")]
)
def test_auto_picks_the_fastest_available_device(pretend_gpus, kinds, picked):
    pretend_gpus(*kinds)
    assert prepare_device(settings()).torch_device == torch.device(picked)


@pytest.mark.parametrize("name", ["cpu", "cuda", "mps"])
def test_a_named_device_is_used(pretend_gpus, name):
    pretend_gpus("cuda", "mps")
    assert prepare_device(settings(name=name)).torch_device == torch.device(name)


@pytest.mark.parametrize(
    ("kinds", "keys", "line"),
    [
        ((), {"name": "cuda"}, "device=cuda: no such device here; there is cpu (device=auto picks)"),
        (
            ("mps",),
            {"name": "cuda"},
            "device=cuda: no such device here; there is mps, cpu (device=auto picks)",
        ),
        (
            ("cuda",),
            {"name": "mps"},
            "device=mps: no such device here; there is cuda, cpu (device=auto picks)",
        ),
        ((), {"precision": "fp16"}, "device.precision=fp16: a CPU does fp32 and bf16; fp16 needs a GPU"),
        (("old cuda",), {"precision": "bf16"}, "device.precision=bf16: this GPU does fp32 and fp16"),
        (
            ("cuda",),
            {"graphs": True, "precision": "fp16"},
            "device.graphs=true: fp16's gradient scaler asks the GPU at every step whether to skip it;"
            " bf16 needs none",
        ),
        (
            ("cuda",),
            {"graphs": True, "compile": True},
            "device.graphs=true: not together with device.compile=true",
        ),
        (
            ("mps",),
            {"graphs": True},
            "device.graphs=true: CUDA graphs need device=cuda, and this run is on mps",
        ),
    ],
)
def test_what_a_device_cannot_do_is_a_one_line_error(pretend_gpus, monkeypatch, kinds, keys, line):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: "old cuda" not in kinds)
    pretend_gpus(*(kind.removeprefix("old ") for kind in kinds))
    with pytest.raises(UserError) as caught:
        prepare_device(settings(**keys))
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("kinds", "precision"),
    [((), "bf16"), (("cuda",), "bf16"), (("cuda",), "fp16"), (("mps",), "bf16"), (("mps",), "fp16")],
)
def test_each_device_accepts_its_precisions(pretend_gpus, monkeypatch, kinds, precision):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    pretend_gpus(*kinds)
    assert prepare_device(settings(precision=precision)).dtype == device.DTYPES[precision]


def test_determinism_lasts_one_run(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    prepare_device(settings(deterministic=True))
    assert torch.are_deterministic_algorithms_enabled()
    assert device.os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    prepare_device(settings())
    assert not torch.are_deterministic_algorithms_enabled()


def test_cudnn_looks_for_the_fastest_kernel_only_where_that_changes_no_bits(pretend_gpus):
    pretend_gpus("cuda")
    for keys, benchmark in (({}, True), ({"deterministic": True}, False), ({"name": "cpu"}, False)):
        prepare_device(settings(**keys))
        assert torch.backends.cudnn.benchmark is benchmark


def test_fp32_never_means_tf32():
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    prepare_device(settings())
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_device_computes_in_its_precision():
    images, layer = torch.ones(2, 3), nn.Linear(3, 4)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        compute_device = prepare_device(settings(name="cpu", precision=precision))
        with compute_device.autocast():
            assert layer(images).dtype is dtype
        assert compute_device.scaler() is None
        assert str(compute_device).startswith("cpu (")
        assert str(compute_device).endswith(f"), {precision}")


def test_channels_last_is_for_half_precision_convolutions_on_a_gpu():
    conv, linear = nn.Sequential(nn.Conv2d(1, 2, 3)), nn.Sequential(nn.Linear(3, 2))
    cuda, cpu, half, single = torch.device("cuda"), torch.device("cpu"), torch.bfloat16, torch.float32
    assert ComputeDevice(cuda, half).memory_format(conv) is torch.channels_last
    for compute_device, model in (
        (ComputeDevice(cuda, half), linear),
        (ComputeDevice(cuda, single), conv),
        (ComputeDevice(cpu, half), conv),
    ):
        assert compute_device.memory_format(model) is torch.contiguous_format


@pytest.mark.parametrize(
    ("threads", "flops", "set_to"),
    [(None, 29e6, 1), (None, 31e6, 3), (None, float("inf"), 3), (2, 1.0, 2), (2, 1e12, 2), (1, 1e12, 1)],
)
def test_small_steps_use_one_thread_and_large_ones_torchs_initial_number(monkeypatch, threads, flops, set_to):
    monkeypatch.setattr(process_tuning, "_initial_threads", lambda: 3)
    torch.set_num_threads(4)  # set by an earlier run
    assert set_threads(threads, flops) == set_to
    assert torch.get_num_threads() == set_to


def test_jobs_side_by_side_share_the_threads(monkeypatch):
    monkeypatch.setattr(process_tuning, "_initial_threads", lambda: 8)
    assert [set_threads(None, 31e6, jobs) for jobs in (1, 2, 3, 16)] == [8, 4, 2, 1]
    assert set_threads(5, 31e6, 4) == 5


def cpu_error() -> RuntimeError:
    """The error that the CPU's allocator really raises."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ..."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GiB, other allocations: 1 MiB)"),
        cpu_error(),
    ],
    ids=["cuda", "mps", "cpu"],
)
def test_out_of_memory_names_the_keys_that_take_less(error):
    with pytest.raises(OutOfMemory) as caught, memory_guard("batch_size=64 or eval_batch_size=512"):
        raise error
    assert str(caught.value).startswith("batch_size=64 or eval_batch_size=512 takes more memory")
    assert caught.value.__cause__ is error


def test_the_memory_guard_lets_other_errors_through():
    for error in (RuntimeError("shapes cannot be multiplied"), ValueError("out of memory")):
        with pytest.raises(type(error)) as caught, memory_guard("batch_size=64 or eval_batch_size=512"):
            raise error
        assert caught.value is error


@pytest.mark.parametrize("when", ["train", "eval"])
def test_a_run_out_of_memory_fails_in_one_line(commands, monkeypatch, when):
    from bnexp.training.trainer import Trainer

    def raise_out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee the manual")

    monkeypatch.setattr(Trainer, {"train": "step", "eval": "evaluate"}[when], raise_out_of_memory)
    done = commands.bnexp(*QUICK, "batch_size=50")
    assert done.code == 1
    assert done.err == (
        "bnexp: out of memory: batch_size=50 or eval_batch_size=512 takes more memory than the device has"
        " left; try a smaller one\n"
    )
    (run,) = commands.runs()
    assert commands.summary()["status"] == "failed"
    assert "batch_size=50" in commands.summary()["error"]
    assert "Tried to allocate 20.00 GiB" in (run / "train.log").read_text()


def test_a_sweep_continues_after_a_job_out_of_memory(commands, monkeypatch):
    from bnexp.training.trainer import Trainer

    step = Trainer.step

    def step_with_small_memory(trainer, batch):
        if batch.size > 64:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(trainer, batch)

    monkeypatch.setattr(Trainer, "step", step_with_small_memory)
    done = commands.bnexp("-m", "batch_size=100,50", "hydra.launcher.jobs=1", *QUICK)
    assert done.code == 1
    assert "OutOfMemory: batch_size=100" in done.err
    statuses = [run.name.startswith("batch_size=50") for run in commands.runs() if finished(run)]
    assert statuses == [True]


def finished(run) -> bool:
    return '"status": "finished"' in (run / "summary.json").read_text()
