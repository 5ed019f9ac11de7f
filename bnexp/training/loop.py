"""The training loop: batches, steps, evaluation, checkpoints; and the final metrics of a run."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from bnexp.data import DataSplits
from bnexp.errors import Diverged, name_list
from bnexp.probes.runner import NO_PROBES, ProbeRunner
from bnexp.runs.confusion import Confusion, metrics_of_test
from bnexp.runs.loggers import Logger
from bnexp.runs.run_log import restore_log
from bnexp.seeding import global_rng_state
from bnexp.signals import StopSignal
from bnexp.training.checkpoint import Checkpoints
from bnexp.training.metrics import Meter, confusion_counts, confusion_pairs
from bnexp.training.progress import Progress
from bnexp.training.trainer import Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitSettings:
    epochs: int
    batch_size: int
    eval_batch_size: int
    seed: int
    patience: int | None  # epochs without a better one before training stops early; None: it never does
    log_every: int  # steps between two readings of the device


class FinalMetrics(NamedTuple):
    """What a finished run achieved; ``best`` is None where no validation set chose an epoch.

    ``confusions`` are the confusion matrices of the test set at the final and at the best epoch.
    """

    final: dict[str, float]
    best: dict[str, float] | None
    confusions: dict[str, Confusion[int]]


def fit(
    trainer: Trainer,
    data: DataSplits,
    settings: FitSettings,
    progress: Progress,
    *,
    logger: Logger,
    checkpoints: Checkpoints,
    stop: StopSignal,
    probes: ProbeRunner = NO_PROBES,
) -> None:
    """Trains from where ``progress`` stands to the last epoch; ``progress.metrics`` are that epoch's.

    An epoch is logged before it is saved, so that no checkpoint is ahead of the log. Raises Diverged if a
    loss is not finite, and Interrupted after a signal, with the last step saved.
    """
    processes = trainer.processes
    meter = Meter(settings.log_every, processes)
    has_untrained = False

    def record_window() -> None:
        if meter.is_empty:
            return
        window = meter.read()  # within an epoch, only this waits for the device
        progress.add_window(window)
        first_step = progress.step - len(window.losses) + 1
        logger.steps(first_step, window.losses)
        for step, loss in enumerate(window.losses, first_step):
            require_finite(loss, f"epoch {progress.epoch + 1}, step {step}")

    def must_stop() -> bool:
        # Several processes agree by a message. They send one per window, not one per step.
        if processes.is_distributed and not meter.is_empty:
            return False
        return processes.any(stop.received is not None, trainer.device.torch_device)

    restore_signals_and_log(stop)
    if progress.step == 0:
        probes.at_start()
    while not progress.is_done(settings.epochs, settings.patience):
        start, epoch = time.perf_counter(), progress.epoch + 1
        trainer.begin_epoch(settings.seed, epoch, progress.current.rng_states)
        for batch in data.train.epoch(settings.batch_size, settings.seed, epoch, progress.current.steps):
            if must_stop():
                record_window()
                rng_states = processes.gather(global_rng_state(trainer.device.torch_device))
                progress.interrupt_epoch(time.perf_counter() - start, rng_states)
                checkpoints.save_last(trainer.state(progress))
                raise stop.interrupted()
            step = progress.step + 1
            if is_measured := probes.is_due(step):
                start += probes.before_step(step, batch)  # the time of a probe is no time of training
            meter.add(trainer.step(batch))  # the same call for a plain step and a CUDA graph
            if is_measured:
                start += probes.after_step(step, batch)
            trainer.schedule.after_step()
            progress.count_step()
            if meter.is_full:
                record_window()
        record_window()

        metrics = progress.finish_epoch(len(data.train), time.perf_counter() - start)
        metrics |= trainer.evaluate(data.watched, settings.eval_batch_size)
        restore_signals_and_log(stop)
        metrics["lr"] = trainer.lr  # of this epoch; with interval=step, of the next step
        trainer.schedule.after_epoch(metrics)
        is_best = progress.record(metrics)
        logger.epoch(metrics | {"epoch_s": time.perf_counter() - start}, epoch, trainer.model)
        probes.after_epoch(progress.step)
        for split in data.watched:
            require_finite(metrics[f"{split}/loss"], f"the {split} images after epoch {epoch}")
        has_untrained = has_untrained or warn_of_untrained(trainer, epoch)
        is_last = progress.is_done(settings.epochs, settings.patience)
        checkpoints.save(trainer.state(progress), epoch, best=is_best, final=is_last)


def restore_signals_and_log(stop: StopSignal) -> None:
    """Takes the log and the stop signals back from the user's own code; logs that it did the latter."""
    restore_log()
    if names := stop.take_back():
        log.warning(
            f"{', '.join(names)}: your own code has set a handler; bnexp has taken it back to save the run"
        )


def warn_of_untrained(trainer: Trainer, epoch: int) -> bool:
    """Whether parameters require a gradient that the optimizer does not have; logs a warning if so.

    A network can switch their gradient on, or make them, after the optimizer was built.
    """
    trained = set(map(id, trainer.parameters))
    names = [
        name for name, value in trainer.model.named_parameters()
        if value.requires_grad and id(value) not in trained
    ]  # fmt: skip
    if names:
        log.warning(
            f"model: after epoch {epoch} parameters require a gradient that did not when the training began,"
            f" and are not trained: {name_list(names, 3)}; let them require it in"
            " __init__ and switch it off in forward while they are frozen"
        )
    return bool(names)


def require_finite(loss: float, place: str) -> None:
    """Raises Diverged, naming the place, if a loss is not a finite number."""
    if not math.isfinite(loss):
        raise Diverged(f"the loss became {loss} in {place}")


def final_metrics(
    trainer: Trainer,
    data: DataSplits,
    progress: Progress,
    *,
    batch_size: int,
    load_best: Callable[[], dict[str, Any]],
    check_final: Callable[[dict[str, float]], None] = lambda _: None,
) -> FinalMetrics:
    """The metrics of the final weights, and those of the best epoch, both with the test set.

    train/* are means in training mode while the weights moved. train_eval/* are the final weights in eval
    mode: only these can be compared with val/* and test/*. The test set is evaluated here, after everything
    has been chosen. ``check_final`` gets the metrics of the final weights, and may raise an error.
    ``load_best`` reads the checkpoint of the best epoch, whose weights then stay in the trainer. Raises
    Diverged if a loss of the final weights is not finite.
    """
    final = {name: value for name, value in progress.metrics.items() if "/" in name}  # SPLIT/METRIC
    final |= trainer.evaluate({"train_eval": data.train}, batch_size)
    require_finite(final["train_eval/loss"], "the final evaluation (train_eval)")
    test, confusion = _test(trainer, data, batch_size)
    require_finite(test["test/loss"], "the final evaluation (test)")
    final |= test
    check_final(final)
    confusions = {"final": confusion}
    if progress.best is None:
        return FinalMetrics(final, None, confusions)
    if progress.best["epoch"] != progress.epoch:
        trainer.load_model(load_best())
        test, confusion = _test(trainer, data, batch_size)
    return FinalMetrics(final, progress.best | test, confusions | {"best": confusion})


def _test(trainer: Trainer, data: DataSplits, batch_size: int) -> tuple[dict[str, float], Confusion[int]]:
    """The metrics on the test set, and its confusion matrix."""
    loss, accuracy, classes = trainer.classify(data.test, batch_size)
    counts = trainer.processes.sum_(confusion_counts(data.test.labels, classes, len(data.classes)))
    confusion = confusion_pairs(counts)
    return metrics_of_test(loss, accuracy, confusion), confusion
