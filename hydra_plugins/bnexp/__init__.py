"""bnexp's sweeper and launchers as Hydra sees them.

Hydra looks for plugins in the package ``hydra_plugins`` and imports them in every Hydra program of an
environment. So this file imports nothing heavy; what the classes do is in ``bnexp.sweeps``. Their
configurations are in ``conf/hydra``, where only bnexp finds them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from bnexp.sweeps.launchers.launcher import UnitLauncher


class BnexpSweeper(Sweeper):
    """Runs one job for each combination of the axes' values. ``params`` are the axes of a preset."""

    def __init__(self, params: DictConfig | None = None) -> None:
        self.params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Runs the sweep, with its verdict; ends the process where the exit code is not 0."""
        from bnexp.sweeps.sweep import run_sweep

        assert self.config is not None  # ``setup`` comes first
        assert self.hydra_context is not None
        code = run_sweep(self.config, self.hydra_context, self.task_function, arguments)
        if code:
            sys.exit(code)


class BnexpLauncher(Launcher):
    """What the launchers share. ``BnexpSweeper`` uses only ``unit_launcher``."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        pass

    def unit_launcher(self) -> UnitLauncher:
        """The object that trains the units of a sweep."""
        raise NotImplementedError

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from bnexp.errors import UserError

        raise UserError("hydra/sweeper: bnexp's launchers need bnexp's sweeper (hydra/sweeper=bnexp)")


class LocalLauncher(BnexpLauncher):
    """Processes on this machine."""

    def __init__(self, jobs: Any = None, fuse: Any = None) -> None:
        self.jobs, self.fuse = jobs, fuse

    def unit_launcher(self) -> UnitLauncher:
        from bnexp.sweeps.launchers.local import LocalProcesses

        return LocalProcesses(self.jobs, self.fuse)


class SlurmLauncher(BnexpLauncher):
    """Jobs of a SLURM cluster; ``parameters`` are those of submitit's AutoExecutor."""

    def __init__(self, cluster: str = "slurm", fuse: Any = None, **parameters: Any) -> None:
        self.cluster, self.fuse, self.parameters = cluster, fuse, parameters

    def unit_launcher(self) -> UnitLauncher:
        from bnexp.sweeps.launchers.slurm import SlurmJobs

        return SlurmJobs(self.cluster, self.fuse, self.parameters)


class RayLauncher(BnexpLauncher):
    """Tasks of a Ray cluster, which is started on this machine where ``address`` is None."""

    def __init__(self, fuse: Any = None, **parameters: Any) -> None:
        self.fuse, self.parameters = fuse, parameters

    def unit_launcher(self) -> UnitLauncher:
        from bnexp.sweeps.launchers.ray import RayTasks

        return RayTasks(self.fuse, **self.parameters)


PLUGINS = (BnexpSweeper, LocalLauncher, SlurmLauncher, RayLauncher)
