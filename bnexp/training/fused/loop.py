"""The training loop of R runs that take each step together, and their final metrics.

It is ``training/loop.py`` with a list of records in place of one: the steps are common, everything that is
written belongs to one run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bnexp.data.fused_batches import FusedData
from bnexp.errors import Diverged
from bnexp.runs.confusion import Confusion, metrics_of_test
from bnexp.runs.loggers import Logger
from bnexp.signals import StopSignal
from bnexp.training.checkpoint import Checkpoints
from bnexp.training.fused.trainer import Classification, FusedMeter, FusedTrainer
from bnexp.training.loop import FinalMetrics, FitSettings, require_finite
from bnexp.training.metrics import confusion_counts, confusion_pairs
from bnexp.training.progress import Progress


@dataclass(frozen=True)
class RunRecord:
    """What the loop writes for one run."""

    progress: Progress
    logger: Logger
    checkpoints: Checkpoints


class ReplicasDiverged(Exception):
    """Some replicas have diverged; ``errors`` holds each one's error by its number.

    The others stand after the last step of their progress and can go on.
    """

    def __init__(self, errors: dict[int, Diverged]) -> None:
        super().__init__(f"{len(errors)} diverged")
        self.errors = errors


def fit_fused(
    trainer: FusedTrainer,
    data: FusedData,
    settings: FitSettings,
    records: Sequence[RunRecord],
    stop: StopSignal,
) -> None:
    """Trains from where ``records`` stand, all at the same step, to the last epoch.

    Raises ReplicasDiverged if losses are not finite, and Interrupted after a signal, with the last step of
    all replicas saved.
    """
    progresses = [record.progress for record in records]
    meter = FusedMeter(settings.log_every)

    def record_window() -> None:
        if meter.is_empty:
            return
        errors: dict[int, Diverged] = {}
        windows = meter.read_all()  # within an epoch, only this waits for the device
        for replica, (record, window) in enumerate(zip(records, windows, strict=True)):
            record.progress.add_window(window)
            first_step = record.progress.step - len(window.losses) + 1
            record.logger.steps(first_step, window.losses)
            for step, loss in enumerate(window.losses, first_step):
                place = f"epoch {record.progress.epoch + 1}, step {step}"
                collect_divergence(errors, replica, loss, place)
        if errors:
            interrupt_epoch()
            raise ReplicasDiverged(errors)

    def interrupt_epoch() -> None:
        for progress in progresses:
            progress.interrupt_epoch(time.perf_counter() - start, [])

    while not progresses[0].is_done(settings.epochs, None):
        start, epoch = time.perf_counter(), progresses[0].epoch + 1
        trainer.model.train()
        for batch in data.train.epoch(settings.batch_size, epoch, progresses[0].current.steps):
            if stop.received is not None:
                record_window()
                interrupt_epoch()
                for record, state in zip(records, trainer.states(progresses), strict=True):
                    record.checkpoints.save_last(state)
                raise stop.interrupted()
            meter.add(trainer.step(batch))
            trainer.schedule.after_step()
            for progress in progresses:
                progress.count_step()
            if meter.is_full:
                record_window()
        record_window()
        finish_epoch(trainer, data, settings, records, start)


def finish_epoch(
    trainer: FusedTrainer, data: FusedData, settings: FitSettings, records: Sequence[RunRecord], start: float
) -> None:
    """Evaluates, logs and saves an epoch that began at ``start``; raises ReplicasDiverged."""
    seconds = time.perf_counter() - start
    trained = [record.progress.finish_epoch(len(data.train), seconds) for record in records]
    evaluated = trainer.evaluate_all(data.watched, settings.eval_batch_size)
    lr = trainer.lr  # of this epoch; with interval=step, of the next step
    trainer.schedule.after_epoch({})
    metrics = [first | second | {"lr": lr} for first, second in zip(trained, evaluated, strict=True)]
    is_best = [record.progress.record(values) for record, values in zip(records, metrics, strict=True)]
    states = trainer.states([record.progress for record in records])
    epoch_s = time.perf_counter() - start
    errors: dict[int, Diverged] = {}
    for replica, (record, values) in enumerate(zip(records, metrics, strict=True)):
        epoch = record.progress.epoch
        record.logger.epoch(values | {"epoch_s": epoch_s}, epoch, trainer.network(replica))
        for split in data.watched:
            place = f"the {split} images after epoch {epoch}"
            collect_divergence(errors, replica, values[f"{split}/loss"], place)
        if replica not in errors:
            is_last = record.progress.is_done(settings.epochs, None)
            record.checkpoints.save(states[replica], epoch, best=is_best[replica], final=is_last)
    if errors:
        raise ReplicasDiverged(errors)


def collect_divergence(errors: dict[int, Diverged], replica: int, loss: float, place: str) -> None:
    """Adds the first loss of a replica that is not finite."""
    try:
        require_finite(loss, place)
    except Diverged as error:
        errors.setdefault(replica, error)


def final_metrics_fused(
    trainer: FusedTrainer,
    data: FusedData,
    records: Sequence[RunRecord],
    *,
    batch_size: int,
    load_best: Callable[[RunRecord], dict[str, Any]],
) -> list[FinalMetrics | Diverged]:
    """The final metrics of each run, as ``final_metrics`` has them for one; Diverged for those not finite."""
    progresses = [record.progress for record in records]
    train_eval = trainer.evaluate_all({"train_eval": data.train}, batch_size)
    tests = trainer.classify_all(data.test, batch_size)
    errors: dict[int, Diverged] = {}
    for replica, (values, test) in enumerate(zip(train_eval, tests, strict=True)):
        place = "the final evaluation"
        collect_divergence(errors, replica, values["train_eval/loss"], f"{place} (train_eval)")
        collect_divergence(errors, replica, test.loss, f"{place} (test)")
    best_tests = tests
    earlier = [
        progress.best is not None and progress.best["epoch"] != progress.epoch for progress in progresses
    ]
    if any(earlier):
        states = trainer.states(progresses)
        trainer.load_models(
            [
                load_best(record) if has_earlier and replica not in errors else states[replica]
                for replica, (record, has_earlier) in enumerate(zip(records, earlier, strict=True))
            ]
        )
        best_tests = trainer.classify_all(data.test, batch_size)
    labels, classes = data.test.labels, len(data.classes)
    results: list[FinalMetrics | Diverged] = []
    for replica, progress in enumerate(progresses):
        if replica in errors:
            results.append(errors[replica])
            continue
        final = {name: value for name, value in progress.metrics.items() if "/" in name}  # SPLIT/METRIC
        metrics, confusion = _test(tests[replica], labels[:, replica], classes)
        final |= train_eval[replica] | metrics
        confusions, best = {"final": confusion}, None
        if progress.best is not None:
            metrics, confusion = _test(best_tests[replica], labels[:, replica], classes)
            best = progress.best | metrics
            confusions |= {"best": confusion}
        results.append(FinalMetrics(final, best, confusions))
    return results


def _test(test: Classification, labels: Tensor, classes: int) -> tuple[dict[str, float], Confusion[int]]:
    """The metrics on the test set, whose true classes are ``labels`` (N,), and its confusion matrix."""
    confusion = confusion_pairs(confusion_counts(labels, test.classes, classes))
    return metrics_of_test(test.loss, test.accuracy, confusion), confusion
