"""What a trained network needs to read an image and to name its answer; it travels with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from bnexp.data.batches import DataSplits, Normalization
from bnexp.errors import UserError, one_line


@dataclass(frozen=True)
class NetworkInput:
    """The network reads float32 (B, channels, image_size, image_size): ``(pixel / 255 - mean) / std``.

    Where the stored images have another size, they are resized afterwards.
    """

    channels: int
    stored_size: int  # pixels a side of the images of the data set
    image_size: int  # pixels a side of what the network reads
    mean: tuple[float, ...]  # of one channel for all, or of each
    std: tuple[float, ...]
    classes: tuple[str, ...]
    white: int = 255  # the value of white in files with 16 bits a channel, where the data set has some

    @property
    def resize(self) -> int | None:
        """``image_size`` where the stored images have another size."""
        return None if self.image_size == self.stored_size else self.image_size

    @classmethod
    def of_splits(cls, splits: DataSplits) -> NetworkInput:
        train = splits.train
        side = train.pixels.shape[-1]
        size = train.image_size
        return cls(train.in_channels, side, size, train.mean, train.std, splits.classes, splits.white)

    @classmethod
    def from_record(cls, record: object, origin: object) -> NetworkInput:
        """From what ``record`` gave. Raises UserError, naming ``origin``, where it is missing or damaged."""
        if record is None:
            raise UserError(
                f"{origin}: does not say what its network reads (mean, std, classes): it has not begun to"
                " train, or an earlier version of bnexp trained it"
            )
        try:
            assert isinstance(record, Mapping)
            values = {"white": 255, **record}  # runs of earlier versions have no white
            values = {field.name: values[field.name] for field in fields(cls)}
            mean, std = (tuple(map(float, values[name])) for name in ("mean", "std"))
            channels, stored, size = (values[name] for name in ("channels", "stored_size", "image_size"))
            assert all(type(number) is int and 1 <= number <= 4096 for number in (channels, stored, size))
            assert {len(mean), len(std)} <= {1, channels}
            assert all(value > 0 for value in std)
            assert isinstance(values["classes"], list | tuple)
            classes = tuple(map(str, values["classes"]))
            assert classes
            assert type(values["white"]) is int
            assert values["white"] in (255, *((1 << bits) - 1 for bits in range(9, 17)))
            return cls(channels, stored, size, mean, std, classes, values["white"])
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise UserError(one_line(f"{origin}: the input of its network is damaged ({record})")) from error

    def record(self) -> dict[str, Any]:
        """As plain values, for summary.json, a checkpoint and the metadata of an export."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def normalization(self) -> Normalization:
        """From uint8 (B, C, stored_size, stored_size) to what the network reads, on the CPU."""
        return Normalization.create(
            self.mean, self.std, self.channels, self.stored_size, self.resize, torch.device("cpu"),
            torch.contiguous_format,
        )  # fmt: skip
