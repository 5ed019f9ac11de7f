"""The batches of several runs that differ only in their seed, side by side.

All runs read one store of images. Each has its own split of it, its own order and its own augmentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bnexp.data.batches import Batch, ChunkReader, DataSplits, Normalization, Order, Split, chunk_size


class FusedSplit:
    """The same split of R runs: images (B, R·C, S, S), run after run in the channels; labels (B, R).

    ``splits`` have the same stored pixels and length. In an epoch, position p of each run's own order comes
    in the same step; a fused Order has rows and labels (n, R).
    """

    def __init__(
        self,
        splits: Sequence[Split],
        seeds: Sequence[int],
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        first = splits[0]
        assert all(split.pixels is first.pixels and len(split) == len(first) for split in splits)
        self.splits, self.seeds, self.device = tuple(splits), tuple(seeds), first.device
        self.image_size = first.image_size
        self.labels = torch.stack([split.labels for split in splits], 1)  # (N, R)
        self._normalize = Normalization.side_by_side([split.normalize for split in splits], memory_format)
        self._has_same_images = all(_has_same_images(first, split) for split in splits[1:])

    def __len__(self) -> int:
        """The number of images of each run."""
        return len(self.labels)

    def steps(self, batch_size: int) -> int:
        return self.splits[0].steps(batch_size)

    def epoch(self, batch_size: int, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number ``first`` on, each run's as its seed alone says."""
        order = self.order(epoch)
        chunk = ChunkReader(self, order, batch_size)
        for start in range(first * batch_size, len(self), batch_size):
            yield Batch(order, start, min(batch_size, len(self) - start), chunk)

    def order(self, epoch: int) -> Order:
        orders = [split.order(seed, epoch) for split, seed in zip(self.splits, self.seeds, strict=True)]
        draws = [order.draws for order in orders if order.draws is not None]
        fused_draws = None
        if draws:
            fused_draws = replace(
                draws[0],
                flips=torch.stack([draw.flips for draw in draws], 1).flatten(),  # (n·R,), as gather's images
                top=torch.stack([draw.top for draw in draws], 1).flatten(),
                left=torch.stack([draw.left for draw in draws], 1).flatten(),
            )
        rows = torch.stack([order.rows for order in orders], 1)
        return Order(rows, torch.stack([order.labels for order in orders], 1), fused_draws)

    def gather(self, order: Order, positions: slice) -> tuple[Tensor, Tensor]:
        """Images (B, R·C, S, S) and labels (B, R) at ``positions`` of ``order``."""
        rows, replicas = order.rows[positions], len(self.splits)
        images = self.splits[0].pixels.index_select(0, rows.flatten())  # (B·R, C, H, W)
        if order.draws is not None:
            start = positions.start * replicas
            images = order.draws.apply(images, slice(start, start + len(images)))
        images = images.view(len(rows), -1, *images.shape[2:])  # (B, R·C, H, W)
        return self._normalize(images), order.labels[positions]

    def chunk_size(self, batch_size: int) -> int:
        """The images of each run that are gathered in one go."""
        channels = self._normalize.scale.shape[1]
        return chunk_size(batch_size, 4 * batch_size * channels * self.image_size**2, self.device)

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once in stored order. Where all runs have the same images: (B, C, S, S)."""
        if self._has_same_images:
            for images, labels in self.splits[0].in_order(batch_size):
                yield images, labels[:, None].expand(-1, len(self.splits))
            return
        # All positions of a split: its index, or every row where it has none.
        indices = [
            torch.arange(len(self), device=self.device) if split.index is None else split.index
            for split in self.splits
        ]
        order = Order(torch.stack(indices, 1), self.labels, None)
        for start in range(0, len(self), batch_size):
            yield self.gather(order, slice(start, start + batch_size))


def _has_same_images(first: Split, second: Split) -> bool:
    """Whether two splits of one store give a network the same pixels."""
    if first.index is None or second.index is None:
        same_index = first.index is second.index
    else:
        same_index = torch.equal(first.index, second.index)
    scales = torch.equal(first.normalize.scale, second.normalize.scale)
    return same_index and scales and torch.equal(first.normalize.shift, second.normalize.shift)


class FusedData:
    """The data of R runs, as DataSplits has them for one."""

    def __init__(
        self,
        data: Sequence[DataSplits],
        seeds: Sequence[int],
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.train = FusedSplit([splits.train for splits in data], seeds, memory_format)
        val = [splits.val for splits in data if splits.val is not None]
        self.val = FusedSplit(val, seeds, memory_format) if val else None
        self.test = FusedSplit([splits.test for splits in data], seeds, memory_format)
        self.classes = data[0].classes

    @property
    def watched(self) -> dict[str, FusedSplit]:
        """What is evaluated every epoch: val, or test where there is no val."""
        return {"test": self.test} if self.val is None else {"val": self.val}
