"""Small data sets for tests, written in the formats of the published files."""

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
    """Random train images, train labels, test images, test labels; uint8."""
    random = np.random.default_rng(seed)
    return [
        random.integers(0, high, size, dtype=np.uint8)
        for count in (train, test)
        for high, size in ((256, (count, *shape)), (CLASSES, (count,)))
    ]


def idx(array: np.ndarray) -> bytes:
    """A uint8 array as the content of an idx file."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def write_mnist(root: Path, monkeypatch, arrays: list[np.ndarray], packed: bool = False) -> None:
    """Writes MNIST's four files and makes bnexp accept their checksums; if ``packed``, torchvision too."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    contents = dict(zip(torchvision_sets.IDX, map(idx, arrays), strict=True))
    for name, content in contents.items():
        if packed:
            (raw / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            (raw / name).write_bytes(content)
    checksums = {name: md5(content) for name, content in contents.items()}
    files = replace(torchvision_sets.SETS["mnist"], md5=checksums)
    monkeypatch.setitem(torchvision_sets.SETS, "mnist", files)
    if packed:
        from torchvision.datasets import MNIST

        resources = [(f"{n}.gz", md5((raw / f"{n}.gz").read_bytes())) for n in contents]
        monkeypatch.setattr(MNIST, "resources", resources)


class PickleTrap:
    """Creates the file ``mark`` when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def write_cifar_of_traps(root: Path, mark: Path) -> None:
    """Writes files with CIFAR-10's names that create the file ``mark`` if one of them is unpickled."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in torchvision_sets.SETS["cifar10"].md5:
        (folder / name).write_bytes(pickle.dumps(PickleTrap(mark)))
