"""(seed, stream, position) -> randomness, the same whatever ran before.

Two runs that share a seed share every stream: the start of a layer they both have, the order of an epoch,
the augmentation of its images, the noise of its dropout. That makes them twins, and their difference paired.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, stream: str, position: str | int = 0) -> int:
    """A 63-bit seed that depends on all three arguments and on nothing else.

    torch's CPU generator keeps 32 of the bits, its CUDA generator all.
    """
    text = f"{seed}/{stream}/{position}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def generator(seed: int, stream: str, position: str | int = 0) -> torch.Generator:
    """A CPU generator for one stream at one position."""
    return torch.Generator().manual_seed(derive(seed, stream, position))


def seed_global(seed: int, stream: str, position: str | int = 0) -> None:
    """Sets torch's global generators on every device: dropout and foreign modules take no other."""
    torch.manual_seed(derive(seed, stream, position))


def global_rng_state(device: torch.device) -> list[torch.Tensor]:
    """The state of torch's global generators that a run on ``device`` draws from, as CPU tensors."""
    if device.type == "cpu":
        return [torch.get_rng_state()]
    return [torch.get_rng_state(), torch.get_device_module(device.type).get_rng_state()]


def set_global_rng_state(states: list[torch.Tensor], device: torch.device) -> None:
    """Takes up what ``noise_state`` gave; on another kind of device as far as that goes."""
    torch.set_rng_state(states[0])
    if len(states) > 1 and device.type != "cpu":
        torch.get_device_module(device.type).set_rng_state(states[1])


@contextmanager
def global_stream(seed: int, stream: str, position: str | int = 0) -> Iterator[None]:
    """The same for a block; torch's CPU generator is as it was afterwards."""
    state = torch.get_rng_state()
    seed_global(seed, stream, position)
    try:
        yield
    finally:
        torch.set_rng_state(state)
