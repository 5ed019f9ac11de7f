"""What a launcher is: it trains the units of a sweep somewhere. There are local, slurm and ray."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bnexp.errors import UserError, bad_value
from bnexp.runs.job import Job

OUTPUT = "workers.log"  # in the sweep's folder: what workers print
STOP_FILE = ".stop"  # in the sweep's folder: workers that no message reaches stop where it exists


@dataclass(frozen=True)
class Unit:
    """Jobs that one worker trains together: several seeds of one recipe, or a single job."""

    jobs: tuple[Job, ...]

    @property
    def has_own_code(self) -> bool:
        """Whether a part of it is neither bnexp's nor torch's: it may leave anything in its process."""
        return any(job.fingerprints.keys() - {"dataset"} for job in self.jobs)

    def __str__(self) -> str:
        return ", ".join(job.label or job.path.name for job in self.jobs)


@dataclass(frozen=True)
class JobEnd:
    """How a job ended: its exit code, the lines that say what went wrong, and the warnings of its log."""

    job: Job
    code: int
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SweepContext:
    """What every worker of a sweep must know."""

    folder: str  # absolute
    cwd: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def stop_file(self) -> Path:
        return Path(self.folder) / STOP_FILE


STOP_PATIENCE_S = 60  # how long to wait for the running jobs' current steps and checkpoints after a signal


# Called with the ends of a unit's jobs; returns whether the sweep goes on.
OnEnd = Callable[[Sequence[JobEnd]], bool]


class UnitLauncher(ABC):
    """Trains units. ``start`` comes first, ``close`` last; ``run`` may be called several times."""

    name: str
    fuse: int | None = None  # the most seeds in one unit; None: the default

    def start(self, context: SweepContext) -> None:
        """Prepares workers, in the background: the sweep is still being planned."""
        self.context = context
        context.stop_file.unlink(missing_ok=True)

    @abstractmethod
    def jobs_at_once(self, jobs: Sequence[Job]) -> int:
        """How many units are trained at the same time, at most."""

    @abstractmethod
    def run(self, units: Sequence[Unit], on_end: OnEnd) -> list[str]:
        """Trains the units in this order; returns a line for each unit whose worker was lost.

        Raises Interrupted after a signal: the running jobs are saved then.
        """

    def close(self) -> None:  # noqa: B027  # a launcher may have nothing to end
        """Ends all workers."""


def whole_number(key: str, value: object, *, least: int = 1) -> int | None:
    """``value`` of a launcher's key. Raises UserError unless it is a whole number or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise bad_value(key, value, f"must be a whole number of at least {least}, or null")
    return value


def missing_extra(launcher: str) -> UserError:
    """The error for a launcher whose library is not installed; its extra has the same name."""
    install = f"pip install -e '.[{launcher}]'"
    return UserError(f"hydra/launcher={launcher}: not installed; {install} in a clone of bnexp brings it")
