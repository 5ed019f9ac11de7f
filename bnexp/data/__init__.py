"""Data sets: from files to the batches that a network is trained on."""

from bnexp.data.batches import Batch, DataSplits, Split, channel_statistics
from bnexp.data.datasets import load_dataset
from bnexp.data.images import ImageDataset, Images
from bnexp.data.splits import test_indices, train_val_indices

__all__ = [
    "Batch",
    "DataSplits",
    "ImageDataset",
    "Images",
    "Split",
    "channel_statistics",
    "load_dataset",
    "test_indices",
    "train_val_indices",
]
