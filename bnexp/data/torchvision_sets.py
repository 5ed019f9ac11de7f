"""MNIST, Fashion-MNIST and CIFAR-10: fetched by torchvision, verified here.

Only a fetch, and CIFAR's format, need torchvision, whose import takes seconds; it is put off until then.
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
class Known:
    """A public data set: where torchvision lays its files, and what is in them."""

    title: str
    torchvision: str  # its class in torchvision.datasets
    folder: str
    md5: Mapping[str, str]
    classes: tuple[str, ...]


# torchvision checks the idx files when it fetches them, packed, and never again. These are the sums of the
# unpacked files, computed from packed ones that have the sums in torchvision/datasets/mnist.py. Those of
# CIFAR-10 stand in torchvision/datasets/cifar.py.
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
DIGITS = tuple("0123456789")
CLOTHES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
THINGS = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"
SETS = {
    "mnist": Known("MNIST", "MNIST", "MNIST/raw", dict(zip(IDX, MNIST_MD5, strict=True)), DIGITS),
    "fashion_mnist": Known(
        "Fashion-MNIST",
        "FashionMNIST",
        "FashionMNIST/raw",
        dict(zip(IDX, FASHION_MD5, strict=True)),
        tuple(CLOTHES.split(",")),
    ),
    "cifar10": Known("CIFAR-10", "CIFAR10", "cifar-10-batches-py", CIFAR_MD5, tuple(THINGS.split(","))),
}


def load(name: str, root: Path) -> ImageDataset:
    """The set of that name from the files in ``root``, fetched if they are missing; raises UserError."""
    known = SETS[name]

    def build() -> ImageDataset:
        if _missing(root, known):
            _download(root, known)
        return _read_cifar(root, known) if name == "cifar10" else _read_idx_set(root, known)

    return cache.load(root, name, lambda: _fingerprint(root, known), build)


def _missing(root: Path, known: Known) -> str | None:
    """The first file that isn't there."""
    for name in known.md5:
        if not (root / known.folder / name).is_file():
            return f"{known.folder}/{name}"
    return None


def _fingerprint(root: Path, known: Known) -> str | None:
    try:
        stats = {name: (root / known.folder / name).stat() for name in known.md5}
    except OSError:
        return None
    return json.dumps({name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()})


def _download(root: Path, known: Known) -> None:
    """Brings the files that are missing, each whole or not at all; raises UserError."""
    log.info("%s: fetching it into %s", known.title, root)
    missing, folder = _missing(root, known), root / known.folder
    try:
        with _quiet(), cache.no_empty_folders(folder, *folder.parents):
            folder.mkdir(parents=True, exist_ok=True)
            for stale in folder.glob(".fetching-*"):  # a killed process's; who builds the cache is alone here
                shutil.rmtree(stale, ignore_errors=True)
            with TemporaryDirectory(prefix=".fetching-", dir=folder) as aside:
                _fetch(root, Path(aside), known)
        missing = _missing(root, known)
        reason = f"torchvision left out {missing}"
    except Exception as error:  # whatever the network, the disk or an archive can do to it
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        reason = re.sub(r"^<urlopen error (.*)>$", r"\1", last.strip())
    if missing is not None:
        lacks = f"{known.title} is not there (no {missing}) and could not be downloaded ({reason})"
        raise bad_value(
            "dataset.root", root, f"{lacks}; put its files there, or set BNEXP_DATA_DIR to their folder"
        )


def _fetch(root: Path, aside: Path, known: Known) -> None:
    """torchvision works in ``aside``, so that of a cut or wrong download nothing stays in ``root``."""
    for packed in (*root.glob("*.gz"), *(root / known.folder).glob("*.gz")):  # need not be fetched
        link = aside / packed.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(packed.resolve())
    _torchvision(aside, known, train=True, download=True)
    for name in known.md5:
        fetched, place = aside / known.folder / name, root / known.folder / name
        if fetched.exists() and not place.exists():
            fetched.replace(place)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torchvision's own words from the user, all but the progress bar on a terminal."""
    timeout = socket.getdefaulttimeout()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(redirect_stdout(io.StringIO()))
        if sys.stderr is None or not sys.stderr.isatty():
            stack.enter_context(redirect_stderr(io.StringIO()))
        stack.callback(socket.setdefaulttimeout, timeout)
        socket.setdefaulttimeout(30)  # torchvision sets none: a silent firewall would hold a run for minutes
        yield


def _torchvision(root: Path, known: Known, *, train: bool, download: bool) -> Any:
    import torchvision.datasets

    return getattr(torchvision.datasets, known.torchvision)(str(root), train=train, download=download)


def _read_idx_set(root: Path, known: Known) -> ImageDataset:
    arrays = [_read_idx(root, known, name) for name in IDX]
    train, test = (Images(arrays[i].unsqueeze(1), arrays[i + 1].to(torch.int64)) for i in (0, 2))
    return ImageDataset(train, test, known.classes)


def _read_idx(root: Path, known: Known, name: str) -> Tensor:
    """The array in an idx file (0, 0, type, dimensions, then their sizes as big-endian int32, then uint8)."""
    content = _content(root, known, name)
    _verify(root, known, name, content)
    start = 4 + 4 * int(content[3])
    shape = content[4:start].view(">i4").tolist()
    return torch.from_numpy(content[start:]).view(shape)


def _read_cifar(root: Path, known: Known) -> ImageDataset:
    # The files are pickles, which run what they hold: none is opened before all are known to be the published
    # ones. torchvision looks at the sums again, but would only say that some file is wrong, not which.
    for name in known.md5:
        _verify(root, known, name, _content(root, known, name))
    with _quiet():  # NumPy warns about the age of these pickles
        train, test = (_cifar_images(root, known, train=train) for train in (True, False))
    return ImageDataset(train, test, known.classes)


def _cifar_images(root: Path, known: Known, *, train: bool) -> Images:
    loaded = _torchvision(root, known, train=train, download=False)
    pixels = torch.from_numpy(loaded.data).permute(0, 3, 1, 2)  # torchvision turned (C, H, W) into (H, W, C)
    return Images(pixels.contiguous(), torch.tensor(loaded.targets))


def _content(root: Path, known: Known, name: str) -> np.ndarray:
    try:
        return np.fromfile(root / known.folder / name, np.uint8)
    except OSError as error:
        reason = error.strerror or error
        raise bad_value("dataset.root", root, f"{known.folder}/{name} can't be read ({reason})") from None


def _verify(root: Path, known: Known, name: str, content: np.ndarray) -> None:
    found = hashlib.md5(content.data, usedforsecurity=False).hexdigest()
    if found != known.md5[name]:
        raise UserError(
            f"dataset.root={root}: {known.folder}/{name} is damaged or another file (md5 {found}, not "
            f"{known.md5[name]}); delete it, so that it is fetched anew"
        )
