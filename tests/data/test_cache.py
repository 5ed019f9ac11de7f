"""The cache of decoded images: hit, stale, damaged, impossible, and wanted by two at once."""

from __future__ import annotations

import errno
import gc
import logging
import os
import pickle
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

from bnexp.data import cache
from bnexp.data.images import ImageDataset, Images


def source(seed: int = 0) -> ImageDataset:
    stream = torch.Generator().manual_seed(seed)

    def images(count: int) -> Images:
        pixels = torch.randint(0, 256, (count, 3, 4, 4), generator=stream, dtype=torch.uint8)
        return Images(pixels, torch.randint(0, 2, (count,), generator=stream))

    return ImageDataset(images(50), images(20), ("cat", "dög"))


def same(a: ImageDataset, b: ImageDataset) -> bool:
    pairs = ((a.train.pixels, b.train.pixels), (a.train.labels, b.train.labels))
    pairs += ((a.test.pixels, b.test.pixels), (a.test.labels, b.test.labels))
    return a.classes == b.classes and all(torch.equal(x, y) and x.dtype == y.dtype for x, y in pairs)


class Kept:
    """A cached set whose builds are counted."""

    def __init__(self, root: Path) -> None:
        self.root, self.built, self.key = root, 0, "first"
        self.path = root / cache.FOLDER / "small.cache"

    def fetch(self, seed: int = 0) -> ImageDataset:
        return cache.fetch(self.root, "small", lambda: self.key, lambda: self._build(seed))

    def load(self, seed: int = 0) -> ImageDataset:
        return cache.load(self.root, "small", lambda: self.key, lambda: self._build(seed))

    def _build(self, seed: int) -> ImageDataset:
        self.built += 1
        return source(seed)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "home-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    (tmp_path / "data").mkdir()
    return Kept(tmp_path / "data")


def test_built_once_and_read_back(kept, home):
    assert same(kept.fetch(), source())
    assert same(kept.fetch(), source())
    assert kept.built == 1
    assert not home.exists()
    assert sorted(path.name for path in kept.path.parent.iterdir()) == ["small.cache", "small.lock"]


def test_within_a_process_a_set_is_read_once(kept, monkeypatch):
    reads = []
    read = cache._read
    monkeypatch.setattr(cache, "_read", lambda *words: reads.append(words) or read(*words))
    first = kept.load()
    assert kept.built == 1
    before = len(reads)
    assert kept.load() is first
    assert (kept.built, len(reads)) == (1, before)
    kept.key = "changed"  # the files are others now
    again = kept.load(seed=1)
    assert kept.built == 2
    assert same(again, source(1))


def test_of_two_sets_only_the_last_is_held(kept, tmp_path):
    (tmp_path / "other").mkdir()
    first, other = kept.load(), Kept(tmp_path / "other")
    gone = weakref.ref(first.train.pixels)
    del first
    assert same(other.load(seed=1), source(1))
    gc.collect()
    assert gone() is None
    assert same(kept.load(), source())


def test_built_again_when_the_files_changed(kept):
    kept.fetch()
    kept.key = "second"
    assert same(kept.fetch(seed=1), source(1))
    assert same(kept.fetch(), source(1))
    assert kept.built == 2


def _flip(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


class Trap:
    def __reduce__(self):
        return os.abort, ()  # unpickled, it ends the process


DAMAGES = {
    "nothing in it": lambda c: b"",
    "cut in the first line": lambda c: c[:10],
    "cut in the header": lambda c: c[:100],
    "cut in the arrays": lambda c: c[:-1],
    "goes on": lambda c: c + b"x",
    "first bit": lambda c: _flip(c, 0),
    "length": lambda c: c.replace(b"little ", b"little 9", 1),
    "header bit": lambda c: _flip(c, c.index(b"shape")),
    "class name": lambda c: c.replace(b"cat", b"cow"),
    "pixel bit": lambda c: _flip(c, len(c) // 2),
    "last bit": lambda c: _flip(c, -1),
    "a pickle": lambda c: pickle.dumps(Trap()),
    "text": lambda c: b"bnexp images\n",
    "other version": lambda c: c.replace(b"images 1", b"images 0", 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_built_again(kept, caplog, damage):
    kept.fetch()
    kept.path.write_bytes(DAMAGES[damage](kept.path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert same(kept.fetch(), source())
    assert kept.built == 2
    assert f"{kept.path} is damaged" in caplog.text
    caplog.clear()
    assert same(kept.fetch(), source())
    assert kept.built == 2
    assert not caplog.records


def test_a_folder_that_cannot_be_written_has_its_cache_in_the_users(kept, home):
    (kept.root / cache.FOLDER).write_text("in the way, even for the superuser")
    assert same(kept.fetch(), source())
    assert same(kept.fetch(), source())
    assert kept.built == 1
    assert len(list((home / "bnexp").glob("small-*.cache"))) == 1
    other = Kept(kept.root.parent)  # the same name for another folder is another file
    (other.root / cache.FOLDER).write_text("")
    assert same(other.fetch(seed=3), source(3))


def test_without_any_place_for_it_there_is_no_cache(kept, home):
    (kept.root / cache.FOLDER).write_text("")
    home.write_text("")
    assert same(kept.fetch(), source())
    assert same(kept.fetch(), source())
    assert kept.built == 2


def test_a_full_disk_costs_the_cache_alone(kept, monkeypatch, caplog):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert same(kept.fetch(), source())
    assert "could not be written (No space left on device)" in caplog.text
    assert [path.name for path in kept.path.parent.iterdir()] == ["small.lock"]


def test_what_a_killed_process_left_is_cleared(kept):
    kept.path.parent.mkdir()
    left = kept.path.with_name(".small.cache.0123.part")
    left.write_text("half")
    kept.fetch()
    assert not left.exists()


def test_a_failing_build_leaves_no_folder(tmp_path):
    def fail() -> ImageDataset:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cache.fetch(tmp_path / "new" / "data", "small", lambda: None, fail)
    assert not list(tmp_path.iterdir())


def test_the_key_is_taken_before_the_files_are_read(kept):
    def build() -> ImageDataset:
        kept.key = "changed meanwhile"
        return source()

    cache.fetch(kept.root, "small", lambda: kept.key, build)
    assert same(kept.fetch(seed=1), source(1))


BUILDER = """
import sys, time
from pathlib import Path
import torch
from bnexp.data import cache
from bnexp.data.images import Images, Source
root = Path(sys.argv[1])
(root / f"ready-{sys.argv[2]}").touch()
while len(list(root.glob("ready-*"))) < 2:
    time.sleep(0.01)
def build():
    with open(root / "builds", "a") as file:
        file.write("x")
    time.sleep(0.5)
    images = Images(torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4), torch.zeros(1, dtype=torch.int64))
    return Source(images, images, ("a", "b"))
print(cache.fetch(root, "small", lambda: "key", build).train.pixels.sum().item())
"""


def test_two_processes_at_once_build_once(tmp_path):
    commands = [[sys.executable, "-c", BUILDER, str(tmp_path), name] for name in "ab"]
    running = [
        subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for c in commands
    ]
    ended = [process.communicate(timeout=60) for process in running]
    assert ended == [("1128\n", "")] * 2
    assert (tmp_path / "builds").read_text() == "x"
