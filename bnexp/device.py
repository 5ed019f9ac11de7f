"""Where a run computes: the device, its precision, its threads, its determinism."""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from bnexp import config
from bnexp.errors import bad_value
from bnexp.runs import OutOfMemory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Place:
    """A device ready for use. ``dtype`` is what convolutions and matrix products compute in."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[object]:
        if self.dtype is torch.float32:
            return nullcontext()  # a disabled autocast costs microseconds at every step
        return torch.autocast(self.device.type, dtype=self.dtype)

    def scaler(self) -> torch.amp.GradScaler | None:
        """fp16 gradients underflow without one; bf16 has float32's range."""
        return torch.amp.GradScaler(self.device.type) if self.dtype is torch.float16 else None

    def memory_format(self, model: nn.Module) -> torch.memory_format:
        """channels_last where it pays: half-precision convolutions on a GPU's tensor cores."""
        convolutional = any(isinstance(module, nn.Conv2d) for module in model.modules())
        pays = self.device.type == "cuda" and self.dtype is not torch.float32 and convolutional
        return torch.channels_last if pays else torch.contiguous_format

    def __str__(self) -> str:
        on_gpu = self.device.type == "cuda"
        name = torch.cuda.get_device_name(self.device) if on_gpu else platform.machine()
        precision = next(word for word, dtype in DTYPES.items() if dtype is self.dtype)
        return f"{self.device} ({name}), {precision}"


def prepare(wanted: config.Device, number: int | None = None) -> Place:
    """Sets torch's global switches, each one every time: nothing leaks from an earlier run in the process.

    ``number``, where several jobs share this machine, is the job's among them: GPUs are dealt round-robin.
    Raises UserError for a device that is not there or cannot do what is asked of it.
    """
    _settle()
    device = torch.device(_choose(wanted.name))
    if device.type == "cuda" and number is not None:
        device = torch.device("cuda", number % torch.cuda.device_count())
        torch.cuda.set_device(device)
    if wanted.graphs is True and (reason := why_no_graph(device, wanted)):
        raise bad_value("device.graphs", "true", reason)
    if (reason := _why_no_precision(device, wanted.precision)) is not None:
        raise bad_value("device.precision", wanted.precision, reason)
    if wanted.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it to be deterministic
    if torch.are_deterministic_algorithms_enabled() != wanted.deterministic:  # the call takes 2 s (compiler)
        torch.use_deterministic_algorithms(wanted.deterministic)
    torch.backends.cudnn.benchmark = device.type == "cuda" and not wanted.deterministic
    # fp32 means fp32: TF32 keeps 10 bits of the mantissa, so only a named lower precision may lose bits.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return Place(device, DTYPES[wanted.precision])


@functools.cache
def _settle() -> None:
    """Once in a process, when everything is imported: nothing is looked for or fetched twice from here on."""
    gc.enable()  # cli.launch has put it off
    gc.freeze()  # modules stay: no collection needs to walk through them again,
    atexit.register(gc.unfreeze)  # but the last, for those who look for leaks
    # A step frees what the next one allocates. glibc gives large blocks back to the system between the two,
    # which then clears every page anew: a twentieth of a small convolutional step, more with large batches.
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if (mallopt := getattr(libc, "mallopt", None)) is not None:
        trim_threshold, mmap_threshold = -1, -3  # malloc.h
        mallopt(trim_threshold, _KEPT_BYTES)
        mallopt(mmap_threshold, _HEAP_BYTES)


_KEPT_BYTES = 1 << 30  # more than this is given back
_HEAP_BYTES = 32 << 20  # what glibc would go up to by itself


def _choose(name: str) -> str:
    gpus = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there = [*(kind for kind, found in gpus.items() if found), "cpu"]
    if name == "auto":
        return there[0]
    if name not in there:
        raise bad_value(
            "device", name, f"no such device here; there is {', '.join(there)} (device=auto picks)"
        )
    return name


def for_evaluation(wanted: config.Device) -> config.Device:
    """The same without what only training takes; fp32 where this machine can't do the precision asked for."""
    why_not = _why_no_precision(torch.device(_choose(wanted.name)), wanted.precision)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32" if why_not else wanted.precision
    return replace(wanted, graphs=False, sync_bn=False, precision=precision)


def _why_no_precision(device: torch.device, precision: str) -> str | None:
    if precision == "fp16" and device.type == "cpu":
        return "a CPU does fp32 and bf16; fp16 needs a GPU"
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return "this GPU does fp32 and fp16"
    return None


def why_no_graph(device: torch.device, wanted: config.Device) -> str | None:
    """What keeps any step on this device from being a CUDA graph; None where nothing does."""
    if device.type != "cuda":
        return f"CUDA graphs need device=cuda, and this run is on {device.type}"
    if wanted.precision == "fp16":
        return "fp16's gradient scaler asks the GPU at every step whether to skip it; bf16 needs none"
    return "not together with device.compile=true" if wanted.compile else None


# What torch took by itself (OMP_NUM_THREADS, else the cores), before any run in this process changed it.
_THREADS_AT_START = torch.get_num_threads()
# A step of less forward work than this is as fast on one thread, waking the others costs what they do: on 2
# quiet cores MNIST's MLP ran 0.9 to 1.1 x as fast on two threads (10 to 40 MFLOP a batch), its convolutional
# net 1.4 x (37 MFLOP). With one other process at work two threads were 3 x slower than one.
_ONE_THREAD_FLOPS = 30e6


def set_threads(wanted: int | None, flops: float, jobs: int = 1) -> int:
    """Sets and returns torch's CPU threads: ``wanted``, or what suits a step of ``flops`` forward.

    ``jobs`` runs side by side share the cores.
    """
    share = max(1, _THREADS_AT_START // jobs)
    torch.set_num_threads(wanted or (1 if flops < _ONE_THREAD_FLOPS else share))
    return torch.get_num_threads()


# The words of the allocators that raise a plain RuntimeError: Apple's, and the CPU's on Linux and on Windows,
# and of sizes so large that torch cannot even count their bytes.
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "overflow")


@contextmanager
def memory_guard(what: str) -> Iterator[None]:
    """Turns what torch raises where the memory runs out into OutOfMemory: one line, with a way out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        words = str(error).lower()
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if known or any(sign in words for sign in _NO_MEMORY):
            raise OutOfMemory(
                f"{what} takes more memory than the device has left; try a smaller one"
            ) from error
        raise
