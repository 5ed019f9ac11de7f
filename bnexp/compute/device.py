"""The device of a run: which one, its precision, its determinism."""

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
    """A device and the dtype in which it computes convolutions and matrix products."""

    torch_device: torch.device
    dtype: torch.dtype

    @property
    def type(self) -> str:
        """cpu, cuda or mps."""
        return self.torch_device.type

    def autocast(self) -> AbstractContextManager[object]:
        if self.dtype is torch.float32:
            return nullcontext()  # a disabled autocast costs microseconds at every step
        return torch.autocast(self.type, dtype=self.dtype)

    def scaler(self) -> torch.amp.GradScaler | None:
        """A gradient scaler for fp16: its gradients underflow without one. bf16 has the range of float32."""
        return torch.amp.GradScaler(self.type) if self.dtype is torch.float16 else None

    def memory_format(self, model: nn.Module) -> torch.memory_format:
        """channels_last for half-precision convolutions on a GPU: its tensor cores are faster with it."""
        has_convolutions = any(isinstance(module, nn.Conv2d) for module in model.modules())
        is_half_on_gpu = self.type == "cuda" and self.dtype is not torch.float32
        return torch.channels_last if is_half_on_gpu and has_convolutions else torch.contiguous_format

    def synchronize(self) -> None:
        """Waits until a GPU has finished all work that was launched."""
        if self.type == "cuda":
            torch.cuda.synchronize()

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.torch_device) if self.type == "cuda" else platform.machine()
        precision = next(name for name, dtype in DTYPES.items() if dtype is self.dtype)
        return f"{self.torch_device} ({name}), {precision}"


def prepare_device(settings: schema.Device, gpu_number: int | None = None) -> ComputeDevice:
    """Sets torch's global switches for this run, whatever an earlier run in the process has set.

    ``gpu_number`` picks the GPU where several jobs or processes share this machine: the job's number or the
    local rank, round-robin.
    Raises UserError for a device that does not exist here or cannot do what is asked of it.
    """
    tune_process_once()
    device = torch.device(_choose_device(settings.name))
    if device.type == "cuda" and gpu_number is not None:
        device = torch.device("cuda", gpu_number % torch.cuda.device_count())
        torch.cuda.set_device(device)
    if settings.graphs is True and (reason := graph_obstacle(device, settings)):
        raise bad_value("device.graphs", "true", reason)
    if (reason := _precision_obstacle(device, settings.precision)) is not None:
        raise bad_value("device.precision", settings.precision, reason)
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it to be deterministic
    if torch.are_deterministic_algorithms_enabled() != settings.deterministic:
        torch.use_deterministic_algorithms(settings.deterministic)  # takes 2 s: it imports the compiler
    torch.backends.cudnn.benchmark = device.type == "cuda" and not settings.deterministic
    # fp32 means fp32. TF32 keeps 10 bits of the mantissa: only a lower precision that was asked for loses
    # bits.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return ComputeDevice(device, DTYPES[settings.precision])


def evaluation_settings(settings: schema.Device) -> schema.Device:
    """The settings without those for training alone; fp32 if this machine lacks the precision."""
    device = torch.device(_choose_device(settings.name))
    precision: Literal["fp32", "bf16", "fp16"] = settings.precision
    if _precision_obstacle(device, precision) is not None:
        precision = "fp32"
    return replace(settings, graphs=False, sync_bn=False, precision=precision)


def graph_obstacle(device: torch.device, settings: schema.Device) -> str | None:
    """Why no step on this device can be a CUDA graph; None if one can."""
    if device.type != "cuda":
        return f"CUDA graphs need device=cuda, and this run is on {device.type}"
    if settings.precision == "fp16":
        return "fp16's gradient scaler asks the GPU at every step whether to skip it; bf16 needs none"
    return "not together with device.compile=true" if settings.compile else None


def _choose_device(name: str) -> str:
    """``name``, or the fastest device for ``auto``; raises UserError if there is no such device."""
    is_available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    devices = [device for device, available in is_available.items() if available]
    if name == "auto":
        return devices[0]
    if name not in devices:
        allowed = f"no such device here; there is {', '.join(devices)} (device=auto picks)"
        raise bad_value("device", name, allowed)
    return name


def _precision_obstacle(device: torch.device, precision: str) -> str | None:
    if precision == "fp16" and device.type == "cpu":
        return "a CPU does fp32 and bf16; fp16 needs a GPU"
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return "this GPU does fp32 and fp16"
    return None
