"""The data sets by name: contents, damaged or missing files, and a start without network access."""

from __future__ import annotations

import gzip
import os
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

from bnexp.data import ImageDataset, datasets, torchvision_sets
from bnexp.errors import UserError
from helpers.small_sets import arrays, write_cifar_of_traps, write_mnist

RAW = "MNIST/raw"
IMAGES = f"{RAW}/train-images-idx3-ubyte"


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "home-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def holds(dataset: ImageDataset, expected: list[np.ndarray]) -> bool:
    tensors = (dataset.train.pixels, dataset.train.labels, dataset.test.pixels, dataset.test.labels)
    pairs = zip(tensors, expected, strict=True)
    return all(np.array_equal(tensor.squeeze().numpy(), array) for tensor, array in pairs)


def error_message(root: Path, name: str = "mnist") -> str:
    with pytest.raises(UserError) as caught:
        datasets.load_dataset(name, str(root), None)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"dataset.root={root}: ")
    return message


def run_python(script: str, *args: str) -> str:
    command = [sys.executable, "-c", script, *args]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", ["mnist", "image_folder"])
@pytest.mark.parametrize("root", ["", " ", "\t"])
def test_an_empty_root_is_not_the_current_folder(name, root):
    with pytest.raises(UserError, match=r"dataset\.root=.*: must be the folder that holds the data"):
        datasets.load_dataset(name, root, None)


def test_idx_files_are_read(root, monkeypatch):
    expected = arrays()
    write_mnist(root, monkeypatch, expected)
    dataset = datasets.load_dataset("mnist", str(root), None)
    assert holds(dataset, expected)
    assert dataset.train.pixels.shape == (30, 1, 6, 6)
    assert dataset.train.pixels.is_contiguous()
    assert (dataset.train.pixels.dtype, dataset.train.labels.dtype) == (torch.uint8, torch.int64)
    assert dataset.classes == tuple("0123456789")


@pytest.mark.parametrize("damage", ["cut short", "one bit", "another file", "empty"])
def test_a_damaged_idx_file_is_named(root, monkeypatch, damage):
    write_mnist(root, monkeypatch, arrays())
    path = root / IMAGES
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[500] ^= 1
    other_file = (root / RAW / "t10k-images-idx3-ubyte").read_bytes()
    damages = {"cut short": content[:-1], "one bit": flipped, "another file": other_file, "empty": b""}
    path.write_bytes(damages[damage])
    message = error_message(root)
    assert f"{IMAGES} is damaged or another file" in message
    assert "delete it, and the next run downloads it again" in message
    assert not (root / ".bnexp").exists()


def test_the_real_files_have_the_published_checksums(data_dir):
    for files in torchvision_sets.SETS.values():
        for name in files.md5:
            content = torchvision_sets._read_bytes(Path(data_dir), files, name)
            torchvision_sets._check_md5(Path(), files, name, content)


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_the_real_idx_sets_equal_their_packed_files(data_dir, root, name, folder):
    root.mkdir()
    (root / folder).symlink_to(Path(data_dir, folder))
    dataset = datasets.load_dataset(name, str(root), None)
    for part, prefix, count in ((dataset.train, "train", 60000), (dataset.test, "t10k", 10000)):
        with gzip.open(Path(data_dir, folder, "raw", f"{prefix}-images-idx3-ubyte.gz")) as file:
            assert struct.unpack(">IIII", file.read(16)) == (2051, count, 28, 28)
            assert part.pixels.numpy().tobytes() == file.read()
        with gzip.open(Path(data_dir, folder, "raw", f"{prefix}-labels-idx1-ubyte.gz")) as file:
            assert part.labels.tolist() == list(file.read()[8:])


def test_the_real_cifar_is_read_and_its_cache_needs_no_torchvision(data_dir, root):
    root.mkdir()
    (root / "cifar-10-batches-py").symlink_to(Path(data_dir, "cifar-10-batches-py"))
    dataset = datasets.load_dataset("cifar10", str(root), None)
    assert dataset.train.pixels.shape == (50000, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, part in (("data_batch_2", dataset.train), ("test_batch", dataset.test)):
            batch = pickle.loads(Path(data_dir, "cifar-10-batches-py", name).read_bytes(), encoding="latin1")
            rows = slice(10000, 20000) if part is dataset.train else slice(None)
            assert np.array_equal(part.pixels[rows].numpy().reshape(10000, 3072), batch["data"])
            assert part.labels[rows].tolist() == batch["labels"]
        meta = pickle.loads(
            Path(data_dir, "cifar-10-batches-py", "batches.meta").read_bytes(), encoding="latin1"
        )
    assert list(dataset.classes) == meta["label_names"]
    script = (
        "import sys; from bnexp.data import load_dataset; d = load_dataset('cifar10', sys.argv[1], None);"
        "print(d.train.pixels.sum().item(), d.test.labels.sum().item(),"
        "[m for m in ('torchvision', 'sklearn', 'PIL') if m in sys.modules])"
    )
    assert run_python(script, str(root)).split(maxsplit=2) == [
        str(dataset.train.pixels.sum().item()),
        str(dataset.test.labels.sum().item()),
        "[]\n",
    ]


def test_no_pickle_is_opened_before_its_checksum_is_checked(root, tmp_path):
    mark = tmp_path / "opened"
    write_cifar_of_traps(root, mark)
    message = error_message(root, "cifar10")
    assert "cifar-10-batches-py/data_batch_1 is damaged or another file" in message
    assert not mark.exists()


def test_complete_files_are_not_downloaded(root, monkeypatch):
    write_mnist(root, monkeypatch, arrays())
    calls = []
    monkeypatch.setattr(torchvision_sets, "_torchvision_dataset", lambda *_, **__: calls.append(1))
    datasets.load_dataset("mnist", str(root), None)
    assert not calls


def test_a_file_that_changes_but_keeps_its_size_and_time_is_checked_again(root, monkeypatch):
    write_mnist(root, monkeypatch, arrays())
    datasets.load_dataset("mnist", str(root), None)
    path = root / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    time, content = path.stat().st_mtime_ns, path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(time, time))
    assert "train-labels-idx1-ubyte is damaged or another file" in error_message(root)


@pytest.fixture
def offline(monkeypatch) -> list[str]:
    """Takes torchvision's network away; the list collects the addresses that it requests."""
    import torchvision.datasets.utils as utils

    requests: list[str] = []

    def refuse(url: str, *_, **__):
        requests.append(url)
        warnings.warn("no network", stacklevel=2)
        print("Downloading", url)
        raise URLError("[Errno -2] Name or service not known")

    monkeypatch.setattr(utils, "_get_redirect_url", refuse)
    return requests


@pytest.mark.parametrize("existing", ["nothing", "root", "raw"])
def test_missing_files_without_a_network_are_one_line(root, offline, capfd, existing):
    if existing != "nothing":
        (root / RAW if existing == "raw" else root).mkdir(parents=True)
    paths_before = sorted(root.parent.rglob("*"))
    message = error_message(root)
    assert message == (
        f"dataset.root={root}: MNIST is missing (no {IMAGES}) and could not be downloaded"
        " ([Errno -2] Name or service not known); put its files there, or set BNEXP_DATA_DIR to the folder"
        " that holds them"
    )
    assert len(offline) == 2, "torchvision must try each of its mirrors"
    assert capfd.readouterr() == ("", "")
    assert sorted(root.parent.rglob("*")) == paths_before


def test_the_leftovers_of_a_killed_download_are_removed(root, offline):
    leftover = root / RAW / ".fetching-abc" / "MNIST"
    leftover.mkdir(parents=True)
    (leftover / "part.gz").write_bytes(b"half")
    error_message(root)
    assert sorted(path.name for path in (root / RAW).iterdir()) == []


def test_a_missing_cifar_without_a_network_is_one_line(root, offline):
    assert "CIFAR-10 is missing (no cifar-10-batches-py/data_batch_1)" in error_message(root, "cifar10")
    assert not root.exists()


def test_packed_files_are_unpacked_without_a_network(root, offline, monkeypatch, capfd):
    expected = arrays()
    write_mnist(root, monkeypatch, expected, packed=True)
    assert holds(datasets.load_dataset("mnist", str(root), None), expected)
    assert not offline
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("root", [None, ""])
@pytest.mark.parametrize("name", ["mnist", "image_folder"])
def test_a_root_is_required(name, root):
    with pytest.raises(UserError, match=r"^dataset\.root=.*: must be the folder that holds the data$"):
        datasets.load_dataset(name, root, None)


def test_digits_refuse_a_root():
    with pytest.raises(UserError, match=r"^dataset\.root=folder: must be null"):
        datasets.load_dataset("digits", "folder", None)


def test_an_unknown_name_gets_the_nearest_match():
    with pytest.raises(UserError, match=r"^dataset\.name=minst: .*did you mean mnist\?$"):
        datasets.load_dataset("minst", None, None)


def enlarge(image: np.ndarray) -> np.ndarray:
    """8x8 of 0..16 to 28x28 of 0..255, bilinear between pixel centres, in integers: 14ths of a pixel."""
    position = np.clip(4 * np.arange(28) - 5, 0, 7 * 14)
    low, fraction = position // 14, position % 14
    high, image = np.minimum(low + 1, 7), image.astype(int)
    rows = image[low] * (14 - fraction)[:, None] + image[high] * fraction[:, None]
    sums = rows[:, low] * (14 - fraction) + rows[:, high] * fraction
    return (2 * 255 * sums + 14 * 14 * 16) // (2 * 14 * 14 * 16)  # halves are rounded up


def test_digits_equal_scikit_learns():
    from sklearn.datasets import load_digits

    dataset = datasets.load_dataset("digits", None, None)
    assert (len(dataset.train), len(dataset.test)) == (1438, 359)
    pixels = torch.cat([dataset.train.pixels, dataset.test.pixels])
    labels = torch.cat([dataset.train.labels, dataset.test.labels])
    digits = load_digits()
    expected = {
        enlarge(i).astype(np.uint8).tobytes(): n for i, n in zip(digits.images, digits.target, strict=True)
    }
    pairs = zip(pixels, labels.tolist(), strict=True)
    assert sum(expected.get(image.numpy().tobytes()) == label for image, label in pairs) == 1797
    assert dataset.classes == tuple("0123456789")
    assert dataset.train.pixels.max() == 255


def test_digits_are_read_without_importing_scikit_learn():
    script = (
        "import sys; from bnexp.data import load_dataset; load_dataset('digits', None, None);"
        "print('sklearn' in sys.modules)"
    )
    assert run_python(script) == "False\n"


def test_digits_are_loaded_by_scikit_learn_if_its_file_has_moved(monkeypatch):
    from_file = datasets.load_dataset("digits", None, None)
    monkeypatch.setattr(datasets.Path, "exists", lambda path: False)
    datasets._load_digits.cache_clear()
    from_sklearn = datasets.load_dataset("digits", None, None)
    assert from_sklearn is not from_file
    for name in ("train", "test"):
        assert torch.equal(getattr(from_file, name).pixels, getattr(from_sklearn, name).pixels)
        assert torch.equal(getattr(from_file, name).labels, getattr(from_sklearn, name).labels)
    assert from_file.classes == from_sklearn.classes


def test_the_digits_test_set_is_stratified_and_never_changes():
    torch.manual_seed(1)
    first = datasets.load_dataset("digits", None, None)
    torch.manual_seed(2)
    datasets._load_digits.cache_clear()
    second = datasets.load_dataset("digits", None, None)
    assert torch.equal(first.test.pixels, second.test.pixels)
    class_sizes = (first.train.labels.bincount() + first.test.labels.bincount()).double()
    assert (first.test.labels.bincount() - class_sizes * 359 / 1797).abs().max() < 1
    # Fixed numbers: accuracies are compared between versions of bnexp, so a change of the test set must fail.
    assert first.test.labels[:10].tolist() == DIGITS_TEST_START


DIGITS_TEST_START = [3, 7, 2, 0, 8, 3, 6, 3, 2, 3]
