"""Random seeds as a pure function of (seed, stream, position), whatever ran before.

Two runs with the same seed share every stream: the initial weights of a layer that both have, the order
of an epoch, the augmentation of its images, the noise of its dropout. Such runs are called twins. The
difference between twins is a paired difference, which needs fewer seeds for the same certainty.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
    """Seeds torch's global generators on every device.

    Dropout, and modules that are not bnexp's, draw from the global generators only.
    """
    torch.manual_seed(derive(seed, stream, position))


def global_rng_state(device: torch.device) -> list[torch.Tensor]:
    """The states of torch's global generators that a run on ``device`` draws from.

    Each is a uint8 CPU tensor: the CPU generator's, then the device's if that is not the CPU.
    """
    if device.type == "cpu":
        return [torch.get_rng_state()]
    return [torch.get_rng_state(), torch.get_device_module(device.type).get_rng_state()]


def set_global_rng_state(states: list[torch.Tensor], device: torch.device) -> None:
    """Restores what ``global_rng_state`` returned.

    If it was taken on a CPU and ``device`` is not one, only the CPU generator is restored, and vice versa.
    """
    torch.set_rng_state(states[0])
    if len(states) > 1 and device.type != "cpu":
        torch.get_device_module(device.type).set_rng_state(states[1])


@contextmanager
def global_stream(seed: int, stream: str, position: str | int = 0) -> Iterator[None]:
    """Seeds torch's global generators for a block; afterwards the CPU generator is as before the block."""
    state = torch.get_rng_state()
    seed_global(seed, stream, position)
    try:
        yield
    finally:
        torch.set_rng_state(state)
