"""How long a sweep and its running jobs still take, estimated from what is in the run folders.

A job of E epochs takes E * epoch_s + overhead. epoch_s is the median of the jobs that differ only in seed and
fold, else of all jobs. The first epoch of a process pays for its start-up and counts only where nothing else
is known and it was long. How many such seconds of work the sweep does in a second is measured since the first
job began: that covers the time between two jobs and a wrong number of jobs at once.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from bnexp.config.overrides import split_override
from bnexp.runs.identity import PAIRING_KEYS
from bnexp.sweeps.plan_file import PlannedJob
from bnexp.sweeps.progress.status import FINISHED, RUNNING, WAITING, JobStatus, SweepStatus

LONG_EPOCH_S = 20.0  # the start-up of a process is short beside such an epoch
EpochTime = Callable[[PlannedJob], float | None]


def format_duration(seconds: float) -> str:
    """h:mm:ss, or m:ss below an hour."""
    minutes, full_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{full_seconds:02}" if hours else f"{minutes}:{full_seconds:02}"


def job_seconds_left(job: JobStatus, epoch_s: float | None, now: float) -> float | None:
    """Seconds until a running job ends; None as long as the time of an epoch is not known."""
    if epoch_s is None or not job.epochs:
        return None
    since_epoch = max(0.0, now - job.changed)
    return max(0.0, (job.epochs - job.epoch) * epoch_s - min(since_epoch, epoch_s))


def sweep_seconds_left(status: SweepStatus) -> float | None:
    """Seconds until the last job ends; None as long as there is nothing to go by."""
    epoch_time = epoch_times(status)
    running = status.running()
    waiting = [job for job in status.jobs if job.state == WAITING]
    if not running and not waiting:
        return 0.0
    overhead = _overhead(status)
    seconds_running = [
        job_seconds_left(job, job.epoch_s or epoch_time(job.job), status.time) for job in running
    ]
    seconds_waiting = [_job_seconds(job, epoch_time(job.job), overhead) for job in waiting]
    seconds = [*seconds_running, *seconds_waiting]
    known = [value for value in seconds if value is not None]
    if len(known) < len(seconds):
        return None
    jobs_at_once = status.plan.jobs_at_once or max(1, len(running))
    rate = min(_measured_rate(status, epoch_time, overhead) or jobs_at_once, len(seconds))
    return max(sum(known) / rate, max(known))


def epoch_times(status: SweepStatus) -> EpochTime:
    """The seconds of an epoch of each job: of its own kind, else of all kinds; None if not known."""
    times: dict[tuple[str, ...], list[float]] = {}
    for job in _informative_jobs(status):
        if job.epoch_s is not None:
            times.setdefault(_kind(job.job), []).append(job.epoch_s)
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    overall = statistics.fmean(medians.values()) if medians else None
    return lambda job: medians.get(_kind(job), overall)


def _informative_jobs(status: SweepStatus) -> list[JobStatus]:
    """The jobs whose epochs tell the time of others, without the start-up where that is possible."""
    measured = [job for job in status.jobs if job.epoch_s is not None and job.state in (RUNNING, FINISHED)]
    measured = [job for job in measured if not job.job.skipped] or measured
    warm = [job for job in measured if job.has_warm_epochs]
    if warm:
        return warm
    later = _ended_jobs(status)[status.plan.jobs_at_once or 1 :]
    return later or [job for job in measured if (job.epoch_s or 0) >= LONG_EPOCH_S]


def _ended_jobs(status: SweepStatus) -> list[JobStatus]:
    """The jobs that finished since the sweep was started, in the order of their ends."""
    jobs = [
        job
        for job in status.jobs
        if job.state == FINISHED
        and not job.job.skipped
        and job.seconds is not None
        and job.epoch_s is not None
    ]
    return sorted(jobs, key=lambda job: job.changed)


def _kind(job: PlannedJob) -> tuple[str, ...]:
    """The overrides of a job without seed and fold."""
    return tuple(text for text in job.overrides if split_override(text)[0] not in PAIRING_KEYS)


def _overhead(status: SweepStatus) -> float:
    """Seconds of a job outside of its epochs, without the first jobs: they pay for the start of a process."""
    jobs = _ended_jobs(status)[status.plan.jobs_at_once or 1 :]
    return statistics.median(map(_outside_epochs, jobs)) if jobs else 0.0


def _outside_epochs(job: JobStatus) -> float:
    return max(0.0, (job.seconds or 0.0) - job.epoch * (job.epoch_s or 0.0))


def _job_seconds(job: JobStatus, epoch_s: float | None, overhead: float) -> float | None:
    return None if epoch_s is None or not job.epochs else job.epochs * epoch_s + overhead


def _measured_rate(status: SweepStatus, epoch_time: EpochTime, overhead: float) -> float | None:
    """Seconds of work that the sweep does in one second, without the start-up of the first job.

    None until more jobs have finished than run at once.
    """
    ended = _ended_jobs(status)
    first_jobs, later_jobs = ended[: status.plan.jobs_at_once or 1], ended[status.plan.jobs_at_once or 1 :]
    if not later_jobs:
        return None
    begin = max(status.plan.started, min(job.changed - (job.seconds or 0.0) for job in ended))
    start_up = min(max(0.0, _outside_epochs(job) - overhead) for job in first_jobs)
    work = sum(job.epoch * (job.epoch_s or 0.0) + overhead for job in ended)
    work += sum(_progress(status.running(), epoch_time))
    duration = max(job.changed for job in [*ended, *status.running()]) - begin - start_up
    return work / duration if duration > 0 and work > 0 else None


def _progress(running: Sequence[JobStatus], epoch_time: EpochTime) -> Iterable[float]:
    for job in running:
        yield job.epoch * (job.epoch_s or epoch_time(job.job) or 0.0)
