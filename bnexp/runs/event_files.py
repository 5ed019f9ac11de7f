"""TensorBoard's event files of a run that goes on: what lies after its checkpoint is taken out."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bnexp.files import write_atomically

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

STEP_LOSS = "train/step_loss"  # the one tag that counts in steps; all others count in epochs


def truncate_events(folder: Path, *, epoch: int, step: int, tags: Collection[str]) -> None:
    """Rewrites each event file in ``folder`` with what belongs to the first epochs and steps, so many.

    Of the scalars the ``tags`` are kept. What stands at step 0 (texts, the layout, HParams) goes: a run that
    goes on writes it again. So does a last record that was cut short.
    """
    from tensorboard.summary.writer.record_writer import RecordWriter

    def kept(event: Event) -> bool:
        if not event.HasField("summary"):
            return True
        last = step if any(value.tag == STEP_LOSS for value in event.summary.value) else epoch
        wanted = all(value.HasField("histo") or value.tag in tags for value in event.summary.value)
        return 0 < event.step <= last and wanted

    for path in sorted(folder.glob("events.out.tfevents.*")):
        records = [event.SerializeToString() for event in _read(path) if kept(event)]

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
    except tf.errors.DataLossError:  # a damaged record: what follows it cannot be found
        return
