"""One split of a data set on the device, and the batches that a network reads from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bnexp.data import augment as augmentation
from bnexp.data.images import Images
from bnexp.errors import UserError, bad_value
from bnexp.seeding import generator

# Several batches are gathered and normalised in one go and handed out as views. On a CPU this saves a third
# of their cost while the floats still fit the cache. On a GPU it saves most of the kernel launches.
CHUNK_BYTES = {"cpu": 2 << 20}
CHUNK_BYTES_OF_OTHER_DEVICES = 64 << 20
# A split that is evaluated after each epoch keeps its normalised floats if they need at most this much:
# MNIST's test set does. Computing the floats again would take a sixth of the time of evaluating an MLP.
FLOAT_CACHE_BYTES = 32 << 20

Numbers = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Order:
    """The order of one epoch: which image comes at each of its n positions, and how it is augmented there."""

    rows: Tensor  # int64 (n,), the row of each image in the stored images
    labels: Tensor  # int64 (n,)
    draws: augmentation.Draws | None

    def copy_(self, other: Order) -> None:
        """Copies the values of an equally long order into the memory of this one."""
        self.rows.copy_(other.rows)
        self.labels.copy_(other.labels)
        if self.draws is not None and other.draws is not None:
            self.draws.copy_(other.draws)


@dataclass(frozen=True, eq=False)
class Normalization:
    """From uint8 pixels to the floats that a network reads: ``pixels * scale + shift``, then the resize.

    ``scale`` and ``shift`` are float32 (1, C, 1, 1).
    """

    scale: Tensor
    shift: Tensor
    size: int  # pixels a side, afterwards
    resizes: bool
    shrinks: bool
    memory_format: torch.memory_format

    @classmethod
    def create(
        cls,
        mean: Sequence[float],
        std: Sequence[float],
        channels: int,
        side: int,
        resize: int | None,
        device: torch.device,
        memory_format: torch.memory_format,
    ) -> Normalization:
        """For images of ``side`` pixels; raises UserError as Split does."""
        mean_tensor = _per_channel("mean", mean, channels)
        std_tensor = _per_channel("std", std, channels)
        if not (std_tensor > 0).all():
            raise UserError("dataset.std=auto: a channel has one value in every training pixel; give a std")
        size = resize or side
        # One product and one sum instead of three operations; differs from float64 by at most 1e-6.
        scale = (1 / (255 * std_tensor)).float().view(1, -1, 1, 1).to(device)
        shift = (-mean_tensor / std_tensor).float().view(1, -1, 1, 1).to(device)
        return cls(scale, shift, size, size != side, size < side, memory_format)

    @classmethod
    def side_by_side(
        cls, normalizations: Sequence[Normalization], memory_format: torch.memory_format
    ) -> Normalization:
        """For images whose channels are those of several: (1, R·C, 1, 1)."""
        scale = torch.cat([part.scale for part in normalizations], 1)
        shift = torch.cat([part.shift for part in normalizations], 1)
        return replace(normalizations[0], scale=scale, shift=shift, memory_format=memory_format)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to normalised float32 (B, C, S, S); always new memory."""
        # Two passes in place are faster than addcmul, which converts uint8 slowly on a CPU.
        floats = images.to(torch.float32).mul_(self.scale).add_(self.shift)
        if self.resizes:  # resize weights sum to 1, so normalising first gives the same and is cheaper
            size = (self.size, self.size)
            floats = F.interpolate(floats, size, mode="bilinear", align_corners=False, antialias=self.shrinks)
        # The memory format changes last: broadcasting over innermost channels is ten times slower on a CPU.
        return floats.contiguous(memory_format=self.memory_format)


class Split:
    """One split of a data set on the device.

    Its batches are (images, labels). Images are float32 (B, C, S, S), ``(pixel / 255 - mean) / std`` per
    channel; labels are int64 (B,). Nothing in a loop over them waits for the device. Flips and crops act on
    the stored images: ``crop_padding`` counts pixels before ``resize``, and the padding is black. ``resize``
    is bilinear (align_corners=False). Where it shrinks it is antialiased, as in torchvision. Its result is
    not rounded to whole pixel values.

    ``index`` (int64, rows of ``images``) picks the split without a copy of its pixels: train and val share
    one tensor, also on a GPU if ``images`` were moved there first (``Images.to``).
    Raises UserError if ``mean`` or ``std`` has neither one entry nor one per channel, or if a std is 0.
    """

    def __init__(
        self,
        images: Images,
        device: torch.device,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        resize: int | None = None,
        index: Tensor | None = None,
        augment: tuple[str, ...] = (),
        crop_padding: int = 4,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.in_channels, side = images.pixels.shape[1:3]
        self.image_size = resize or side
        self.mean, self.std = tuple(mean), tuple(std)
        self.normalize = Normalization.create(
            mean, std, self.in_channels, side, resize, device, memory_format
        )
        images = images.to(device)
        self.pixels = images.pixels  # uint8, all rows of ``images``
        self.index = None if index is None else index.to(device)
        self.labels = images.labels if self.index is None else images.labels[self.index]  # (N,)
        self._augment = augment
        self._crop_padding = crop_padding
        self.device = device
        self._float_cache: Tensor | None = None  # the whole split as floats, in stored order
        self._passes_in_order = 0

    def __len__(self) -> int:
        return len(self.labels)

    def steps(self, batch_size: int) -> int:
        """The number of batches in an epoch, including the last, smaller one."""
        return -(-len(self) // batch_size)

    def epoch(self, batch_size: int, seed: int, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from batch number ``first`` on; together they hold every image once.

        Order and augmentation depend on ``seed`` and ``epoch`` alone.
        """
        order = self.order(seed, epoch)
        chunk = ChunkReader(self, order, batch_size)
        for start in range(first * batch_size, len(self), batch_size):
            yield Batch(order, start, min(batch_size, len(self) - start), chunk)

    def order(self, seed: int, epoch: int) -> Order:
        """The order and the augmentation of this epoch, on the device."""
        permutation = torch.randperm(len(self), generator=generator(seed, "order", epoch)).to(self.device)
        draws = None
        if self._augment:
            stream = generator(seed, "augment", epoch)
            draws = augmentation.draw(self._augment, len(self), self._crop_padding, stream, self.device)
        rows = permutation if self.index is None else self.index.index_select(0, permutation)
        return Order(rows, self.labels.index_select(0, permutation), draws)

    def gather(self, order: Order, positions: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, S, S) and labels (B,) at ``positions`` of ``order``: a range, or int64 (B,)."""
        images = self.pixels.index_select(0, order.rows[positions])
        if order.draws is not None:
            images = order.draws.apply(images, positions)
        return self.normalize(images), order.labels[positions]

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """``count`` images (all if there are fewer), evenly spread over the stored order, not augmented."""
        count = min(count, len(self))
        positions = torch.arange(count, device=self.device) * len(self) // count
        rows = positions if self.index is None else self.index[positions]
        return self.gather(Order(rows, self.labels[positions], None), slice(None))

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once in stored order, without augmentation. The tensors must not be changed."""
        self._passes_in_order += 1
        is_small = self._float_bytes(len(self)) <= FLOAT_CACHE_BYTES
        if self._float_cache is None and self._passes_in_order > 1 and is_small:
            with torch.inference_mode(False):  # a later reader may need gradients
                self._float_cache = self.normalize(self._stored(slice(None)))
        chunk_size = self.chunk_size(batch_size)
        for start in range(0, len(self), chunk_size):
            rows = slice(start, start + chunk_size)
            cache = self._float_cache
            images = self.normalize(self._stored(rows)) if cache is None else cache[rows]
            yield from zip(images.split(batch_size), self.labels[rows].split(batch_size), strict=True)

    def chunk_size(self, batch_size: int) -> int:
        """The number of images that are gathered in one go: as many whole batches as fit, at least one."""
        return chunk_size(batch_size, self._float_bytes(batch_size), self.device)

    def _stored(self, rows: slice) -> Tensor:
        """The uint8 pixels of these rows of the split."""
        index = self.index
        return self.pixels[rows] if index is None else self.pixels.index_select(0, index[rows])

    def _float_bytes(self, count: int) -> int:
        """Bytes of ``count`` images as floats."""
        return 4 * count * self.in_channels * self.image_size**2


class GatheredSplit(Protocol):
    """What the reader of chunks needs: a split of one run, or of several."""

    def chunk_size(self, batch_size: int) -> int: ...

    def gather(self, order: Order, positions: slice) -> tuple[Tensor, Tensor]: ...


class ChunkReader:
    """The batches that were gathered together; the newest chunk replaces the one before."""

    def __init__(self, split: GatheredSplit, order: Order, batch_size: int) -> None:
        self.split, self.order, self.batch_size = split, order, batch_size
        self.size = split.chunk_size(batch_size)
        self.start = -1
        self.batches: list[tuple[Tensor, Tensor]] = []

    def batch(self, start: int) -> tuple[Tensor, Tensor]:
        """Images and labels of the batch that begins at position ``start`` of the order."""
        chunk_start = start - start % self.size
        if chunk_start != self.start:
            self.batches = []  # freed before the next chunk needs its memory
            images, labels = self.split.gather(self.order, slice(chunk_start, chunk_start + self.size))
            self.start = chunk_start
            self.batches = list(
                zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True)
            )
        return self.batches[(start - chunk_start) // self.batch_size]


class Batch:
    """A batch of an epoch: ``size`` images from position ``start`` of ``order`` on.

    A plain step reads its tensors. A CUDA graph gathers them itself and needs the positions alone.
    """

    __slots__ = ("_chunk", "order", "size", "start")

    def __init__(self, order: Order, start: int, size: int, chunk: ChunkReader) -> None:
        self.order, self.start, self.size, self._chunk = order, start, size, chunk

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Images float32 (B, C, S, S) and labels int64 (B,), on the device."""
        return self._chunk.batch(self.start)


@dataclass(frozen=True)
class DataSplits:
    """The three splits on the device; ``val`` is None where nothing was held out."""

    train: Split
    val: Split | None
    test: Split
    classes: tuple[str, ...]
    white: int = 255  # as ImageDataset.white

    @property
    def counts(self) -> dict[str, int]:
        """The number of images in each split."""
        return {"train": len(self.train), "val": len(self.val or ()), "test": len(self.test)}

    @property
    def majority(self) -> float:
        """The share of the largest class in the test set: the accuracy of always predicting that class."""
        return int(self.test.labels.bincount().max()) / len(self.test)

    @property
    def watched(self) -> dict[str, Split]:
        """What is evaluated every epoch: val, or test where there is no val. Test then chooses nothing."""
        return {"test": self.test} if self.val is None else {"val": self.val}


def chunk_size(batch_size: int, batch_bytes: int, device: torch.device) -> int:
    """The images of as many whole batches of ``batch_bytes`` as are gathered in one go, at least one."""
    budget = CHUNK_BYTES.get(device.type, CHUNK_BYTES_OF_OTHER_DEVICES)
    return batch_size * max(1, budget // batch_bytes)


def channel_statistics(pixels: Tensor, index: Tensor | None = None) -> tuple[Numbers, Numbers]:
    """(mean, std) of each channel of ``pixels / 255``, of uint8 (N, C, H, W) or its rows in ``index``.

    Exact: the 256 pixel values are counted, so no float copy of the set is needed. std divides by the number
    of pixels.
    """
    channels = pixels.shape[1]
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    rows = torch.arange(len(pixels)) if index is None else index
    for indices in rows.to(pixels.device).split(1024):
        images = pixels.index_select(0, indices)
        for channel in range(channels):
            counts[channel] += torch.bincount(images[:, channel].reshape(-1), minlength=256).cpu()
    values = torch.arange(256, dtype=torch.float64) / 255
    weights = counts.double() / counts.sum(1, keepdim=True)
    mean = weights @ values  # (C,)
    std = (weights * (values - mean[:, None]).square()).sum(1).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())


def _per_channel(name: str, values: Sequence[float], channels: int) -> Tensor:
    if len(values) not in (1, channels):
        allowed = "one number" if channels == 1 else f"one number, or one for each of the {channels} channels"
        raise bad_value(f"dataset.{name}", list(values), f"must be {allowed}")
    return torch.tensor(values, dtype=torch.float64).expand(channels)
