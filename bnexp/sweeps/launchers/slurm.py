"""The launcher ``slurm``: each unit is a job of a SLURM cluster, through submitit."""

from __future__ import annotations

import io
import os
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from bnexp.errors import UserError, bad_choice, bad_value, one_line, unknown_key
from bnexp.runs.job import Job, MachineShare
from bnexp.signals import StopSignal, blocked_signals
from bnexp.sweeps.launchers.launcher import (
    STOP_PATIENCE_S,
    JobEnd,
    OnEnd,
    SweepContext,
    Unit,
    UnitLauncher,
    missing_extra,
    whole_number,
)
from bnexp.sweeps.launchers.local import cores
from bnexp.sweeps.launchers.slurm_queue import ENDED, UNKNOWN, cancel_waiting, job_states

FOLDER = ".submitit"  # in the sweep's folder: scripts, logs and results of the cluster's jobs
MAX_ARRAY = 1000  # jobs of one array; clusters allow 1000 unless they set another MaxArraySize
POLL_S = 1.0  # how often the main process looks for results, which are files
QUEUE_POLL_S = 10.0  # how often it asks SLURM
STOP_POLL_S = 2.0  # the same after a signal
RESULT_PATIENCE_S = 15.0  # how long the result of an ended job may need to appear on a shared file system

WHOLE_NUMBERS = {  # keys, and the least value of each
    "timeout_min": 1, "gpus_per_node": 1, "cpus_per_task": 1, "array_parallelism": 1, "signal_delay_s": 0,
    "max_num_timeout": 0,
}  # fmt: skip
# Keys that every executor of submitit knows by this name. For the others it wants a prefix.
SHARED_KEYS = ("timeout_min", "gpus_per_node", "cpus_per_task", "mem_gb", "name")
# Not among them: nodes and tasks_per_node. A job is one process.
SLURM_KEYS = (
    "partition", "array_parallelism", "signal_delay_s", "max_num_timeout", "account", "qos", "constraint",
    "nodelist", "exclude", "exclusive", "gres", "mem_per_cpu", "mem_per_gpu", "cpus_per_gpu", "comment",
    "dependency", "mail_type", "mail_user", "wckey", "setup", "teardown", "srun_args",
    "additional_parameters",
)  # fmt: skip
SHELL_KEYS = ("setup", "teardown", "srun_args", "additional_parameters")
KEYS = ("cluster", "fuse", *SHARED_KEYS, *SLURM_KEYS)


class UnitTask:
    """What a job of the cluster calls. submitit stores it in a file."""

    def __init__(self, unit: Unit, share: MachineShare, context: SweepContext) -> None:
        self.unit, self.share, self.context = unit, share, context

    def __call__(self) -> list[JobEnd]:
        from bnexp.sweeps.launchers.remote_worker import train_remotely

        return train_remotely(self.unit, self.share, self.context)

    def checkpoint(self) -> Any:
        """submitit calls it when a job is queued again: the folders have all that is needed to go on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class SlurmJobs(UnitLauncher):
    """Jobs of a cluster. ``cluster`` "local" runs them on this machine instead, one for each core at a time.

    Raises UserError for an unknown or invalid parameter, and where there is no SLURM.
    """

    name = "slurm"

    def __init__(self, cluster: str, fuse: Any, parameters: dict[str, Any]) -> None:
        try:
            import submitit
        except ImportError:
            raise missing_extra("slurm") from None
        self._submitit = submitit
        if cluster not in ("slurm", "local"):
            raise bad_choice("hydra.launcher.cluster", cluster, ("slurm", "local"))
        self.cluster, self.fuse = cluster, whole_number("hydra.launcher.fuse", fuse)
        self._parameters = _check_parameters(parameters)
        if cluster == "slurm" and shutil.which("srun") is None:
            raise UserError(
                "hydra/launcher=slurm: no srun on this machine; start the sweep on a login node of a cluster,"
                " or add hydra.launcher.cluster=local to try it on this machine"
            )

    def jobs_at_once(self, jobs: Sequence[Job]) -> int:
        at_once = int(self._parameters.get("array_parallelism", MAX_ARRAY))
        return min(at_once, cores()) if self.cluster == "local" else at_once

    def run(self, units: Sequence[Unit], on_end: OnEnd) -> list[str]:
        # submitit starts all local jobs of an array at once.
        size = self.jobs_at_once([]) if self.cluster == "local" else MAX_ARRAY
        failures: list[str] = []
        for first in range(0, len(units), size):
            if not self._run_array(units[first : first + size], on_end, failures):
                break
        return failures

    def _run_array(self, units: Sequence[Unit], on_end: OnEnd, failures: list[str]) -> bool:
        """Trains the units of one array; whether the sweep goes on."""
        goes_on = True
        deadline = float("inf")
        with StopSignal() as stop:
            array = _Array(self._submit(units), units, asks_slurm=self.cluster == "slurm")
            while array.running and time.monotonic() < deadline:
                for outcome in array.take_outcomes():
                    if not isinstance(outcome, str):
                        goes_on = on_end(outcome) and goes_on
                    elif deadline == float("inf"):  # not one that was taken out of the queue
                        failures.append(outcome)
                if (stop.received is not None or not goes_on) and deadline == float("inf"):
                    deadline = time.monotonic() + STOP_PATIENCE_S
                    self.context.stop_file.touch()  # the running jobs see it, are saved and end
                    array.cancel_waiting()
                time.sleep(POLL_S if array.running else 0)
        if not array.running:
            self.context.stop_file.unlink(missing_ok=True)
        if stop.received is not None:
            raise stop.interrupted()
        return goes_on

    def _submit(self, units: Sequence[Unit]) -> list[Any]:
        is_local = self.cluster == "local"
        count = len(units) if is_local else 1
        tasks = [
            UnitTask(unit, MachineShare(count, number if is_local else None, has_console=False), self.context)
            for number, unit in enumerate(units)
        ]
        # A terminal's Ctrl-C must not end local jobs: they see the stop file. submitit prints sbatch's error.
        with blocked_signals(), redirect_stderr(io.StringIO()):
            try:
                return list(self._executor().submit_array(tasks))
            except (RuntimeError, OSError) as error:  # an unknown partition, for example
                raise UserError(one_line(f"hydra/launcher=slurm: the jobs were refused: {error}")) from None

    def _executor(self) -> Any:
        parameters = dict(self._parameters)
        retries = {f"{self.cluster}_max_num_timeout": parameters.pop("max_num_timeout", 0)}
        folder = Path(self.context.folder) / FOLDER
        executor = self._submitit.AutoExecutor(folder, cluster=self.cluster, **retries)
        parameters["srun_args"] = srun_arguments(parameters)
        executor.update_parameters(  # local jobs ignore those of SLURM
            **{key if key in SHARED_KEYS else f"slurm_{key}": value for key, value in parameters.items()}
        )
        return executor


def srun_arguments(parameters: dict[str, Any]) -> list[str]:
    """The arguments of srun inside a job: since SLURM 22.05 it does not take over the job's cores itself."""
    cpus = parameters.get("cpus_per_task")
    return [*([f"--cpus-per-task={cpus}"] if cpus else []), *parameters.get("srun_args", [])]


def _check_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters that are set, as plain data. Raises UserError for an unknown key or a wrong value."""
    plain = {}
    for key, value in parameters.items():
        name = f"hydra.launcher.{key}"
        if key not in KEYS:
            raise unknown_key(name, KEYS)
        if key in WHOLE_NUMBERS:
            value = whole_number(name, value, least=WHOLE_NUMBERS[key])
        if key == "mem_gb" and not (value is None or (type(value) in (int, float) and value > 0)):
            raise bad_value(name, value, "must be a number above 0, or null")
        if key not in SHELL_KEYS and "\n" in str(value):
            # A second line would be a command of the job's script.
            raise UserError(f"{name}: must be one line")
        if value is not None:
            plain[key] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return {"name": "bnexp", **plain}


class _Array:
    """Jobs that were submitted together; ``running`` has those without an outcome so far."""

    def __init__(self, jobs: Sequence[Any], units: Sequence[Unit], *, asks_slurm: bool) -> None:
        self.running = dict(zip(jobs, units, strict=True))
        self._asks_slurm = asks_slurm
        self._states: dict[str, str] = {}
        self._asked_at, self._interval_s = time.monotonic(), QUEUE_POLL_S
        self._ended_at: dict[Any, float] = {}  # when a job without a result was seen to have ended

    def take_outcomes(self) -> list[list[JobEnd] | str]:
        """For each job that has ended by now the ends of its unit's jobs, or a line that says it was lost.

        submitit's own look at a job's state is not used: it needs SLURM's accounting, and it may be ten
        minutes old.
        """
        self._look()
        outcomes: list[list[JobEnd] | str] = []
        now = time.monotonic()
        for job, unit in list(self.running.items()):
            state = self._states.get(job.job_id, "killed")
            patience_s = 0.0 if state == "CANCELLED" else RESULT_PATIENCE_S
            if job.paths.result_pickle.exists():
                error = job.exception()
                outcomes.append(job.result() if error is None else _failure_line(unit, _cause(error)))
            elif job in self._ended_at and now >= self._ended_at[job] + patience_s:
                outcomes.append(_failure_line(unit, f"{state}{_last_error(job.paths.stderr)}"))
            else:
                continue
            del self.running[job]
        return outcomes

    def _look(self) -> None:
        """Notes which jobs have ended."""
        now = time.monotonic()
        if self._asks_slurm:
            if now - self._asked_at < self._interval_s:
                return
            self._asked_at = now
            states = job_states(job.job_id for job in self.running)
            if states is None:
                return
            self._states = states
        for job in self.running:
            if self._has_ended(job):
                self._ended_at.setdefault(job, now)
            else:
                self._ended_at.pop(job, None)  # SLURM has queued it again

    def _has_ended(self, job: Any) -> bool:
        if not self._asks_slurm:
            return bool(job.done())
        return self._states[job.job_id] in (*ENDED, UNKNOWN)

    def cancel_waiting(self) -> None:
        """Takes the jobs that wait out of the queue."""
        if self._asks_slurm and self.running:
            cancel_waiting(job.job_id for job in self.running)
            self._interval_s = STOP_POLL_S


def _failure_line(unit: Unit, reason: str) -> str:
    return one_line(f"a job was lost: {unit}: {reason}")[:300]


def _cause(error: Exception) -> str:
    """The last line of the traceback in submitit's error."""
    lines = [line for line in str(error).splitlines() if re.match(r"[\w.]+(Error|Exit|Exception)\b", line)]
    return lines[-1].rpartition("Error: ")[2] if lines else one_line(error)


def _last_error(path: Path) -> str:
    """The last error in a job's log, where SLURM writes why it ended a job, and where the log is."""
    lines: list[str] = []
    with suppress(OSError):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    error = next((line for line in reversed(lines) if "error" in line.lower()), "")
    return f"{f' ({error})' if error else ''}; its log is {os.path.relpath(path)}"
