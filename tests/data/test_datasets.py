"""The data sets by name: their content, their files' faults, and a start without the network."""

from __future__ import annotations

import gzip
import pickle
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from bnexp.data import datasets, torchvision_sets
from bnexp.errors import UserError
from helpers.small_sets import arrays, write_mnist, write_trapped_cifar

RAW = "MNIST/raw"
IMAGES = f"{RAW}/train-images-idx3-ubyte"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "home-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def same(source: datasets.Source, given: list[np.ndarray]) -> bool:
    parts = (source.train.pixels, source.train.labels, source.test.pixels, source.test.labels)
    return all(
        np.array_equal(part.squeeze().numpy(), array) for part, array in zip(parts, given, strict=True)
    )


def failing(root: Path, name: str = "mnist") -> str:
    with pytest.raises(UserError) as caught:
        datasets.load_dataset(name, str(root), None)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"dataset.root={root}: ")
    return message


def test_idx_files(root, monkeypatch):
    given = arrays()
    write_mnist(root, monkeypatch, given)
    source = datasets.load_dataset("mnist", str(root), None)
    assert same(source, given)
    assert source.train.pixels.shape == (30, 1, 6, 6)
    assert source.train.pixels.is_contiguous()
    assert (source.train.pixels.dtype, source.train.labels.dtype) == (torch.uint8, torch.int64)
    assert source.classes == tuple("0123456789")


@pytest.mark.parametrize("fault", ["cut short", "one bit", "another file", "empty"])
def test_a_damaged_idx_file_is_named(root, monkeypatch, fault):
    given = arrays()
    write_mnist(root, monkeypatch, given)
    path = root / IMAGES
    content = bytearray(path.read_bytes())
    if fault == "one bit":
        content[500] ^= 1
    changed = {"cut short": content[:-1], "one bit": content, "empty": b""}
    path.write_bytes(
        changed.get(fault) if fault in changed else (root / RAW / "t10k-images-idx3-ubyte").read_bytes()
    )
    message = failing(root)
    assert IMAGES in message
    assert "delete it, so that it is fetched anew" in message
    assert not (root / ".bnexp").exists()


def test_the_sums_of_the_real_files(data_dir):
    for name, known in torchvision_sets.SETS.items():
        for file in known.md5:
            torchvision_sets._verify(
                Path(), known, file, torchvision_sets._content(Path(data_dir), known, file)
            )
        assert name


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_the_real_idx_sets(data_dir, root, name, folder):
    root.mkdir()
    (root / folder).symlink_to(Path(data_dir, folder))
    source = datasets.load_dataset(name, str(root), None)
    for part, prefix, count in ((source.train, "train", 60000), (source.test, "t10k", 10000)):
        with gzip.open(Path(data_dir, folder, "raw", f"{prefix}-images-idx3-ubyte.gz")) as file:
            assert struct.unpack(">IIII", file.read(16)) == (2051, count, 28, 28)
            assert part.pixels.numpy().tobytes() == file.read()
        with gzip.open(Path(data_dir, folder, "raw", f"{prefix}-labels-idx1-ubyte.gz")) as file:
            assert part.labels.tolist() == list(file.read()[8:])


def test_the_real_cifar_and_its_warm_start(data_dir, root):
    root.mkdir()
    (root / "cifar-10-batches-py").symlink_to(Path(data_dir, "cifar-10-batches-py"))
    source = datasets.load_dataset("cifar10", str(root), None)
    assert source.train.pixels.shape == (50000, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, part in (("data_batch_2", source.train), ("test_batch", source.test)):
            batch = pickle.loads(Path(data_dir, "cifar-10-batches-py", name).read_bytes(), encoding="latin1")
            rows = slice(10000, 20000) if part is source.train else slice(None)
            assert np.array_equal(part.pixels[rows].numpy().reshape(10000, 3072), batch["data"])
            assert part.labels[rows].tolist() == batch["labels"]
        meta = pickle.loads(
            Path(data_dir, "cifar-10-batches-py", "batches.meta").read_bytes(), encoding="latin1"
        )
    assert list(source.classes) == meta["label_names"]
    script = (
        "import sys; from bnexp.data import load; s = load('cifar10', sys.argv[1], None);"
        "print(s.train.pixels.sum().item(), s.test.labels.sum().item(),"
        "[m for m in ('torchvision', 'sklearn', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(root)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split(maxsplit=2) == [
        str(source.train.pixels.sum().item()),
        str(source.test.labels.sum().item()),
        "[]\n",
    ]


def test_no_pickle_is_opened_unverified(root, tmp_path):
    mark = tmp_path / "opened"
    write_trapped_cifar(root, mark)
    message = failing(root, "cifar10")
    assert "cifar-10-batches-py/data_batch_1 is damaged or another file" in message
    assert not mark.exists()


def test_files_that_are_there_are_not_fetched(root, monkeypatch):
    write_mnist(root, monkeypatch, arrays())
    asked = []
    monkeypatch.setattr(torchvision_sets, "_torchvision", lambda *_, **__: asked.append(1))
    datasets.load_dataset("mnist", str(root), None)
    assert not asked


@pytest.fixture
def offline(monkeypatch) -> list[str]:
    """torchvision without a network; the addresses it asks for."""
    import torchvision.datasets.utils as utils

    asked: list[str] = []

    def refuse(url: str, *_, **__):
        asked.append(url)
        warnings.warn("the network is far", stacklevel=2)
        print("Downloading", url)
        raise URLError("[Errno -2] Name or service not known")

    monkeypatch.setattr(utils, "_get_redirect_url", refuse)
    return asked


@pytest.mark.parametrize("before", ["nothing", "root", "raw"])
def test_no_files_and_no_network(root, offline, capfd, home, before):
    if before != "nothing":
        (root / RAW if before == "raw" else root).mkdir(parents=True)
    kept = sorted(root.parent.rglob("*"))
    message = failing(root)
    assert message == (
        f"dataset.root={root}: MNIST is not there (no {IMAGES}) and could not be downloaded"
        " ([Errno -2] Name or service not known); put its files there, or set BNEXP_DATA_DIR to their folder"
    )
    assert len(offline) == 2, "each of torchvision's mirrors was asked"
    assert capfd.readouterr() == ("", "")
    assert sorted(root.parent.rglob("*")) == kept


def test_what_a_killed_download_left_goes_with_the_next(root, offline):
    left = root / RAW / ".fetching-abc" / "MNIST"
    left.mkdir(parents=True)
    (left / "part.gz").write_bytes(b"half")
    failing(root)
    assert sorted(path.name for path in (root / RAW).iterdir()) == []


def test_no_cifar_and_no_network(root, offline):
    assert "CIFAR-10 is not there (no cifar-10-batches-py/data_batch_1)" in failing(root, "cifar10")
    assert not root.exists()


def test_packed_files_are_unpacked_without_a_network(root, offline, monkeypatch, capfd):
    given = arrays()
    write_mnist(root, monkeypatch, given, packed=True)
    assert same(datasets.load_dataset("mnist", str(root), None), given)
    assert not offline
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("root", [None, ""])
@pytest.mark.parametrize("name", ["mnist", "image_folder"])
def test_a_root_is_needed(name, root):
    with pytest.raises(UserError, match=r"^dataset\.root=.*: must be the folder that holds the data$"):
        datasets.load_dataset(name, root, None)


def test_digits_take_no_root():
    with pytest.raises(UserError, match=r"^dataset\.root=there: must be null"):
        datasets.load_dataset("digits", "there", None)


def test_an_unknown_name():
    with pytest.raises(UserError, match=r"^dataset\.name=minst: .*did you mean mnist\?$"):
        datasets.load_dataset("minst", None, None)


def enlarged(image: np.ndarray) -> np.ndarray:
    """8x8 of 0..16 to 28x28 of 0..255, bilinear between pixel centres, in whole 14ths of a pixel."""
    place = np.clip(4 * np.arange(28) - 5, 0, 7 * 14)
    low, part = place // 14, place % 14
    high, image = np.minimum(low + 1, 7), image.astype(int)
    rows = image[low] * (14 - part)[:, None] + image[high] * part[:, None]
    sums = rows[:, low] * (14 - part) + rows[:, high] * part
    return (2 * 255 * sums + 14 * 14 * 16) // (2 * 14 * 14 * 16)  # halves go up


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    source = datasets.load_dataset("digits", None, None)
    assert (len(source.train), len(source.test)) == (1438, 359)
    pixels = torch.cat([source.train.pixels, source.test.pixels])
    labels = torch.cat([source.train.labels, source.test.labels])
    digits = load_digits()
    wanted = {
        enlarged(i).astype(np.uint8).tobytes(): n for i, n in zip(digits.images, digits.target, strict=True)
    }
    exact = sum(wanted.get(p.numpy().tobytes()) == n for p, n in zip(pixels, labels.tolist(), strict=True))
    assert exact == 1797  # every image, with its own label
    assert source.classes == tuple("0123456789")
    assert source.train.pixels.max() == 255


def test_digits_are_read_without_importing_scikit_learn():
    script = (
        "import sys; from bnexp.data import load; load('digits', None, None); print('sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_digits_of_a_scikit_learn_that_keeps_them_elsewhere(monkeypatch):
    usual = datasets.load_dataset("digits", None, None)
    monkeypatch.setattr(datasets.Path, "exists", lambda path: False)
    other = datasets.load_dataset("digits", None, None)
    for ours, theirs in ((usual.train, other.train), (usual.test, other.test)):
        assert torch.equal(ours.pixels, theirs.pixels)
        assert torch.equal(ours.labels, theirs.labels)
    assert usual.classes == other.classes


def test_the_digits_test_set_is_stratified_and_never_moves():
    torch.manual_seed(1)
    first = datasets.load_dataset("digits", None, None)
    torch.manual_seed(2)
    second = datasets.load_dataset("digits", None, None)
    assert torch.equal(first.test.pixels, second.test.pixels)
    members = (first.train.labels.bincount() + first.test.labels.bincount()).double()
    assert (first.test.labels.bincount() - members * 359 / 1797).abs().max() < 1
    # Held against a number, as accuracies are compared across versions: moving the test set must be noticed.
    assert first.test.labels[:10].tolist() == DIGITS_TEST_START


DIGITS_TEST_START = [3, 7, 2, 0, 8, 3, 6, 3, 2, 3]
