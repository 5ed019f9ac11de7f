"""Where a run computes: the device, its precision, its threads, its determinism."""

from __future__ import annotations

import os
import platform
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from bnexp.compute.process_tuning import tune_process_once
from bnexp.config import schema
from bnexp.errors import bad_value

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class ComputeDevice:
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


def prepare(wanted: schema.Device, number: int | None = None) -> ComputeDevice:
    """Sets torch's global switches, each one every time: nothing leaks from an earlier run in the process.

    ``number``, where several jobs share this machine, is the job's among them: GPUs are dealt round-robin.
    Raises UserError for a device that is not there or cannot do what is asked of it.
    """
    tune_process_once()
    device = torch.device(_choose_device(wanted.name))
    if device.type == "cuda" and number is not None:
        device = torch.device("cuda", number % torch.cuda.device_count())
        torch.cuda.set_device(device)
    if wanted.graphs is True and (reason := graph_obstacle(device, wanted)):
        raise bad_value("device.graphs", "true", reason)
    if (reason := _precision_obstacle(device, wanted.precision)) is not None:
        raise bad_value("device.precision", wanted.precision, reason)
    if wanted.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it to be deterministic
    if torch.are_deterministic_algorithms_enabled() != wanted.deterministic:  # the call takes 2 s (compiler)
        torch.use_deterministic_algorithms(wanted.deterministic)
    torch.backends.cudnn.benchmark = device.type == "cuda" and not wanted.deterministic
    # fp32 means fp32: TF32 keeps 10 bits of the mantissa, so only a named lower precision may lose bits.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return ComputeDevice(device, DTYPES[wanted.precision])


def _choose_device(name: str) -> str:
    gpus = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there = [*(kind for kind, found in gpus.items() if found), "cpu"]
    if name == "auto":
        return there[0]
    if name not in there:
        raise bad_value(
            "device", name, f"no such device here; there is {', '.join(there)} (device=auto picks)"
        )
    return name


def evaluation_settings(wanted: schema.Device) -> schema.Device:
    """The same without what only training takes; fp32 where this machine can't do the precision asked for."""
    why_not = _precision_obstacle(torch.device(_choose_device(wanted.name)), wanted.precision)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32" if why_not else wanted.precision
    return replace(wanted, graphs=False, sync_bn=False, precision=precision)


def _precision_obstacle(device: torch.device, precision: str) -> str | None:
    if precision == "fp16" and device.type == "cpu":
        return "a CPU does fp32 and bf16; fp16 needs a GPU"
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return "this GPU does fp32 and fp16"
    return None


def graph_obstacle(device: torch.device, wanted: schema.Device) -> str | None:
    """What keeps any step on this device from being a CUDA graph; None where nothing does."""
    if device.type != "cuda":
        return f"CUDA graphs need device=cuda, and this run is on {device.type}"
    if wanted.precision == "fp16":
        return "fp16's gradient scaler asks the GPU at every step whether to skip it; bf16 needs none"
    return "not together with device.compile=true" if wanted.compile else None
