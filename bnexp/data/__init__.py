"""Images, from where they come to the batches a network reads."""

from bnexp.data.batches import Batches, channel_statistics
from bnexp.data.images import Images, Source
from bnexp.data.sources import load
from bnexp.data.splits import pick_test, split

__all__ = ["Batches", "Images", "Source", "channel_statistics", "load", "pick_test", "split"]
