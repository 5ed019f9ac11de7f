"""MNIST, Fashion-MNIST and CIFAR-10: downloaded by torchvision, checked and read here.

Importing torchvision takes seconds. Only a download and CIFAR-10's format need it, so it is imported there.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import shutil
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnexp.data import cache
from bnexp.data.images import ImageDataset, Images
from bnexp.errors import UserError, bad_value

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetFiles:
    """The files of a public data set, in the layout that torchvision gives them."""

    title: str
    torchvision_class: str  # in torchvision.datasets
    folder: str  # below the data set's root
    md5: Mapping[str, str]  # file name to checksum
    classes: tuple[str, ...]


# torchvision checks only the packed idx files, once, when it downloads them. The checksums below are those of
# the unpacked files. They were computed from packed files that have the checksums in torchvision's mnist.py.
# The checksums of CIFAR-10 are copied from torchvision's cifar.py.
IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
MNIST_MD5 = (
    "6bbc9ace898e44ae57da46a324031adb",
    "a25bea736e30d166cdddb491f175f624",
    "2646ac647ad5339dbf082846283269ea",
    "27ae3e4e09519cfbb04c329615203637",
)
FASHION_MD5 = (
    "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "9018921c3c673c538a1fc5bad174d6f9",
    "8181f5470baa50b63fa0f6fddb340f0a",
    "15d484375f8d13e6eb1aabb0c3f46965",
)
CIFAR_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
DIGIT_CLASSES = tuple("0123456789")
FASHION_CLASSES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
CIFAR_CLASSES = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"
SETS = {
    "mnist": DatasetFiles(
        "MNIST", "MNIST", "MNIST/raw", dict(zip(IDX, MNIST_MD5, strict=True)), DIGIT_CLASSES
    ),
    "fashion_mnist": DatasetFiles(
        "Fashion-MNIST",
        "FashionMNIST",
        "FashionMNIST/raw",
        dict(zip(IDX, FASHION_MD5, strict=True)),
        tuple(FASHION_CLASSES.split(",")),
    ),
    "cifar10": DatasetFiles(
        "CIFAR-10", "CIFAR10", "cifar-10-batches-py", CIFAR_MD5, tuple(CIFAR_CLASSES.split(","))
    ),
}


def load(name: str, root: Path) -> ImageDataset:
    """The data set ``name`` from the files in ``root``; downloads missing files; raises UserError."""
    files = SETS[name]

    def build() -> ImageDataset:
        if _first_missing(root, files):
            _download(root, files)
        return _read_cifar(root, files) if name == "cifar10" else _read_idx_set(root, files)

    return cache.load(root, name, lambda: _fingerprint(root, files), build)


def _first_missing(root: Path, files: DatasetFiles) -> str | None:
    """The first file that does not exist, relative to ``root``."""
    for name in files.md5:
        if not (root / files.folder / name).is_file():
            return f"{files.folder}/{name}"
    return None


def _fingerprint(root: Path, files: DatasetFiles) -> str | None:
    """The state of every file; None if one is missing."""
    try:
        return json.dumps({name: cache.file_state(root / files.folder / name) for name in files.md5})
    except OSError:
        return None


def _download(root: Path, files: DatasetFiles) -> None:
    """Downloads the missing files; a file appears complete or not at all. Raises UserError."""
    log.info("%s: downloading it into %s", files.title, root)
    missing, folder = _first_missing(root, files), root / files.folder
    try:
        with _quiet(), cache.no_empty_folders(folder, *folder.parents):
            folder.mkdir(parents=True, exist_ok=True)
            # Left behind by killed processes. Nobody downloads at this moment: we hold the cache's lock.
            for stale in folder.glob(".fetching-*"):
                shutil.rmtree(stale, ignore_errors=True)
            with TemporaryDirectory(prefix=".fetching-", dir=folder) as temporary:
                _download_in(Path(temporary), root, files)
        missing = _first_missing(root, files)
        reason = f"torchvision left out {missing}"
    except Exception as error:  # networks, disks and damaged archives raise many types
        last_line = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        reason = re.sub(r"^<urlopen error (.*)>$", r"\1", last_line.strip())
    if missing is not None:
        if (root / f"{missing}.gz").exists():
            missing += ", and the one in its .gz file is another or damaged"
        problem = f"{files.title} is missing (no {missing}) and could not be downloaded ({reason})"
        remedy = "put its files there, or set BNEXP_DATA_DIR to the folder that holds them"
        raise bad_value("dataset.root", root, f"{problem}; {remedy}")


def _download_in(temporary: Path, root: Path, files: DatasetFiles) -> None:
    """Lets torchvision work in ``temporary``: an incomplete or wrong download never reaches ``root``."""
    for packed in (*root.glob("*.gz"), *(root / files.folder).glob("*.gz")):  # need no download
        link = temporary / packed.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(packed.resolve())
    _torchvision_dataset(temporary, files, train=True, download=True)
    for name in files.md5:
        download, target = temporary / files.folder / name, root / files.folder / name
        if download.exists() and not target.exists():
            download.replace(target)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides torchvision's messages, except for the progress bar on a terminal."""
    timeout = socket.getdefaulttimeout()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(redirect_stdout(io.StringIO()))
        if sys.stderr is None or not sys.stderr.isatty():
            stack.enter_context(redirect_stderr(io.StringIO()))
        stack.callback(socket.setdefaulttimeout, timeout)
        # torchvision sets no timeout: a firewall that drops packets would block a run for minutes.
        socket.setdefaulttimeout(30)
        yield


def _torchvision_dataset(root: Path, files: DatasetFiles, *, train: bool, download: bool) -> Any:
    import torchvision.datasets

    dataset_class = getattr(torchvision.datasets, files.torchvision_class)
    return dataset_class(str(root), train=train, download=download)


def _read_idx_set(root: Path, files: DatasetFiles) -> ImageDataset:
    arrays = [_read_idx(root, files, name) for name in IDX]
    train, test = (Images(arrays[i].unsqueeze(1), arrays[i + 1].to(torch.int64)) for i in (0, 2))
    return ImageDataset(train, test, files.classes)


def _read_idx(root: Path, files: DatasetFiles, name: str) -> Tensor:
    """The array in an idx file (0, 0, type, dimensions, then their sizes as big-endian int32, then uint8)."""
    content = _read_bytes(root, files, name)
    _check_md5(root, files, name, content)
    start = 4 + 4 * int(content[3])
    shape = content[4:start].view(">i4").tolist()
    return torch.from_numpy(content[start:]).view(shape)


def _read_cifar(root: Path, files: DatasetFiles) -> ImageDataset:
    # A pickle can run any code. So no file is unpickled before the md5 of all of them has been checked.
    # torchvision checks the md5 again, but its message would not name the wrong file.
    for name in files.md5:
        _check_md5(root, files, name, _read_bytes(root, files, name))
    with _quiet():  # NumPy warns that these pickles are old
        train, test = (_cifar_images(root, files, train=train) for train in (True, False))
    return ImageDataset(train, test, files.classes)


def _cifar_images(root: Path, files: DatasetFiles, *, train: bool) -> Images:
    dataset = _torchvision_dataset(root, files, train=train, download=False)
    pixels = torch.from_numpy(dataset.data).permute(0, 3, 1, 2)  # (N, H, W, C) to (N, C, H, W)
    return Images(pixels.contiguous(), torch.tensor(dataset.targets))


def _read_bytes(root: Path, files: DatasetFiles, name: str) -> np.ndarray:
    try:
        return np.fromfile(root / files.folder / name, np.uint8)
    except OSError as error:
        reason = error.strerror or error
        raise bad_value("dataset.root", root, f"{files.folder}/{name} can't be read ({reason})") from None


def _check_md5(root: Path, files: DatasetFiles, name: str, content: np.ndarray) -> None:
    md5 = hashlib.md5(content.data, usedforsecurity=False).hexdigest()
    if md5 != files.md5[name]:
        raise UserError(
            f"dataset.root={root}: {files.folder}/{name} is damaged or another file (md5 {md5}, not "
            f"{files.md5[name]}); delete it, and the next run downloads it again"
        )
