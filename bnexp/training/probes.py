"""Builds the probes of a run, and what calls them at their moments."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bnexp.config.instantiate import instantiate
from bnexp.config.schema import PROBES, Component, Config
from bnexp.data import DataSplits
from bnexp.errors import UserError
from bnexp.probes.preserve import preserved
from bnexp.probes.probe import Probe, Setup
from bnexp.probes.runner import ProbeRunner
from bnexp.runs.loggers import Logger
from bnexp.training.blame import blamed_on
from bnexp.training.trainer import Trainer


def build_probes(config: Config, trainer: Trainer, splits: DataSplits) -> list[Probe]:
    """The probes of this run. Raises UserError for one that this network or this data does not allow."""
    if config.probes and trainer.processes.is_distributed:
        raise UserError("probes: measure a network that one process trains; start bnexp without torchrun")
    built: list[Probe] = []
    setup = probe_setup(config, trainer, splits)
    for component in config.probes:
        probe = instantiate(component, {})
        if not isinstance(probe, Probe):
            name = type(probe).__name__
            raise UserError(
                f"probes._target_={component.target}: gives a {name}, not a bnexp.probes.probe.Probe"
            )
        probe.name = probe.name or type(probe).__name__
        _check_probe_name(probe.name, component, built)
        with blamed_on(f"probes._target_={component.target}", "its check fails"), preserved(trainer.model):
            probe.check(setup)
        built.append(probe)
    return built


def _check_probe_name(name: str, component: Component, others: Sequence[Probe]) -> None:
    """Raises UserError where ``name`` cannot be that of the probe's file, or is that of another probe."""
    key = f"probes._target_={component.target}"
    if not re.fullmatch(r"[\w-]+", name):
        raise UserError(
            f"{key}: its name {name!r} is that of a file: only letters, digits, - and _ may be in it"
        )
    is_own = component.target != PROBES.get(name)
    if is_own and (name in PROBES or name in [other.name for other in others]):
        raise UserError(f"{key}: its name {name} is that of another probe; choose another one")


def probe_setup(config: Config, trainer: Trainer, splits: DataSplits) -> Setup:
    """What the probes see of a run."""
    return Setup(
        trainer.model, trainer.loss, splits, config.probe, config.batch_size, config.eval_batch_size,
        config.seed, lambda: trainer.lr,
    )  # fmt: skip


def probe_runner(
    config: Config, built: Sequence[Probe], trainer: Trainer, splits: DataSplits, logger: Logger
) -> ProbeRunner:
    """The probes at the moments of ``probe.every``: by default at the first step of each epoch."""
    every = config.probe.every or splits.train.steps(config.batch_size)
    return ProbeRunner(built, probe_setup(config, trainer, splits), every, logger)
