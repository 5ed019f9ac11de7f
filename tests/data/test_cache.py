"""The cache of decoded images: valid, stale, damaged, not writable, and built by two processes at once."""

from __future__ import annotations

import errno
import gc
import logging
import os
import pickle
import stat
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bnexp.data import cache
from bnexp.data.images import ImageDataset, Images


def small_dataset(seed: int = 0) -> ImageDataset:
    stream = torch.Generator().manual_seed(seed)

    def images(count: int) -> Images:
        pixels = torch.randint(0, 256, (count, 3, 4, 4), generator=stream, dtype=torch.uint8)
        return Images(pixels, torch.randint(0, 2, (count,), generator=stream))

    return ImageDataset(images(50), images(20), ("cat", "dög"))


def equal(a: ImageDataset, b: ImageDataset) -> bool:
    pairs = ((a.train.pixels, b.train.pixels), (a.train.labels, b.train.labels))
    pairs += ((a.test.pixels, b.test.pixels), (a.test.labels, b.test.labels))
    return a.classes == b.classes and all(torch.equal(x, y) and x.dtype == y.dtype for x, y in pairs)


class CountingBuilder:
    """A data set behind the cache; ``builds`` counts how often it was built."""

    def __init__(self, root: Path) -> None:
        self.root, self.builds, self.fingerprint = root, 0, "first"
        self.path = root / cache.FOLDER / "small.safetensors"

    def read_or_build(self, seed: int = 0) -> ImageDataset:
        return cache.read_or_build(self.root, "small", lambda: self.fingerprint, lambda: self._build(seed))

    def load(self, seed: int = 0) -> ImageDataset:
        return cache.load(self.root, "small", lambda: self.fingerprint, lambda: self._build(seed))

    def _build(self, seed: int) -> ImageDataset:
        self.builds += 1
        return small_dataset(seed)


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "home-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def builder(tmp_path: Path) -> CountingBuilder:
    (tmp_path / "data").mkdir()
    return CountingBuilder(tmp_path / "data")


def test_a_data_set_is_built_once_and_then_read(builder, user_cache):
    assert equal(builder.read_or_build(), small_dataset())
    assert equal(builder.read_or_build(), small_dataset())
    assert builder.builds == 1
    assert not user_cache.exists()
    names = sorted(path.name for path in builder.path.parent.iterdir())
    assert names == ["small.lock", "small.safetensors"]


def test_the_file_is_a_safetensors_file_that_other_users_can_read(builder):
    builder.read_or_build()
    tensors, expected = load_file(builder.path), small_dataset()
    assert sorted(tensors) == ["test.labels", "test.pixels", "train.labels", "train.pixels"]
    for name in ("train", "test"):
        assert torch.equal(tensors[f"{name}.pixels"], getattr(expected, name).pixels)
        assert torch.equal(tensors[f"{name}.labels"], getattr(expected, name).labels)
        assert tensors[f"{name}.labels"].data_ptr() % 8 == 0, "int64 must be aligned"
    (builder.root / "plain").touch()
    assert stat.S_IMODE(builder.path.stat().st_mode) == stat.S_IMODE((builder.root / "plain").stat().st_mode)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
def test_tensors_are_mapped_from_the_file_and_writes_do_not_reach_it(builder):
    builder.read_or_build()
    dataset = builder.read_or_build()
    assert str(builder.path) in Path("/proc/self/maps").read_text()
    dataset.train.pixels.zero_()
    assert equal(builder.read_or_build(), small_dataset())
    assert builder.builds == 1


def test_a_process_reads_a_data_set_once(builder, monkeypatch):
    reads = []
    read = cache._read
    monkeypatch.setattr(cache, "_read", lambda *args: reads.append(args) or read(*args))
    first = builder.load()
    assert builder.builds == 1
    reads_before = len(reads)
    assert builder.load() is first
    assert (builder.builds, len(reads)) == (1, reads_before)
    builder.fingerprint = "changed"
    second = builder.load(seed=1)
    assert builder.builds == 2
    assert equal(second, small_dataset(1))


def test_only_the_last_data_set_stays_in_memory(builder, tmp_path):
    (tmp_path / "other").mkdir()
    first, other = builder.load(), CountingBuilder(tmp_path / "other")
    reference = weakref.ref(first.train.pixels)
    del first
    assert equal(other.load(seed=1), small_dataset(1))
    gc.collect()
    assert reference() is None
    assert equal(builder.load(), small_dataset())


def test_the_cache_is_built_again_when_the_source_files_change(builder):
    builder.read_or_build()
    builder.fingerprint = "second"
    assert equal(builder.read_or_build(seed=1), small_dataset(1))
    assert equal(builder.read_or_build(), small_dataset(1))
    assert builder.builds == 2


def flip_bit(content: bytes, position: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1
    return bytes(changed)


class PickleBomb:
    """Ends the process when it is unpickled."""

    def __reduce__(self):
        return os.abort, ()


DAMAGES = {
    "empty": lambda c: b"",
    "cut in the header's length": lambda c: c[:5],
    "cut in the header": lambda c: c[:100],
    "cut in the tensors": lambda c: c[:-1],
    "longer": lambda c: c + b"x",
    "bit of the header's length": lambda c: flip_bit(c, 0),
    "huge header": lambda c: flip_bit(c, 7),
    "bit of a shape's name": lambda c: flip_bit(c, c.index(b"shape")),
    "other shape of the same size": lambda c: c.replace(b"[20, 3, 4, 4]", b"[20, 4, 3, 4]"),
    "fingerprint": lambda c: c.replace(b"first", b"fi8st"),
    "class name": lambda c: c.replace(b"cat", b"cow"),
    "bit of a pixel": lambda c: flip_bit(c, len(c) // 2),
    "bit of a label": lambda c: flip_bit(c, 8 + int.from_bytes(c[:8], "little")),
    "last bit": lambda c: flip_bit(c, -1),
    "a pickle": lambda c: pickle.dumps(PickleBomb()),
    "text": lambda c: b"bnexp images\n",
    "other version": lambda c: c.replace(b"images 1", b"images 0", 1),
    "no metadata": lambda c: c.replace(b"__metadata__", b"_2metadata__"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_built_again(builder, caplog, damage):
    builder.read_or_build()
    content = builder.path.read_bytes()
    builder.path.write_bytes(DAMAGES[damage](content))
    assert builder.path.read_bytes() != content
    with caplog.at_level(logging.WARNING):
        assert equal(builder.read_or_build(), small_dataset())
    assert builder.builds == 2
    assert f"{builder.path} is damaged" in caplog.text
    caplog.clear()
    assert equal(builder.read_or_build(), small_dataset())
    assert builder.builds == 2
    assert not caplog.records


def test_a_flipped_bit_in_any_byte_is_detected(builder):
    images = Images(torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2), torch.zeros(1, dtype=torch.int64))
    cache._write(builder.root / "tiny", "key", ImageDataset(images, images, ("a", "b")))
    content = (builder.root / "tiny").read_bytes()
    damaged = builder.root / "damaged"
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        damaged.write_bytes(changed)
        with pytest.raises(cache._DamagedCacheError):
            cache._read(damaged, "key")


def test_the_cache_of_a_read_only_folder_lies_in_the_users_cache_folder(builder, user_cache):
    (builder.root / cache.FOLDER).write_text("a file at this path stops even the superuser")
    assert equal(builder.read_or_build(), small_dataset())
    assert equal(builder.read_or_build(), small_dataset())
    assert builder.builds == 1
    assert len(list((user_cache / "bnexp").glob("small-*.safetensors"))) == 1
    other = CountingBuilder(builder.root.parent)  # the same name in another folder gets a file of its own
    (other.root / cache.FOLDER).write_text("")
    assert equal(other.read_or_build(seed=3), small_dataset(3))


def test_without_a_writable_folder_there_is_no_cache(builder, user_cache):
    (builder.root / cache.FOLDER).write_text("")
    user_cache.write_text("")
    assert equal(builder.read_or_build(), small_dataset())
    assert equal(builder.read_or_build(), small_dataset())
    assert builder.builds == 2


def test_a_full_disk_costs_only_the_cache(builder, monkeypatch, caplog):
    def raise_disk_full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", raise_disk_full)
    assert equal(builder.read_or_build(), small_dataset())
    assert "could not be written (No space left on device)" in caplog.text
    assert [path.name for path in builder.path.parent.iterdir()] == ["small.lock"]


def test_the_partial_file_of_a_killed_process_is_removed(builder):
    builder.path.parent.mkdir()
    partial = builder.path.with_name(".small.safetensors.0123.part")
    partial.write_text("half")
    builder.read_or_build()
    assert not partial.exists()


def test_a_failing_build_leaves_no_folder(tmp_path):
    def fail() -> ImageDataset:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cache.read_or_build(tmp_path / "new" / "data", "small", lambda: None, fail)
    assert not list(tmp_path.iterdir())


def test_the_fingerprint_is_taken_before_the_files_are_read(builder):
    def build() -> ImageDataset:
        builder.fingerprint = "changed during the build"
        return small_dataset()

    cache.read_or_build(builder.root, "small", lambda: builder.fingerprint, build)
    assert equal(builder.read_or_build(seed=1), small_dataset(1))


BUILD_SLOWLY = """
import sys, time
from pathlib import Path
import torch
from bnexp.data import cache
from bnexp.data.images import ImageDataset, Images
root = Path(sys.argv[1])
(root / f"ready-{sys.argv[2]}").touch()
while len(list(root.glob("ready-*"))) < 2:
    time.sleep(0.01)
def build():
    with open(root / "builds", "a") as file:
        file.write("x")
    time.sleep(0.5)
    images = Images(torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4), torch.zeros(1, dtype=torch.int64))
    return ImageDataset(images, images, ("a", "b"))
print(cache.read_or_build(root, "small", lambda: "key", build).train.pixels.sum().item())
"""


def test_two_processes_at_once_build_once(tmp_path):
    commands = [[sys.executable, "-c", BUILD_SLOWLY, str(tmp_path), name] for name in "ab"]
    processes = [
        subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for c in commands
    ]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert outputs == [("1128\n", "")] * 2
    assert (tmp_path / "builds").read_text() == "x"
