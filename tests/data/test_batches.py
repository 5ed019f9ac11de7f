"""Split: their values, their order, and the memory that they take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from bnexp.data import Images, Split, augment, batches, channel_statistics
from bnexp.errors import UserError
from bnexp.seeding import generator

CPU = torch.device("cpu")
MEAN, STD = (0.2, 0.5, 0.7), (0.3, 0.1, 0.9)


def images(count: int = 100, channels: int = 3, side: int = 8) -> Images:
    """Each label is the image's own number, so that a batch tells which images it holds."""
    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, channels, side, side), generator=stream, dtype=torch.uint8)
    return Images(pixels, torch.arange(count))


def normalized(pixels: torch.Tensor) -> torch.Tensor:
    """``(pixel / 255 - mean) / std`` in float64."""
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (MEAN, STD))
    return (pixels.double() / 255 - mean) / std


def make_split(stored: Images, **keys) -> Split:
    return Split(stored, keys.pop("device", CPU), **({"mean": MEAN, "std": STD} | keys))


def epoch_tensors(split: Split, *args, **keys) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images and labels of each batch of an epoch."""
    return [batch.tensors() for batch in split.epoch(*args, **keys)]


def concatenate(tensors) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*tensors, strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.mark.parametrize("index", [None, torch.tensor([3, 5, 8, 70, 99])])
def test_in_order_gives_every_image_normalized(index):
    stored = images()
    split = make_split(stored, index=index)
    x, y = concatenate(split.in_order(16))
    expected = torch.arange(100) if index is None else index
    assert torch.equal(y, expected)
    assert x.dtype == torch.float32
    assert (x - normalized(stored.pixels[expected])).abs().max() < 2e-6


@pytest.mark.parametrize("batch_size", [1, 7, 32, 100, 1000])
def test_an_epoch_is_a_permutation(batch_size):
    stored = images()
    split = make_split(stored)
    batches = epoch_tensors(split, batch_size, seed=3, epoch=1)
    sizes = [len(y) for _, y in batches]
    assert len(batches) == split.steps(batch_size)
    assert sizes[:-1] == [min(batch_size, 100)] * (len(sizes) - 1)
    assert sum(sizes) == len(split) == 100
    x, y = concatenate(batches)
    assert torch.equal(y.sort().values, torch.arange(100))
    assert not torch.equal(y, torch.arange(100))
    assert (x - normalized(stored.pixels[y])).abs().max() < 2e-6


def test_batches_are_a_function_of_seed_and_epoch():
    split = make_split(images(), augment=("flip", "crop"))
    torch.manual_seed(1)
    first = concatenate(epoch_tensors(split, 10, seed=3, epoch=1))
    torch.manual_seed(2)
    for batch in split.epoch(32, seed=4, epoch=0):
        batch.tensors()
        torch.rand(3)
    state = torch.get_rng_state()
    second = concatenate(epoch_tensors(make_split(images(), augment=("flip", "crop")), 10, seed=3, epoch=1))
    assert torch.equal(state, torch.get_rng_state()), "the global generator is not touched"
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for seed, epoch in ((3, 2), (4, 1)):
        assert not torch.equal(concatenate(epoch_tensors(split, 10, seed, epoch))[1], first[1])


def test_the_order_is_the_same_for_every_batch_size_and_with_augmentation():
    order = concatenate(epoch_tensors(make_split(images()), 10, 3, 1))[1]
    assert torch.equal(concatenate(epoch_tensors(make_split(images()), 64, 3, 1))[1], order)
    assert torch.equal(
        concatenate(epoch_tensors(make_split(images(), augment=("crop",)), 10, 3, 1))[1], order
    )


def test_augmentation_follows_the_epochs_order(monkeypatch):
    monkeypatch.setattr("bnexp.data.batches.CHUNK_BYTES", {"cpu": 50_000})  # several chunks in an epoch
    stored = images()
    split = make_split(stored, augment=("flip", "crop"), crop_padding=2)
    x, y = concatenate(epoch_tensors(split, 8, seed=5, epoch=2))
    draws = augment.draw(("flip", "crop"), 100, 2, generator(5, "augment", 2), CPU)
    assert (x - normalized(draws.apply(stored.pixels[y], slice(None)))).abs().max() < 2e-6
    plain, _ = concatenate(split.in_order(8))
    assert (plain - normalized(stored.pixels)).abs().max() < 2e-6


def test_index_picks_the_split_and_its_labels():
    index = torch.arange(0, 100, 3)
    split = make_split(images(), index=index)
    assert len(split) == 34
    assert torch.equal(split.labels, index)
    assert torch.equal(concatenate(epoch_tensors(split, 8, 0, 0))[1].sort().values, index)


@pytest.mark.parametrize("side", [5, 12, 8])
def test_resize_is_bilinear_and_antialiased_where_it_shrinks(side):
    stored = images()
    split = make_split(stored, resize=side)
    x, _ = concatenate(split.in_order(16))
    expected = F.interpolate(normalized(stored.pixels), (side, side), mode="bilinear", antialias=True)
    assert split.image_size == side
    assert x.shape == (100, 3, side, side)
    assert (x - expected).abs().max() < 5e-6


@pytest.mark.parametrize("resize", [None, 12])
def test_channels_last(resize):
    plain, last = (
        make_split(images(), resize=resize, memory_format=m)
        for m in (torch.contiguous_format, torch.channels_last)
    )
    for (x, _), (same, _) in zip(epoch_tensors(plain, 16, 0, 0), epoch_tensors(last, 16, 0, 0), strict=True):
        assert same.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(x, same)


def test_changing_a_batch_changes_no_later_batch():
    split = make_split(images())
    copies = []
    for x, _ in epoch_tensors(split, 16, 0, 0):
        copies.append(x.clone())
        x.zero_()
    second_pass = [x for x, _ in epoch_tensors(split, 16, 0, 0)]
    assert all(torch.equal(a, b) for a, b in zip(copies, second_pass, strict=True))


@pytest.mark.parametrize("index", [None, torch.arange(49, -1, -3)])
def test_the_second_pass_in_order_caches_the_floats(index, monkeypatch):
    split = make_split(images(), index=index)
    first = [x.clone() for x, _ in split.in_order(16)]
    counts = []
    normalize = split.normalize
    monkeypatch.setattr(split, "normalize", lambda pixels: counts.append(len(pixels)) or normalize(pixels))
    for size in (16, 16, 7):
        assert torch.equal(torch.cat([x for x, _ in split.in_order(size)]), torch.cat(first))
    assert counts == [len(split)], "normalised once, the whole split"


def test_cached_floats_allow_gradients_even_if_inference_mode_made_them():
    split = make_split(images())
    with torch.inference_mode():
        for _ in range(2):
            list(split.in_order(16))
    assert split._float_cache is not None
    assert not next(split.in_order(16))[0].is_inference()


def test_a_large_split_is_not_cached(monkeypatch):
    monkeypatch.setattr(batches, "FLOAT_CACHE_BYTES", 100)
    split = make_split(images())
    for _ in range(3):
        list(split.in_order(16))
    assert split._float_cache is None


@pytest.mark.parametrize("keys", [{}, {"resize": 12, "augment": ("flip", "crop")}])
def test_no_batch_waits_for_the_device(keys):
    """A meta tensor has no values: whatever read one on the host would raise."""
    split = make_split(images(), device=torch.device("meta"), index=torch.arange(50), **keys)
    shapes = [(tuple(x.shape), x.device.type, tuple(y.shape)) for x, y in epoch_tensors(split, 20, 0, 0)]
    side = keys.get("resize", 8)
    assert shapes == [((n, 3, side, side), "meta", (n,)) for n in (20, 20, 10)]
    assert len(list(split.in_order(20))) == 3


@pytest.mark.parametrize("name", ["mean", "std"])
def test_one_number_serves_every_channel_and_two_do_not(name):
    stored = images()
    x, _ = concatenate(make_split(stored, mean=(0.5,), std=(0.5,)).in_order(100))
    assert (x - (stored.pixels.double() / 255 - 0.5) / 0.5).abs().max() < 2e-6
    with pytest.raises(UserError, match=rf"^dataset\.{name}=\[0\.5, 0\.5\]: .*each of the 3 channels$"):
        make_split(stored, **{name: (0.5, 0.5)})
    with pytest.raises(UserError, match=rf"^dataset\.{name}=\[0\.5, 0\.5\]: must be one number$"):
        make_split(images(channels=1), **({"mean": (0.5,), "std": (0.5,)} | {name: (0.5, 0.5)}))


def test_channel_statistics_against_float64():
    stored = images(3000)
    index = torch.arange(0, 3000, 2)
    for rows in (None, index):
        mean, std = channel_statistics(stored.pixels, rows)
        values = (stored.pixels if rows is None else stored.pixels[rows]).double() / 255
        assert torch.allclose(torch.tensor(mean, dtype=torch.float64), values.mean((0, 2, 3)), atol=1e-12)
        expected = values.std((0, 2, 3), correction=0)
        assert torch.allclose(torch.tensor(std, dtype=torch.float64), expected, atol=1e-12)


def test_a_channel_of_one_value_is_an_error():
    flat = Images(torch.full((4, 1, 2, 2), 7, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    mean, std = channel_statistics(flat.pixels)
    assert (mean, std) == ((pytest.approx(7 / 255),), (0.0,))
    with pytest.raises(UserError, match=r"^dataset\.std=auto: "):
        make_split(flat, mean=mean, std=std)


MEMORY = """
import sys, torch
from bnexp.data import Split, load_dataset
from bnexp.data.splits import holdout
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
load_dataset("mnist", sys.argv[1], None)  # makes the cache where there is none
open("/proc/self/clear_refs", "w").write("5")
memory_before = peak()
dataset = load_dataset("mnist", sys.argv[1], None)
train_index, val_index = holdout(dataset.train.labels, 6000, torch.Generator().manual_seed(0))
keys = dict(device=torch.device("cpu"), mean=(0.5,), std=(0.5,))
train, val = (Split(dataset.train, index=index, **keys) for index in (train_index, val_index))
for batch in train.epoch(64, 0, 0):
    batch.tensors()
for split in (val, Split(dataset.test, **keys)):
    for images, labels in split.in_order(128):
        pass
print((peak() - memory_before) / (70000 * 784))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
def test_train_val_and_test_take_the_images_memory_once(data_dir, tmp_path):
    (tmp_path / "MNIST").symlink_to(Path(data_dir, "MNIST"))
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert float(done.stdout) < 1.5


def test_an_epoch_can_begin_at_a_later_batch(monkeypatch):
    monkeypatch.setattr("bnexp.data.batches.CHUNK_BYTES", {"cpu": 50_000})  # several chunks in an epoch
    split = make_split(images(), augment=("flip", "crop"))
    expected = epoch_tensors(split, 8, 3, 1)[5:]
    later = epoch_tensors(split, 8, 3, 1, first=5)
    assert len(later) == len(expected) == 8
    for tensors, expected_tensors in zip(later, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tensors, expected_tensors, strict=True))
