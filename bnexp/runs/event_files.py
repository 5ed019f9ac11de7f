"""Truncates the TensorBoard event files of a resumed run to what its checkpoint contains."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bnexp.files import write_atomically

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

STEP_LOSS = "train/step_loss"
PROBES = "probes/"  # the position of these tags and of STEP_LOSS is a step; that of all others is an epoch


def truncate_events(folder: Path, *, epoch: int, step: int, tags: Collection[str]) -> None:
    """Rewrites each event file in ``folder`` without what was written after ``epoch`` and ``step``.

    Histograms stay, and scalars if their tag is in ``tags``. Events at step 0 (texts, the layout, HParams)
    are removed: a resumed run writes them again. A last record that is incomplete is removed too.
    """
    from tensorboard.summary.writer.record_writer import RecordWriter

    def is_in_checkpoint(event: Event) -> bool:
        if not event.HasField("summary"):
            return True
        values = event.summary.value
        if any(value.tag.startswith(PROBES) for value in values):
            return step > 0 and event.step <= step  # a run without a step measures its start again
        last = step if any(value.tag == STEP_LOSS for value in values) else epoch
        return 0 < event.step <= last and all(
            value.HasField("histo") or value.tag in tags for value in values
        )

    for path in sorted(folder.glob("events.out.tfevents.*")):
        records = [event.SerializeToString() for event in _read(path) if is_in_checkpoint(event)]

        def write(file: object, records: list[bytes] = records) -> None:
            writer = RecordWriter(file)
            for record in records:
                writer.write(record)

        write_atomically(path, write)


def _read(path: Path) -> Iterator[Event]:
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    from tensorboard.compat import tf

    try:
        yield from LegacyEventFileLoader(str(path)).Load()
    except tf.errors.DataLossError:  # a damaged record: the start of the next one is unknown
        return
