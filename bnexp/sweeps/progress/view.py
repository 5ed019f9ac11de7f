"""The live view of a sweep: a line for each job that ends, and below them the jobs that run.

It knows the sweep's folder only, so it is the same for every launcher and for ``bnexp-watch``. Without a
terminal it prints the lines of ended jobs and nothing else.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bnexp.config.opened_files import ignore_this_thread
from bnexp.errors import UserError
from bnexp.sweeps.progress.status import (
    DIVERGED,
    FAILED,
    FINISHED,
    INTERRUPTED,
    KILLED,
    RUNNING,
    WAITING,
    JobStatus,
    SweepReader,
    SweepStatus,
)
from bnexp.sweeps.progress.time_left import epoch_times, format_duration, job_seconds_left, sweep_seconds_left

INTERVAL_S = 0.5
LOOK_SHARE = 0.02  # the largest share of the time that the looks take from a job in the same process
MAX_WIDTH = 120
WIDE, NARROW_BAR, WIDE_BAR = 60, 10, 20
MAX_EARLIER = 20  # jobs that had ended before the first look, on a terminal
COLORS = {FINISHED: "green", DIVERGED: "yellow", FAILED: "red", KILLED: "red", INTERRUPTED: "yellow"}


class SweepView:
    """Shows a sweep while the block runs; a thread reads the folder again and again.

    On a terminal, what the process prints or logs meanwhile appears above the running jobs. An error of the
    view never reaches the sweep.
    """

    def __init__(self, folder: Path, stream: TextIO | None = None) -> None:
        self.reader = SweepReader(folder)
        self.console = Console(file=stream or sys.stdout, highlight=False)
        self.is_live = self.console.is_terminal and not self.console.is_dumb_terminal
        self.status: SweepStatus | None = None  # of the newest look
        self._live = Live(
            console=self.console, auto_refresh=False, transient=True, redirect_stderr=_is_terminal(sys.stderr)
        )
        self._printed: set[str] = set()  # the folders of the jobs whose line was printed
        self._standings: tuple[str, ...] = ()  # as printed last
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep view", daemon=True)
        self._handlers: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    def __enter__(self) -> SweepView:
        if self.is_live:
            self._live.start()
            self._redirect_log()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(UserError, OSError):
            self.update()
        for handler, stream in self._handlers:
            handler.setStream(stream)
        if self.is_live:
            self._live.update(Text(""))
            self._live.stop()

    def update(self) -> None:
        """Looks at the folder once and shows what it sees. Raises UserError where it holds no sweep."""
        with self._lock:
            self._update()

    def _update(self) -> None:
        status = self.reader.read()
        is_first, self.status = self.status is None, status
        ended = [job for job in status.jobs if job.has_ended and job.job.folder not in self._printed]
        # A cluster may start an interrupted or lost job again: its line waits for the end of the view.
        ended = [job for job in ended if not job.job.skipped and (job.is_final or self._stop.is_set())]
        ended.sort(key=lambda job: job.changed)
        self._printed.update(job.job.folder for job in ended)
        if self.is_live and is_first and len(ended) > MAX_EARLIER:
            self.console.print(f"{len(ended) - MAX_EARLIER} jobs had ended before these:", style="dim")
            ended = ended[-MAX_EARLIER:]
        for job in ended:
            self.console.print(ended_line(job), soft_wrap=True)
        if status.plan.standings != self._standings:
            news = [line for line in status.plan.standings if line not in self._standings]
            self._standings = status.plan.standings
            for standing in news:
                self.console.print(Text(standing, style="bold"), soft_wrap=True)
        if self.is_live:
            width, height = self.console.size
            self._live.update(render_status(status, min(width, MAX_WIDTH) - 1, height), refresh=True)

    def _run(self) -> None:
        ignore_this_thread()  # a job may be trained in this process
        while not self._stop.is_set():
            start = time.perf_counter()
            with suppress(UserError, OSError):  # before the plan is written, or the folder has gone
                self.update()
            cost = time.perf_counter() - start
            self._stop.wait(max(INTERVAL_S, cost / LOOK_SHARE))

    def _redirect_log(self) -> None:
        """Lets log lines appear above the rows: Live has replaced sys.stdout and sys.stderr for ``print``."""
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                stream = handler.stream
                if _is_terminal(stream):
                    self._handlers.append((handler, stream))
                    handler.setStream(sys.stdout)


def ended_line(job: JobStatus) -> Text:
    """``model.norm=batch seed=0 | test 97.35 % | 3.2 s``, or why there is no accuracy."""
    results = {
        DIVERGED: f"diverged in epoch {job.epoch + 1}",
        FAILED: f"failed: {job.error}",
        INTERRUPTED: f"interrupted in epoch {job.epoch + 1}",
        KILLED: f"lost: its process was killed in epoch {job.epoch + 1}",
    }
    result = results.get(job.state) or f"test {percent(job.test_accuracy)}"
    line = Text(f"{job.job.label} | ").append(result, style=COLORS.get(job.state, ""))
    return line if job.seconds is None else line.append(f" | {seconds_text(job.seconds)}")


def render_status(status: SweepStatus, width: int, height: int) -> Group:
    """The running jobs, one row each, and the counts; at most ``height`` - 1 lines of ``width`` columns."""
    footer = Text("\n".join([*status.plan.standings, counts_text(status)]))
    lines = footer.plain.split("\n")
    footer_lines = sum(-(-len(line) // max(1, width)) for line in lines) + 1  # a break may need one more
    running = status.running()
    room = max(1, height - footer_lines - 2)
    if len(running) > room:
        footer = Text(f"and {len(running) - room} more running\n").append(footer)
    return Group(_rows(status, running[:room], width), footer)


def _rows(status: SweepStatus, running: Sequence[JobStatus], width: int) -> Table:
    epoch_time = epoch_times(status)
    cells = [_cells(job, job.epoch_s or epoch_time(job.job), status.time) for job in running]
    other_widths = [max((len(row[column]) for row in cells), default=0) for column in range(3)]
    bar_width = 0 if width < WIDE else NARROW_BAR if width < MAX_WIDTH - 1 else WIDE_BAR
    gaps = 2 * (3 + (bar_width > 0))
    label_width = max(8, width - sum(other_widths) - bar_width - gaps)
    labels = [shorten_label(job.job.label, label_width) for job in running]
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=max(map(len, labels), default=0), no_wrap=True)
    if bar_width:
        table.add_column(width=bar_width)
    for column_width in other_widths:
        table.add_column(width=column_width, justify="right", no_wrap=True)
    for job, label, row in zip(running, labels, cells, strict=True):
        bar = [ProgressBar(total=max(1, job.epochs), completed=job.epoch)] if bar_width else []
        table.add_row(Text(label), *bar, *map(Text, row))
    return table


def _cells(job: JobStatus, epoch_s: float | None, now: float) -> list[str]:
    """Epoch, accuracy and time left of a running job."""
    left = job_seconds_left(job, epoch_s, now)
    return [
        f"{job.epoch}/{job.epochs or '?'}",
        "" if job.accuracy is None else percent(job.accuracy),
        "" if left is None else format_duration(left),
    ]


def counts_text(status: SweepStatus) -> str:
    """``12 of 74 done (3 before), 2 running, 59 waiting, 1 failed | about 3:20 left``."""
    counts = status.counts
    details = [f"{status.skipped} before"] * (status.skipped > 0)
    details += [f"{counts[DIVERGED]} diverged"] * (counts[DIVERGED] > 0)
    texts = [f"{status.done} of {len(status.jobs)} done" + (f" ({', '.join(details)})" if details else "")]
    states = (RUNNING, WAITING, FAILED, INTERRUPTED, KILLED)
    texts += [f"{counts[state]} {state}" for state in states if counts[state]]
    left = sweep_seconds_left(status) if counts[RUNNING] else None
    return ", ".join(texts) + ("" if left is None else f" | about {format_duration(left)} left")


def shorten_label(label: str, width: int) -> str:
    """``label`` in at most ``width`` characters: without the groups of its keys, then cut in the middle."""
    if len(label) <= width:
        return label
    assignments = [text.partition("=") for text in label.split(" ")]
    label = " ".join(key.rpartition(".")[2] + equals + value for key, equals, value in assignments)
    if len(label) <= width:
        return label
    end = (width - 1) // 2
    return label[: width - 1 - end] + "…" + (label[-end:] if end else "")


def percent(accuracy: float | None) -> str:
    return "accuracy unknown" if accuracy is None else f"{100 * accuracy:.2f} %"


def seconds_text(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else format_duration(seconds)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return os.isatty(stream.fileno())
    except (OSError, ValueError):  # a stream without a descriptor, or closed
        return False
