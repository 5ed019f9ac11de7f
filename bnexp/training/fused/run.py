"""Runs that differ only in their seed, trained together: from their configurations to their records."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from bnexp.compute.memory import memory_guard
from bnexp.errors import Diverged, UserError, one_line
from bnexp.runs.outcome import record_outcome
from bnexp.runs.run_log import warnings_of
from bnexp.signals import StopSignal
from bnexp.training import build
from bnexp.training.checkpoint import load
from bnexp.training.fused.loop import ReplicasDiverged, RunRecord, final_metrics_fused, fit_fused
from bnexp.training.fused.obstacles import differ_in_seed_alone, reason_not_to_fuse
from bnexp.training.fused.unit import FusedRun, TooManyReplicas, Unit, prepare_unit
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


def train_fused(runs: Sequence[FusedRun], stop: StopSignal) -> list[str]:
    """Trains runs that differ in their seed, and records in each one's folder how it ended.

    Returns the status of each: finished, diverged, failed or interrupted. Runs that have come equally far are
    trained as one network. All others, and all where that is not possible, are trained one after the other;
    the log says why. After a signal those that did not begin have the status interrupted, and no record.
    Raises UserError for a mistake, which all of them have.
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
        state = _newest_state(run)
        progress = None if state is None else Progress.from_state(state["progress"])
        key = None if progress is None else (progress.epoch, progress.current.steps)
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def _newest_state(run: FusedRun) -> dict[str, Any] | None:
    with warnings_of(run.job.path):
        return checkpoints_of(run.config, run.folder).newest()


def _train_each(runs: Sequence[FusedRun], stop: StopSignal) -> list[str]:
    """Each run alone. An error ends its run and no other."""
    statuses = []
    for run in runs:
        if stop.received is not None:
            statuses.append("interrupted")
            continue
        try:
            with warnings_of(run.job.path), record_outcome(run.folder, keep=True):
                train(run.config, run.folder, run.job, run.share, stop)
        except (Exception, KeyboardInterrupt) as error:  # recorded: the other runs must go on
            log.error(f"{run.title}: {one_line(error) or type(error).__name__}")
        statuses.append(run.folder.summary["status"])
    return statuses


def _train_together(runs: Sequence[FusedRun], stop: StopSignal) -> list[str]:
    config = runs[0].config
    keys = f"batch_size={config.batch_size} or eval_batch_size={config.eval_batch_size}"
    try:
        with memory_guard(keys):
            unit = prepare_unit(runs)
    except TooManyReplicas as error:
        return _train_in_parts(runs, error.size, stop)
    except UserError as error:  # the runs differ in their seed alone: each of them has it
        for run in runs:
            RunOutcome(run).end(error)
        raise
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
        for record in records:
            record.checkpoints.finish()
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
    states = [_newest_state(run) for run in unit.runs]
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
    with warnings_of(run.job.path):
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
