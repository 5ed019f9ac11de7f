"""Which jobs of a sweep are trained together."""

from __future__ import annotations

from bnexp.runs.job import Job
from bnexp.sweeps.launcher import Unit, UnitLauncher


def make_units(jobs: list[Job], launcher: UnitLauncher) -> list[Unit]:
    """One unit for each job."""
    return [Unit((job,)) for job in jobs]
