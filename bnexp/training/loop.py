"""The training loop: batches, steps, evaluation, checkpoints, and the final metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bnexp.data import Batches
from bnexp.signals import StopSignal
from bnexp.training.checkpoint import Checkpoints
from bnexp.training.metrics import Recorder
from bnexp.training.progress import Progress
from bnexp.training.trainer import Trainer


def fit(
    trainer: Trainer,
    train: Batches,
    watched: dict[str, Batches],
    *,
    epochs: int,
    batch_size: int,
    eval_batch_size: int,
    seed: int,
    patience: int | None,
    window: int,
    progress: Progress,
    checkpoints: Checkpoints,
    recorder: Recorder,
    stop: StopSignal,
) -> dict[str, float]:
    """Trains from where ``progress`` is to ``epochs``; ``watched`` splits are evaluated after each one.

    Only a split named val ever chooses: the best epoch, a plateau, an early stop. An epoch is recorded
    before it is saved, so that no checkpoint is ahead of its record. Returns the last epoch's metrics, by
    TensorBoard tag. Raises Interrupted after a signal, with the last step saved.
    """

    def over() -> bool:
        return progress.epoch >= epochs or (patience is not None and progress.stale >= patience)

    while not over():
        started = time.perf_counter()
        metrics = None
        if not trainer.asked_to_stop(stop):
            metrics = trainer.train_epoch(
                train, batch_size, seed=seed, progress=progress, window=window, recorder=recorder, stop=stop
            )
        if metrics is None:
            checkpoints.save_last(trainer.state(progress))
            raise stop.interrupted()
        for split, batches in watched.items():
            found = trainer.evaluate(batches, eval_batch_size)
            metrics |= {f"{split}/{name}": value for name, value in found.items()}
        metrics["lr"] = trainer.lr
        trainer.schedule.after_epoch(metrics)
        best = progress.judge(metrics)
        progress.metrics = metrics
        recorder.epoch(metrics | {"epoch_s": time.perf_counter() - started}, progress.epoch, trainer.model)
        checkpoints.save(trainer.state(progress), progress.epoch, best=best, final=over())
    return progress.metrics


def final_metrics(
    trainer: Trainer,
    train: Batches,
    test: Batches,
    metrics: dict[str, float],
    *,
    batch_size: int,
    progress: Progress,
    best_weights: Callable[[], dict[str, Any]],
) -> tuple[dict[str, float], dict[str, float] | None]:
    """The final metrics, and those of the best epoch by val with the test set at its weights.

    train/* of the last epoch are means in training mode while the weights moved; train_eval/* are the
    final weights in eval mode, the only ones to hold against val/* and test/*. The test set is looked at
    here, after everything has been chosen.
    """
    final = dict(metrics)
    for name, batches in (("train_eval", train), ("test", test)):
        if f"{name}/loss" not in final:
            found = trainer.evaluate(batches, batch_size)
            final |= {f"{name}/{key}": value for key, value in found.items()}
    best = None
    if progress.best is not None:
        best = dict(progress.best)
        if best["epoch"] == progress.epoch:
            found = {key: final[f"test/{key}"] for key in ("loss", "accuracy")}
        else:
            trainer.load_model(best_weights())
            found = trainer.evaluate(test, batch_size)
        best |= {f"test/{key}": value for key, value in found.items()}
    return {key: value for key, value in final.items() if "/" in key}, best
