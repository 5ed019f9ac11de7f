"""Runs that differ only in their seed, trained together: from their configurations to their records."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from bnexp import data
from bnexp.compute.device import ComputeDevice, prepare_device
from bnexp.compute.memory import memory_guard
from bnexp.compute.process_tuning import set_threads
from bnexp.config.schema import Component, Config
from bnexp.data import DataSplits
from bnexp.data.fused_batches import FusedData
from bnexp.data.network_input import NetworkInput
from bnexp.errors import Diverged, one_line
from bnexp.models.summary import Summary
from bnexp.runs.folder import RunFolder, record_outcome
from bnexp.runs.job import Job, MachineShare
from bnexp.signals import StopSignal
from bnexp.training import build, components
from bnexp.training.checkpoint import load
from bnexp.training.fused.comparison import require_same
from bnexp.training.fused.layers import NotFusable
from bnexp.training.fused.loop import ReplicasDiverged, RunRecord, final_metrics_fused, fit_fused
from bnexp.training.fused.obstacles import differ_in_seed_alone, reason_not_to_fuse
from bnexp.training.fused.size import replicas_for
from bnexp.training.fused.trainer import FusedTrainer, fuse_on_device, memory_format
from bnexp.training.progress import Progress
from bnexp.training.run import (
    checkpoints_of,
    fit_settings,
    record_metrics,
    record_network,
    tensorboard_texts,
    train,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FusedRun:
    """One run of a unit: what ``train`` takes for a run that is trained alone. Its folder is locked."""

    config: Config
    folder: RunFolder
    job: Job
    share: MachineShare

    @property
    def title(self) -> str:
        return f"{self.config.name}: seed {self.config.seed}"


def train_fused(runs: Sequence[FusedRun], stop: StopSignal) -> list[str]:
    """Trains runs that differ in their seed, and records in each one's folder how it ended.

    Returns the status of each: finished, diverged, failed or interrupted. Runs that have come equally far are
    trained as one network. All others, and all where that is not possible, are trained one after the other;
    the log says why. After a signal those that did not begin have the status interrupted, and no record.
    """
    first = runs[0].config
    reason = reason_not_to_fuse(first)
    if not all(differ_in_seed_alone(first, run.config) for run in runs):
        reason = "they differ in more than their seed"
    if reason is not None:
        log.info(f"{first.name}: {len(runs)} seeds, one after the other: {reason}")
        return _train_each(runs, stop)
    statuses: dict[int, str] = {}
    for group in _runs_at_the_same_step(runs):
        members = [runs[number] for number in group]
        results = _train_together(members, stop) if len(group) > 1 else _train_each(members, stop)
        statuses |= zip(group, results, strict=True)
    return [statuses[number] for number in range(len(runs))]


def _runs_at_the_same_step(runs: Sequence[FusedRun]) -> list[list[int]]:
    """The numbers of the runs, grouped by how far their checkpoints have come."""
    groups: dict[tuple[int, int] | None, list[int]] = {}  # None: no checkpoint yet
    for number, run in enumerate(runs):
        state = checkpoints_of(run.config, run.folder).newest()
        progress = None if state is None else Progress.from_state(state["progress"])
        key = None if progress is None else (progress.epoch, progress.current.steps)
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def _train_each(runs: Sequence[FusedRun], stop: StopSignal) -> list[str]:
    """Each run alone. An error ends its run and no other."""
    statuses = []
    for run in runs:
        if stop.received is not None:
            statuses.append("interrupted")
            continue
        try:
            with record_outcome(run.folder, keep=True):
                train(run.config, run.folder, run.job, run.share, stop)
        except (Exception, KeyboardInterrupt) as error:  # recorded: the other runs must go on
            log.error(f"{run.title}: {one_line(error) or type(error).__name__}")
        statuses.append(run.folder.summary["status"])
    return statuses


class TooManyReplicas(Exception):
    """At most ``size`` of the runs gain by being trained together."""

    def __init__(self, size: int) -> None:
        super().__init__(f"at most {size}")
        self.size = size


@dataclass(frozen=True)
class Unit:
    """Runs that are trained together, their networks and their data. The networks have the first weights."""

    runs: tuple[FusedRun, ...]
    networks: tuple[nn.Module, ...]
    splits: tuple[DataSplits, ...]
    data: FusedData
    trainer: FusedTrainer
    summary: Summary
    device: ComputeDevice
    threads: int

    def subset(self, replicas: Sequence[int]) -> Unit:
        """The unit of these replicas only, from their first weights."""
        return make_unit(
            [self.runs[replica] for replica in replicas],
            [self.networks[replica] for replica in replicas],
            [self.splits[replica] for replica in replicas],
            self.summary, self.device, self.threads,
        )  # fmt: skip


def make_unit(
    runs: Sequence[FusedRun],
    networks: Sequence[nn.Module],
    splits: Sequence[DataSplits],
    summary: Summary,
    device: ComputeDevice,
    threads: int,
) -> Unit:
    """Raises NotFusable if a module has no fused form."""
    trainer = fused_trainer(runs[0].config, networks, splits[0], device)
    seeds = [run.config.seed for run in runs]
    fused_data = FusedData(splits, seeds, memory_format(trainer.model))
    return Unit(
        tuple(runs), tuple(networks), tuple(splits), fused_data, trainer, summary, device, threads
    )  # fmt: skip


def fused_trainer(
    config: Config, networks: Sequence[nn.Module], splits: DataSplits, device: ComputeDevice
) -> FusedTrainer:
    """The trainer of ``networks``; ``splits`` are those of any of the runs. Raises NotFusable."""
    model = fuse_on_device(networks, device)
    optimizer = components.optimizer_of(_with_fused_kernels(config.optimizer), model)
    return FusedTrainer(
        networks, model, components.loss_of(config, splits, device), optimizer, device,
        schedule=components.schedule_of(
            config.scheduler, optimizer,
            epochs=config.epochs, steps_per_epoch=splits.train.steps(config.batch_size),
        ),
        l1=config.l1, grad_clip=config.grad_clip,
    )  # fmt: skip


def _with_fused_kernels(optimizer: Component) -> Component:
    """Adam in one pass over the weights, where torch's default takes one pass for each operation.

    8 MLPs take 1.2 times the images/s. SGD has too few operations to gain.
    """
    if optimizer.target not in ("torch.optim.Adam", "torch.optim.AdamW"):
        return optimizer
    return replace(optimizer, keys={**optimizer.keys, "fused": True})


def prepare_unit(runs: Sequence[FusedRun]) -> Unit:
    """Builds the networks of all seeds and holds the fused one against them.

    Raises NotFusable if it differs, and UserError or OutOfMemory as a single run does.
    """
    config, share = runs[0].config, runs[0].share
    device = prepare_device(config.device, share.gpu)
    if device.type != "cpu":
        raise NotFusable(f"fused runs have been measured on a CPU alone, not on {device.type}")
    keys = config.dataset
    dataset = data.load_dataset(keys.name, keys.root, keys.resize)
    splits = [build.split_dataset(dataset, run.config, device) for run in runs]
    inputs = [NetworkInput.of_splits(part) for part in splits]
    networks = [build.model(run.config, part) for run, part in zip(runs, inputs, strict=True)]
    summary = build.summary(networks[0], config, splits[0])
    size = replicas_for(summary, config.batch_size, len(runs))
    if size < len(runs):
        raise TooManyReplicas(size)
    threads = set_threads(
        config.device.threads or runs[0].folder.previous_threads(),
        summary.flops * config.batch_size * len(runs),
        share.jobs_at_once,
    )
    unit = make_unit(runs, networks, splits, summary, device, threads)
    require_same(
        unit.trainer.model, networks, components.loss_of(config, splits[0], device), unit.data, splits,
        config.batch_size, device,
    )  # fmt: skip
    return unit


def _train_together(runs: Sequence[FusedRun], stop: StopSignal) -> list[str]:
    config = runs[0].config
    keys = f"batch_size={config.batch_size} or eval_batch_size={config.eval_batch_size}"
    try:
        with memory_guard(keys):
            unit = prepare_unit(runs)
    except TooManyReplicas as error:
        return _train_in_parts(runs, error.size, stop)
    except Exception as error:  # of any kind: a run that has it too reports it when it is alone
        log.warning(f"{config.name}: {len(runs)} seeds, one after the other: {one_line(error)}")
        return _train_each(runs, stop)
    outcomes = [RunOutcome(run) for run in runs]
    try:
        with memory_guard(keys):
            _train_unit(unit, outcomes, stop)
    except (Exception, KeyboardInterrupt) as error:  # it ends all that have not ended yet
        for outcome in outcomes:
            outcome.end(error)
    return [run.folder.summary["status"] for run in runs]


def _train_in_parts(runs: Sequence[FusedRun], size: int, stop: StopSignal) -> list[str]:
    """Trains at most ``size`` runs together, in parts of nearly the same size."""
    if size == 1:
        log.info(f"{runs[0].config.name}: {len(runs)} seeds, one after the other: each fills a core alone")
        return _train_each(runs, stop)
    parts, statuses = -(-len(runs) // size), []
    for part in range(parts):
        members = runs[part * len(runs) // parts : (part + 1) * len(runs) // parts]
        train_members = _train_together if len(members) > 1 else _train_each
        statuses += ["interrupted"] * len(members) if stop.received else train_members(members, stop)
    return statuses


class RunOutcome:
    """``record_outcome`` of one run; the runs of a unit end at different times."""

    def __init__(self, run: FusedRun) -> None:
        self.run = run
        self._record = ExitStack()
        self._record.enter_context(record_outcome(run.folder, keep=True))
        self._has_ended = False

    def end(self, error: BaseException | None = None) -> None:
        """Records that the run has finished, or the error that ended it; nothing if it has ended before."""
        if self._has_ended:
            return
        self._has_ended = True
        if error is None:
            self._record.close()
            return
        log.error(f"{self.run.title}: {one_line(error) or type(error).__name__}")
        self._record.__exit__(type(error), error, error.__traceback__)


def _train_unit(unit: Unit, outcomes: list[RunOutcome], stop: StopSignal) -> None:
    """Trains, evaluates and records all runs of ``unit``; ``outcomes`` are theirs."""
    _record_start(unit)
    progresses = _resume_or_start(unit)
    with ExitStack() as stack:
        records = []
        for run, progress in zip(unit.runs, progresses, strict=True):
            records.append(_open_record(unit, run, progress))
            stack.callback(records[-1].logger.close)
        unit, records, outcomes = _fit_unit(unit, records, outcomes, stop)
        if not records:
            return
        results = final_metrics_fused(
            unit.trainer, unit.data, records, batch_size=unit.runs[0].config.eval_batch_size,
            load_best=lambda record: load(record.checkpoints.best),
        )  # fmt: skip
        for record, result in zip(records, results, strict=True):
            if not isinstance(result, Diverged):
                record.logger.final(result.final, record.progress.epoch)
    for outcome, record, result, splits in zip(outcomes, records, results, unit.splits, strict=True):
        if isinstance(result, Diverged):
            outcome.end(result)
            continue
        run = outcome.run
        record_metrics(run.config, run.folder, result, record.progress, splits)
        outcome.end()


def _resume_or_start(unit: Unit) -> list[Progress]:
    """Restores the newest checkpoints, or starts anew; all runs have one, or none has."""
    config = unit.runs[0].config
    states = [checkpoints_of(run.config, run.folder).newest() for run in unit.runs]
    saved = [state for state in states if state is not None]
    if not saved:
        for run in unit.runs:
            run.folder.clear()
        return [Progress(config.early_stopping.monitor) for _ in unit.runs]
    unit.trainer.restore_all(saved)
    progresses = [Progress.from_state(state["progress"]) for state in saved]
    log.info(f"{config.name}: {len(saved)} seeds go on after epoch {progresses[0].epoch}")
    return progresses


def _fit_unit(
    unit: Unit, records: list[RunRecord], outcomes: list[RunOutcome], stop: StopSignal
) -> tuple[Unit, list[RunRecord], list[RunOutcome]]:
    """Trains to the last epoch; returns those that did not diverge on their way."""
    while records:
        try:
            fit_fused(unit.trainer, unit.data, fit_settings(unit.runs[0].config), records, stop)
            break
        except ReplicasDiverged as divergence:
            unit, records, outcomes = _without_diverged(unit, records, outcomes, divergence.errors)
    return unit, records, outcomes


def _record_start(unit: Unit) -> None:
    """environment.json and the sizes of network and data, for each run."""
    config, replicas = unit.runs[0].config, len(unit.runs)
    seeds = ", ".join(str(run.config.seed) for run in unit.runs)
    plural = "s" * (unit.threads > 1)
    log.info(f"{config.name}: seeds {seeds} together on {unit.device}, {unit.threads} CPU thread{plural}")
    for run, splits in zip(unit.runs, unit.splits, strict=True):
        run.folder.record_environment(
            device=str(unit.device), threads=unit.threads, processes=1,
            **({"command": run.job.command} if run.job.command else {}),
        )  # fmt: skip
        run.folder.update(graph=False, fused=replicas)
        record_network(run.folder, unit.summary, splits)


def _open_record(unit: Unit, run: FusedRun, progress: Progress) -> RunRecord:
    logger = build.logger(
        run.config, run.folder.path, unit.data.train.steps(run.config.batch_size), progress,
        quiet=not run.share.has_console, hparams=run.job.shown_hparams,
        label=f"seed {run.config.seed}",
    )  # fmt: skip
    for tag, markdown in tensorboard_texts(run.job.config_yaml, unit.summary).items():
        logger.text(tag, markdown)
    return RunRecord(progress, logger, checkpoints_of(run.config, run.folder))


def _without_diverged(
    unit: Unit, records: list[RunRecord], outcomes: list[RunOutcome], errors: dict[int, Diverged]
) -> tuple[Unit, list[RunRecord], list[RunOutcome]]:
    """Records the runs that diverged, and returns the others where they stand."""
    for replica, error in errors.items():
        records[replica].logger.close()
        outcomes[replica].end(error)
    remaining = [replica for replica in range(len(records)) if replica not in errors]
    if not remaining:
        return unit, [], []
    states: list[dict[str, Any]] = unit.trainer.states([record.progress for record in records])
    smaller = unit.subset(remaining)
    smaller.trainer.restore_all([states[replica] for replica in remaining])
    return smaller, [records[replica] for replica in remaining], [outcomes[replica] for replica in remaining]
