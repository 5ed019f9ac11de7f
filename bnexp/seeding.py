"""Random seeds as a pure function of (seed, stream, position), whatever ran before.

Two runs with the same seed share every stream: the initial weights of a layer that both have, the order
of an epoch, the augmentation of its images, the noise of its dropout. Such runs are called twins. The
difference between twins is a paired difference, which needs fewer seeds for the same certainty.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

RandomState = dict[str, Any]  # the states of the global generators: cpu, device, random, numpy


def derive(seed: int, stream: str, position: str | int = 0) -> int:
    """A 63-bit seed that depends on the three arguments and on nothing else.

    torch's CPU generator uses 32 of the bits, its CUDA generator uses all.
    """
    text = f"{seed}/{stream}/{position}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def generator(seed: int, stream: str, position: str | int = 0) -> torch.Generator:
    """A CPU generator for one stream at one position."""
    return torch.Generator().manual_seed(derive(seed, stream, position))


def seed_global(seed: int, stream: str, position: str | int = 0) -> None:
    """Seeds the global generators: torch's on every device, Python's ``random``, and numpy's ``np.random``.

    Dropout, and modules that are not bnexp's, draw from the global generators only.
    """
    number = derive(seed, stream, position)
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)


def global_rng_state(device: torch.device) -> RandomState:
    """The states of the global generators that a run on ``device`` draws from.

    Plain values and uint8 CPU tensors, for a checkpoint; ``device`` is None if that is the CPU.
    """
    on_cpu = device.type == "cpu"
    name, key, *rest = np.random.get_state()
    return {
        "cpu": torch.get_rng_state(),
        "device": None if on_cpu else torch.get_device_module(device.type).get_rng_state(),
        "random": random.getstate(),
        "numpy": (name, np.asarray(key).tolist(), *rest),
    }


def set_global_rng_state(state: RandomState, device: torch.device) -> None:
    """Restores what ``global_rng_state`` returned.

    If it was taken on a CPU and ``device`` is not one, the device's generator stays as it is.
    """
    torch.set_rng_state(state["cpu"])
    if state["device"] is not None and device.type != "cpu":
        torch.get_device_module(device.type).set_rng_state(state["device"])
    random.setstate(state["random"])
    np.random.set_state(state["numpy"])


@contextmanager
def global_stream(seed: int, stream: str, position: str | int = 0) -> Iterator[None]:
    """Seeds the global generators for a block; afterwards those of the CPU are as before the block."""
    state = global_rng_state(torch.device("cpu"))
    seed_global(seed, stream, position)
    try:
        yield
    finally:
        set_global_rng_state(state, torch.device("cpu"))
