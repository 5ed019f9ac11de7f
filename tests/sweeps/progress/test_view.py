"""The live view of made sweeps, as text and in a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest
from rich.console import Console

from bnexp.config.opened_files import collect_opened_files
from bnexp.runs.lock import lock_folder
from bnexp.sweeps.plan_file import write_plan
from bnexp.sweeps.progress.status import SweepReader
from bnexp.sweeps.progress.view import SweepView, render_status, shorten_label
from helpers.sweep_folders import planned_jobs, write_job, write_made_plan

WATCH = [sys.executable, "-m", "bnexp.watch"]


@pytest.fixture
def sweep(tmp_path):
    """Two jobs run, six have ended in five ways, two wait."""
    jobs = planned_jobs()
    write_made_plan(tmp_path, jobs)
    now = time.time()
    write_job(tmp_path, jobs[0], accuracy=0.9735, total_s=3.2, changed=now - 40)
    write_job(tmp_path, jobs[1], status="diverged", epoch=2, error="the loss became nan", changed=now - 39)
    write_job(tmp_path, jobs[2], status="failed", epoch=0, error="RuntimeError: no", changed=now - 38)
    with ExitStack() as stack:
        for job in jobs[3:5]:
            stack.enter_context(lock_folder(write_job(tmp_path, job, status="running", epoch=2)))
        yield tmp_path


@pytest.mark.parametrize("width", [120, 80, 40])
def test_the_rows_fit_the_terminal(sweep, width):
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    console.print(render_status(SweepReader(sweep).read(), width - 1, 24))
    lines = stream.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) < width
    rows = [line for line in lines if "2/5" in line]
    assert len(rows) == 2
    assert all("97.00 %" in row and "seed=" in row for row in rows)
    assert "2 of 10 done (1 diverged), 2 running, 5 waiting, 1 failed" in " ".join(" ".join(lines).split())


def test_what_the_comparisons_stand_at_is_shown_once_and_kept_below_the_rows(tmp_path):
    jobs = planned_jobs()
    plan = write_made_plan(tmp_path, jobs)
    write_job(tmp_path, jobs[0])
    stream = io.StringIO()
    line = "batch vs none: +0.31 points, 5 of at most 40 seeds, undecided"
    with SweepView(tmp_path, stream) as view:
        view.update()
        write_plan(tmp_path, replace(plan, standings=(line, "40 seeds resolve about 0.4 points")))
        view.update()
        later = line.replace("5 of", "10 of")
        write_plan(tmp_path, replace(plan, standings=(later,)))
        view.update()
        view.update()
    lines = stream.getvalue().splitlines()
    assert "test 97.00 %" in lines[0]
    assert lines[1:] == [line, "40 seeds resolve about 0.4 points", later]
    stream = io.StringIO()
    Console(file=stream, width=80).print(render_status(SweepReader(tmp_path).read(), 79, 24))
    assert stream.getvalue().splitlines()[-2] == later


def test_more_running_jobs_than_lines_are_counted(tmp_path):
    jobs = planned_jobs(seeds=20)
    write_made_plan(tmp_path, jobs, jobs_at_once=40)
    with ExitStack() as stack:
        for job in jobs:
            stack.enter_context(lock_folder(write_job(tmp_path, job, status="running", epoch=1)))
        status = SweepReader(tmp_path).read()
    stream = io.StringIO()
    Console(file=stream, width=80).print(render_status(status, 79, 24))
    assert len(stream.getvalue().splitlines()) < 24
    assert "more running" in stream.getvalue()


def test_without_a_terminal_there_is_a_line_for_each_ended_job_and_nothing_else(sweep):
    stream = io.StringIO()
    with SweepView(sweep, stream):
        pass
    assert stream.getvalue().splitlines() == [
        "model.norm=none seed=0 | test 97.35 % | 3.2 s",
        "model.norm=batch seed=0 | diverged in epoch 3 | 2.0 s",
        "model.norm=none seed=1 | failed: RuntimeError: no | 0.0 s",
    ]


def test_what_the_view_reads_is_no_file_of_a_network_that_is_made_meanwhile(sweep):
    """A job that is trained in this process was refused later: another job's summary.json had changed."""
    view = SweepView(sweep, io.StringIO())
    deadline = time.monotonic() + 60
    with view, collect_opened_files("network") as files:
        view.status = None
        while view.status is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert view.status is not None
        assert files == set()


def test_a_long_label_keeps_its_end():
    label = "model.norm=batch_manual optimizer.lr=0.01 seed=12"
    assert shorten_label(label, 60) == label
    assert shorten_label(label, 40) == "norm=batch_manual lr=0.01 seed=12"
    assert shorten_label(label, 20) == "norm=batch…1 seed=12"


def set_size(descriptor: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def read_screen(descriptor: int, text: str, seconds: float = 20) -> str:
    """What a terminal receives until ``text`` appears."""
    os.set_blocking(descriptor, False)
    received, deadline = "", time.monotonic() + seconds
    while text not in received and time.monotonic() < deadline:
        try:
            received += os.read(descriptor, 65536).decode()
        except BlockingIOError:
            time.sleep(0.05)
    return received


def test_the_watch_in_a_terminal_survives_a_resize_and_ctrl_c_leaves_it(sweep):
    parent, child = pty.openpty()
    set_size(child, 80)
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    environment |= {"TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen([*WATCH, sweep], stdin=child, stdout=child, stderr=child, env=environment)
    screen = read_screen(parent, "waiting")
    assert "model.norm=none seed=0 | test 97.35 %" in screen
    assert "model.norm=batch seed=1" in screen.split("failed: RuntimeError")[1]
    assert "\x1b[3" not in screen  # no color
    set_size(child, 40)
    assert "norm=batch seed=1  2/5" in read_screen(parent, "norm=batch seed=1  2/5")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert "\x1b[?25h" in read_screen(parent, "interrupted")  # the cursor is visible again
    os.close(parent)
    os.close(child)


def test_the_watch_of_an_ended_sweep_ends(tmp_path):
    jobs = planned_jobs(seeds=1)
    write_made_plan(tmp_path, jobs)
    for job in jobs:
        write_job(tmp_path, job, changed=time.time() - 30)
    process = subprocess.run([*WATCH, tmp_path], capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stderr) == (0, "")
    assert len(process.stdout.splitlines()) == 2


def test_the_watch_of_a_folder_that_is_no_sweep_is_one_line(tmp_path):
    process = subprocess.run([*WATCH, tmp_path], capture_output=True, text=True, timeout=60)
    assert (process.returncode, len(process.stderr.splitlines())) == (2, 1)
    assert "no sweep" in process.stderr
