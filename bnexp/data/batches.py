"""Batches made on the device, from uint8 to what a network reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bnexp.data import augment as augmentation
from bnexp.data.images import Images
from bnexp.errors import UserError, bad_value
from bnexp.seeding import generator

# Several batches are gathered and normalised in one go, then handed out as views. On a CPU that takes a third
# off their cost while the floats still fit its cache; on a GPU it saves most of the kernel launches.
CHUNK_BYTES = {"cpu": 2 << 20}
CHUNK_BYTES_ELSEWHERE = 64 << 20
# A split that is read in order more than once, as val or test after each epoch, is kept as it is read where
# it is no larger than this: MNIST's test set. Making its floats takes a sixth of evaluating an MLP.
KEPT_BYTES = 32 << 20

Numbers = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Order:
    """An epoch to come: which image stands at which of its n places, and what happens to it there."""

    rows: Tensor  # int64 (n,), positions in the stored images
    labels: Tensor  # int64 (n,)
    draws: augmentation.Draws | None

    def copy_(self, other: Order) -> None:
        """Takes over an order of as many places, in the memory of this one."""
        self.rows.copy_(other.rows)
        self.labels.copy_(other.labels)
        if self.draws is not None and other.draws is not None:
            self.draws.copy_(other.draws)


class Batches:
    """One split of a data set on the device, in batches (x, y).

    x is float32 (B, C, S, S), ``(pixel / 255 - mean) / std`` per channel; y is int64 (B,). Nothing in a loop
    over them waits for the device. Flips and crops act on the stored images: ``crop_padding`` counts pixels
    before ``resize``, and the padding is black. ``resize`` is bilinear (align_corners=False) and, as in
    torchvision, antialiased where it shrinks (where it enlarges that changes nothing); it rounds nothing.

    ``index`` (int64, positions in ``images``) picks the split, without a copy of its pixels: train and val
    share one tensor, on another device too if ``images`` were moved there first (``Images.to``).
    Raises UserError where ``mean`` or ``std`` have neither one entry nor one for each channel, or a std is 0.
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
        self._resizes = self.image_size != side
        self._shrinks = self.image_size < side
        centre = _per_channel("mean", mean, self.in_channels)
        spread = _per_channel("std", std, self.in_channels)
        if not (spread > 0).all():
            raise UserError("dataset.std=auto: a channel has one value in every training pixel; give a std")
        # Folded into one product and one sum; 1e-6 of the float64 value at most.
        self._scale = (1 / (255 * spread)).float().view(1, -1, 1, 1).to(device)
        self._shift = (-centre / spread).float().view(1, -1, 1, 1).to(device)
        images = images.to(device)
        self._pixels = images.pixels
        self._index = None if index is None else index.to(device)
        self.labels = images.labels if self._index is None else images.labels[self._index]  # (N,)
        self._augment = augment
        self._crop_padding = crop_padding
        self._memory_format = memory_format
        self._device = device
        self._kept: Tensor | None = None  # the whole split as read in order
        self._passes = 0

    def __len__(self) -> int:
        return len(self.labels)

    def steps(self, batch_size: int) -> int:
        """Batches in a pass, the last, smaller one included."""
        return -(-len(self) // batch_size)

    def epoch(self, batch_size: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in an order and an augmentation that depend on ``seed`` and ``epoch`` alone."""
        order = self.order(seed, epoch)
        chunk = self._chunk(batch_size)
        for start in range(0, len(self), chunk):
            x, y = self.take(order, slice(start, start + chunk))
            yield from zip(x.split(batch_size), y.split(batch_size), strict=True)

    def order(self, seed: int, epoch: int) -> Order:
        """The order and the augmentation of this epoch, on the device."""
        places = torch.randperm(len(self), generator=generator(seed, "order", epoch)).to(self._device)
        draws = None
        if self._augment:
            stream = generator(seed, "augment", epoch)
            draws = augmentation.draw(self._augment, len(self), self._crop_padding, stream, self._device)
        rows = places if self._index is None else self._index.index_select(0, places)
        return Order(rows, self.labels.index_select(0, places), draws)

    def take(self, order: Order, places: slice | Tensor) -> tuple[Tensor, Tensor]:
        """What stands at these places of ``order``, a range or int64 (B,): images and labels to train on."""
        images = self._pixels.index_select(0, order.rows[places])
        if order.draws is not None:
            images = order.draws.apply(images, places)
        return self._floats(images), order.labels[places]

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once as stored: no shuffling, no augmentation. To be read, not changed."""
        self._passes += 1
        if self._kept is None and self._passes > 1 and self._bytes(len(self)) <= KEPT_BYTES:
            with torch.inference_mode(False):  # whoever reads it next may want gradients
                self._kept = self._floats(self._stored(slice(None)))
        chunk = self._chunk(batch_size)
        for start in range(0, len(self), chunk):
            here = slice(start, start + chunk)
            x = self._floats(self._stored(here)) if self._kept is None else self._kept[here]
            yield from zip(x.split(batch_size), self.labels[here].split(batch_size), strict=True)

    def _stored(self, here: slice) -> Tensor:
        """The pixels at these places of the split."""
        index = self._index
        return self._pixels[here] if index is None else self._pixels.index_select(0, index[here])

    def _floats(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to the normalised float32 (B, C, S, S); always new memory."""
        # Two passes in place are faster than addcmul, which is slow at converting uint8 on a CPU.
        x = images.to(torch.float32).mul_(self._scale).add_(self._shift)
        if self._resizes:  # its weights sum to 1: it may come after normalising, which is cheaper while small
            size = (self.image_size, self.image_size)
            x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=self._shrinks)
        # Last, as broadcasting over channels that lie innermost takes ten times as long on a CPU.
        return x.contiguous(memory_format=self._memory_format)

    def _chunk(self, batch_size: int) -> int:
        """Images made in one go: as many whole batches as fit, one at least."""
        budget = CHUNK_BYTES.get(self._device.type, CHUNK_BYTES_ELSEWHERE)
        return batch_size * max(1, budget // self._bytes(batch_size))

    def _bytes(self, count: int) -> int:
        """Of so many images as a network reads them."""
        return 4 * count * self.in_channels * self.image_size**2


def channel_statistics(pixels: Tensor, index: Tensor | None = None) -> tuple[Numbers, Numbers]:
    """(mean, std) of each channel of ``pixels / 255``, of uint8 (N, C, H, W) or its rows in ``index``.

    Exact: the 256 values are counted, a part at a time, and no float copy of the set is made. std divides by
    the number of pixels.
    """
    channels = pixels.shape[1]
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    rows = torch.arange(len(pixels)) if index is None else index
    for part in rows.to(pixels.device).split(1024):
        images = pixels.index_select(0, part)
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
