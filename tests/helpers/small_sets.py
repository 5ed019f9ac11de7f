"""Data sets small enough to write for a test, in the published files' own formats."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np

from bnexp.data import torchvision_sets

CLASSES = 10


def arrays(
    seed: int = 0, train: int = 30, test: int = 12, shape: tuple[int, ...] = (6, 6)
) -> list[np.ndarray]:
    """Train images, train labels, test images, test labels."""
    random = np.random.default_rng(seed)
    return [
        random.integers(0, high, size, dtype=np.uint8)
        for count in (train, test)
        for high, size in ((256, (count, *shape)), (CLASSES, (count,)))
    ]


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def write_mnist(root: Path, monkeypatch, given: list[np.ndarray], packed: bool = False) -> dict[str, str]:
    """Lays the four files and makes bnexp, and torchvision if they are packed, take them for MNIST's."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    contents = dict(zip(torchvision_sets.IDX, map(idx, given), strict=True))
    sums = {name: md5(content) for name, content in contents.items()}
    for name, content in contents.items():
        if packed:
            (raw / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            (raw / name).write_bytes(content)
    monkeypatch.setitem(torchvision_sets.SETS, "mnist", replace(torchvision_sets.SETS["mnist"], md5=sums))
    if packed:
        from torchvision.datasets import MNIST

        resources = [(f"{n}.gz", md5((raw / f"{n}.gz").read_bytes())) for n in contents]
        monkeypatch.setattr(MNIST, "resources", resources)
    return sums


class Trap:
    """Unpickled, it makes a file: whoever finds the file knows that a pickle was opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def write_trapped_cifar(root: Path, mark: Path) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in torchvision_sets.SETS["cifar10"].md5:
        (folder / name).write_bytes(pickle.dumps(Trap(mark)))
