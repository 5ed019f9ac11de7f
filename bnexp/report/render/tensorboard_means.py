"""For TensorBoard: a run for each group with the mean of its runs' curves, and charts of mean and band.

The folder ``means`` of a comparison holds one folder of events for each group. The tags are those of the
runs, so that means and runs share a chart. Tags with the low and the high end of the band begin with
``variation``: TensorBoard sorts them behind all others.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bnexp.files import write_atomically
from bnexp.report.analysis.curves import band
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.read.runs import Run

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

MEANS, PICTURES = "means", "measurements"  # folders
TAGS = tuple(f"{split}/{name}" for name in ("accuracy", "loss") for split in ("val", "test", "train"))
CATEGORY = "bnexp: mean of each group, with its band"  # in the tab Custom Scalars
SUFFIX = ".means"  # of bnexp's own event files in the folder
MAX_NAME = 80  # characters of a folder's name


def write_means(verdict: Verdict, folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Replaces the runs of means in ``folder``; nothing is written where the runs wrote no events either.

    ``pictures`` (PNG, by name) are shown in the tab Images, as those of a further run.

    Each file is new as a whole and has a new name: a TensorBoard that is running reads it, and leaves out the
    older points of the same epochs.
    """
    means = folder / MEANS
    old_files = list(means.glob(f"*/events.out.tfevents.*{SUFFIX}"))
    new_files = []
    if any(run.settings.get("tracking.tensorboard") for run in verdict.runs):
        now = time.time()
        groups = [summary.group for summary in verdict.summaries]
        for name, group in zip(_folder_names(group.name for group in groups), groups, strict=True):
            path = means / name / f"events.out.tfevents.{now:.0f}{SUFFIX}"
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_file(path, _events(group.runs, now))
            new_files.append(path)
        if pictures:
            path = means / PICTURES / f"events.out.tfevents.{now:.0f}{SUFFIX}"
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_file(path, _picture_events(pictures, now))
            new_files.append(path)
    for path in {*old_files} - {*new_files}:
        path.unlink()
        with suppress(OSError):  # another file is in it
            path.parent.rmdir()


def _folder_names(names: Iterable[str]) -> Iterator[str]:
    """The groups' names as names of folders, all different."""
    counts: dict[str, int] = {}
    for name in names:
        text = re.sub(r"[^\w.,=+-]+", " ", name).strip(" .")[:MAX_NAME] or "group"
        counts[text] = counts.get(text, 0) + 1
        yield text if counts[text] == 1 else f"{text} {counts[text]}"


def _events(runs: tuple[Run, ...], wall_time: float) -> Iterator[Event]:
    """The events of one file: its version, the layout of the charts, then the values of each epoch."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    yield Event(wall_time=wall_time, file_version="brain.Event:2")
    bands = {tag: mean for tag in TAGS if (mean := band(runs, tag)).mean}
    yield Event(wall_time=wall_time, step=0, summary=_layout_summary(bands))
    epochs: dict[int, dict[str, float]] = {}
    for tag, mean in bands.items():
        for epoch, value, low, high in zip(mean.epochs, mean.mean, mean.low, mean.high, strict=True):
            low_tag, high_tag = _band_tags(tag)
            epochs.setdefault(int(epoch), {}).update({tag: value, low_tag: low, high_tag: high})
    for epoch, values in sorted(epochs.items()):
        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        yield Event(wall_time=wall_time, step=epoch, summary=Summary(value=scalars))


def _picture_events(pictures: Mapping[str, bytes], wall_time: float) -> Iterator[Event]:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    yield Event(wall_time=wall_time, file_version="brain.Event:2")
    for name, png in pictures.items():
        width, height = struct.unpack(">II", png[16:24])  # where a PNG file has them
        image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
        yield Event(
            wall_time=wall_time, step=0, summary=Summary(value=[Summary.Value(tag=name, image=image)])
        )


def _layout_summary(tags: Iterable[str]) -> Summary:
    """The layout as TensorBoard's plugin reads it; the plugin's own function for this needs TensorFlow."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG, create_summary_metadata

    tensor = TensorProto(dtype=DT_STRING, string_val=[_layout(tags).SerializeToString()])
    metadata = create_summary_metadata()
    return Summary(value=[Summary.Value(tag=CONFIG_SUMMARY_TAG, tensor=tensor, metadata=metadata)])


def _layout(tags: Iterable[str]) -> Layout:
    """A chart of mean and band for each tag."""
    from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MarginChartContent

    charts = []
    for tag in tags:
        low, high = _band_tags(tag)
        series = MarginChartContent.Series(value=tag, lower=low, upper=high)
        charts.append(Chart(title=tag.replace("/", " "), margin=MarginChartContent(series=[series])))
    return Layout(category=[Category(title=CATEGORY, chart=charts)])


def _band_tags(tag: str) -> tuple[str, str]:
    return f"variation/{tag}/low", f"variation/{tag}/high"


def _write_file(path: Path, events: Iterable[Event]) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    def write(file: BinaryIO) -> None:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())

    write_atomically(path, write)
