"""The state of a sweep from its folder alone, and the estimate of the time that is left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bnexp.runs.lock import lock_folder
from bnexp.sweeps.plan_file import PlannedJob
from bnexp.sweeps.progress import status as status_module
from bnexp.sweeps.progress.status import SweepReader, read_last_rows
from bnexp.sweeps.progress.time_left import job_seconds_left, sweep_seconds_left
from helpers.sweep_folders import planned_jobs, write_job, write_made_plan

CRASH = "import sys; from pathlib import Path; from bnexp.runs.lock import lock_folder; import os, signal\n"
CRASH += "with lock_folder(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"


def ended_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_every_state_is_read_from_the_run_folders(tmp_path):
    jobs = planned_jobs(seeds=4)
    write_made_plan(tmp_path, jobs)
    write_job(tmp_path, jobs[0], accuracy=0.9735, total_s=6.5)
    write_job(tmp_path, jobs[1], status="diverged", epoch=2, error="the loss became nan")
    write_job(tmp_path, jobs[2], status="failed", epoch=0, error="RuntimeError: no")
    write_job(tmp_path, jobs[3], status="interrupted", epoch=1)
    write_job(tmp_path, jobs[4], status="running", epoch=3, accuracy=0.8)
    write_job(tmp_path, jobs[5], status="running", epoch=2)
    write_job(tmp_path, jobs[6], status="running", epoch=0)
    subprocess.run([sys.executable, "-c", CRASH, tmp_path / jobs[5].folder], check=False)
    with lock_folder(tmp_path / jobs[4].folder), lock_folder(tmp_path / jobs[6].folder):
        status = SweepReader(tmp_path).read()
    assert [job.state for job in status.jobs] == [
        "finished", "diverged", "failed", "interrupted", "running", "lost", "running", "waiting",
    ]  # fmt: skip
    assert (status.jobs[0].test_accuracy, status.jobs[0].seconds) == (0.9735, 6.5)
    assert (status.jobs[4].epoch, status.jobs[4].epochs, status.jobs[4].accuracy) == (3, 5, 0.8)
    assert (status.jobs[6].epoch, status.jobs[6].accuracy) == (0, None)
    assert status.jobs[2].error == "RuntimeError: no"
    assert status.done == 2


def test_what_failed_before_this_start_waits_and_what_was_completed_is_skipped(tmp_path):
    jobs = planned_jobs(seeds=2)
    skipped = PlannedJob(**{**vars(jobs[0]), "skipped": True})
    write_made_plan(tmp_path, [skipped, *jobs[1:]])
    long_ago = time.time() - 1000
    write_job(tmp_path, jobs[0], changed=long_ago)
    write_job(tmp_path, jobs[1], status="failed", epoch=2, changed=long_ago)
    write_job(tmp_path, jobs[2], status="running", epoch=2, changed=long_ago)  # killed
    status = SweepReader(tmp_path).read()
    assert [job.state for job in status.jobs] == ["finished", "waiting", "waiting", "waiting"]
    assert (status.done, status.skipped) == (1, 1)


def test_a_reader_sees_a_job_start_advance_and_end(tmp_path):
    jobs = planned_jobs(seeds=1)
    write_made_plan(tmp_path, jobs)
    reader = SweepReader(tmp_path)
    assert [job.state for job in reader.read().jobs] == ["waiting", "waiting"]
    run = write_job(tmp_path, jobs[0], status="running", epoch=1)
    with lock_folder(run):
        assert reader.read().jobs[0].epoch == 1
        write_job(tmp_path, jobs[0], status="running", epoch=2)
        assert reader.read().jobs[0].epoch == 2
        write_job(tmp_path, jobs[0])
    assert reader.read().jobs[0].state == "finished"
    assert reader.read().jobs[1].state == "waiting"


def test_a_plan_that_grows_adds_jobs_and_forgets_none(tmp_path):
    jobs = planned_jobs(seeds=3)
    started = time.time() - 100
    write_made_plan(tmp_path, jobs[:2], started=started)
    write_job(tmp_path, jobs[0])
    reader = SweepReader(tmp_path)
    assert len(reader.read().jobs) == 2
    write_made_plan(tmp_path, jobs, started=started)
    write_job(tmp_path, jobs[2])
    assert [job.state for job in reader.read().jobs] == ["finished", "waiting", "finished", *["waiting"] * 3]


def test_later_looks_open_only_files_that_have_changed(tmp_path, monkeypatch):
    jobs = planned_jobs(seeds=2500)
    write_made_plan(tmp_path, jobs)
    for job in jobs[:1000]:
        write_job(tmp_path, job)
    write_job(tmp_path, jobs[1000], status="running", epoch=1)
    reads: list[Path] = []
    for name in ("read_summary", "read_last_rows"):
        read = getattr(status_module, name)
        monkeypatch.setattr(status_module, name, lambda path, read=read: reads.append(path) or read(path))
    reader = SweepReader(tmp_path)
    with lock_folder(tmp_path / jobs[1000].folder):
        assert reader.read().counts == {"finished": 1000, "running": 1, "waiting": 3999}
        reads.clear()
        assert reader.read().counts["running"] == 1
        assert reads == []
        write_job(tmp_path, jobs[1000], status="running", epoch=2)
        assert reader.read().jobs[1000].epoch == 2
    assert {path.name for path in reads} <= {jobs[1000].folder, "metrics.csv"}


def test_the_last_rows_are_read_without_a_row_that_is_being_written(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,val/accuracy,epoch_s\r\n" + "".join(f"{n},0.5,2.0\r\n" for n in range(1, 1000)))
    with path.open("a") as file:
        file.write("1000,0.")
    rows = read_last_rows(path)
    assert rows[-1] == {"epoch": 999, "val/accuracy": 0.5, "epoch_s": 2.0}
    assert rows[0]["epoch"] > 1


def test_a_summary_that_is_a_pipe_blocks_nobody(tmp_path):
    jobs = planned_jobs(seeds=1)
    write_made_plan(tmp_path, jobs)
    (tmp_path / jobs[0].folder).mkdir()
    os.mkfifo(tmp_path / jobs[0].folder / "summary.json")
    os.mkfifo(tmp_path / jobs[0].folder / "metrics.csv")
    assert SweepReader(tmp_path).read().jobs[0].state == "waiting"


@pytest.mark.parametrize(("alive", "has_ended"), [(True, False), (False, True)])
def test_a_sweep_with_waiting_jobs_has_ended_only_if_its_process_has(tmp_path, alive, has_ended):
    jobs = planned_jobs(seeds=1)
    write_made_plan(tmp_path, jobs, pid=None if alive else ended_pid())
    write_job(tmp_path, jobs[0], changed=time.time() - 30)
    assert SweepReader(tmp_path).read().has_ended is has_ended


def test_a_sweep_has_not_ended_while_a_job_runs_or_might_be_added(tmp_path):
    jobs = planned_jobs(seeds=1)
    write_made_plan(tmp_path, jobs, pid=ended_pid())
    write_job(tmp_path, jobs[0])
    with lock_folder(write_job(tmp_path, jobs[1], status="running", epoch=1)):
        assert not SweepReader(tmp_path).read().has_ended  # workers that outlive the sweep's process
    write_made_plan(tmp_path, jobs)
    write_job(tmp_path, jobs[1])
    assert not SweepReader(tmp_path).read().has_ended
    for job in jobs:
        write_job(tmp_path, job, changed=time.time() - 30)
    assert SweepReader(tmp_path).read().has_ended


def simulate(tmp_path, *, seconds_of, jobs_at_once, now, seeds=10, epochs=5, start_up=4.0, overhead=0.0):
    """The estimate ``now`` seconds after the start of a made sweep, and the true time that is left.

    Each worker takes the next job when it is free; its first one takes ``start_up`` seconds longer.
    """
    jobs, start = planned_jobs(seeds=seeds, epochs=epochs), time.time() - now
    write_made_plan(tmp_path, jobs, jobs_at_once=jobs_at_once, started=start)
    free, locks = [0.0] * jobs_at_once, []
    for job in jobs:
        worker = free.index(min(free))
        begin, epoch_s = free[worker], seconds_of(job)
        first = start_up if begin == 0 else 0.0
        end = free[worker] = begin + first + epochs * epoch_s + overhead
        if end <= now:
            write_job(tmp_path, job, epoch_s=epoch_s, first_epoch_s=epoch_s + first / 2,
                      total_s=end - begin, changed=start + end)  # fmt: skip
        elif begin <= now:
            epoch = max(0, int((now - begin - first) / epoch_s))
            changed = start + begin + first + epoch * epoch_s
            run = write_job(tmp_path, job, status="running", epoch=epoch, epoch_s=epoch_s,
                            first_epoch_s=epoch_s + first / 2, changed=changed)  # fmt: skip
            locks.append(lock_folder(run))
            locks[-1].__enter__()
    status = SweepReader(tmp_path).read()
    left = sweep_seconds_left(status)
    for lock in locks:
        lock.__exit__(None, None, None)
    return left, max(free) - now


def test_there_is_no_estimate_before_the_second_epoch(tmp_path):
    left, _ = simulate(tmp_path, seconds_of=lambda job: 0.2, jobs_at_once=1, now=4.25)
    assert left is None


@pytest.mark.parametrize("now", [4.5, 6, 9, 12, 13.9])
@pytest.mark.parametrize("jobs_at_once", [1, 2])
def test_the_start_up_of_the_first_job_does_not_spoil_the_estimate(tmp_path, now, jobs_at_once):
    left, true_seconds = simulate(tmp_path, seconds_of=lambda job: 0.2, jobs_at_once=jobs_at_once, now=now)
    assert left == pytest.approx(true_seconds, abs=max(1.2, 0.25 * true_seconds))


def test_the_kinds_of_jobs_have_their_own_times(tmp_path):
    def seconds_of(job):
        return 10.0 if "batch" in job.label else 1.0

    left, true_seconds = simulate(tmp_path, seconds_of=seconds_of, jobs_at_once=1, now=60.0, overhead=0.5)
    assert left == pytest.approx(true_seconds, rel=0.1)


def test_time_between_the_jobs_counts(tmp_path):
    left, true_seconds = simulate(
        tmp_path, seconds_of=lambda job: 0.1, jobs_at_once=2, now=16, overhead=2.5, start_up=1.0
    )
    assert left == pytest.approx(true_seconds, rel=0.25)


def test_a_running_job_has_a_time_left_that_counts_down(tmp_path):
    jobs = planned_jobs(seeds=1)
    write_made_plan(tmp_path, jobs)
    now = time.time()
    with lock_folder(write_job(tmp_path, jobs[0], status="running", epoch=3, epoch_s=10.0, changed=now - 4)):
        job = SweepReader(tmp_path).read().jobs[0]
    assert job_seconds_left(job, job.epoch_s, now) == pytest.approx(16, abs=0.1)
    assert job_seconds_left(job, job.epoch_s, now + 1000) == pytest.approx(10)
    assert job_seconds_left(job, None, now) is None
