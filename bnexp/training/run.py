"""One run: data, network, training, final metrics, and their record in the run's folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from bnexp.compute.device import prepare_device
from bnexp.compute.memory import memory_guard
from bnexp.compute.process_tuning import default_dtype, set_threads
from bnexp.compute.processes import Processes
from bnexp.config.instantiate import check_components, components_of, files_read
from bnexp.config.schema import Config
from bnexp.config.source import check_code
from bnexp.data import DataSplits
from bnexp.data.network_input import NetworkInput
from bnexp.errors import NotReproducible, UserError
from bnexp.models.summary import Summary
from bnexp.probes.probe import Probe
from bnexp.runs.chance import is_at_chance
from bnexp.runs.confusion import predicted_classes, write_confusion
from bnexp.runs.folder import RunFolder
from bnexp.runs.job import Job, MachineShare
from bnexp.runs.latest import point_latest
from bnexp.runs.run_log import IN_VERDICT, restore_log
from bnexp.signals import StopSignal
from bnexp.training import build
from bnexp.training.checkpoint import Checkpoints, check_layer_order, load
from bnexp.training.cuda_graph import CudaGraphTrainer
from bnexp.training.loop import FinalMetrics, FitSettings, final_metrics, fit, restore_signals_and_log
from bnexp.training.probes import build_probes, probe_runner
from bnexp.training.progress import Progress
from bnexp.training.reproduction import check_reproduction
from bnexp.training.trainer import Trainer
from bnexp.training.trial.known import needs_trial
from bnexp.training.trial.trial import try_components

log = logging.getLogger(__name__)


def train(config: Config, folder: RunFolder, job: Job, share: MachineShare, stop: StopSignal) -> None:
    """One run, from a checked configuration to a complete record.

    It continues from the checkpoint in the folder if there is one. Nothing is printed before everything is
    built: a mistake is then the only line.
    """
    check_components(config)
    processes = Processes.from_environment()
    device = prepare_device(config.device, processes.local_rank if processes.is_distributed else share.gpu)
    smaller_keys = f"batch_size={config.batch_size} or eval_batch_size={config.eval_batch_size}"
    with processes.connect(device.torch_device), memory_guard(smaller_keys):
        splits = processes.agree_on(
            lambda: build.load_splits(config, device, job.fingerprints.get("dataset")),
            key=lambda data: data.counts,
        )
        if processes.is_distributed:
            build.check_shards(config, splits, processes.world_size)
        data_shape = NetworkInput.of_splits(splits)
        network = build.model(config, data_shape)
        check_code(job.values, job.fingerprints)
        build.check_model(config, data_shape, network)
        summary = build.summary(network, config, splits)
        # A continued run keeps its number of threads: another one would change the last bits.
        threads = set_threads(
            config.device.threads or folder.previous_threads(),
            summary.flops * config.batch_size / processes.world_size,
            share.jobs_at_once * processes.local_world_size,
        )
        folder.record_environment(
            device=str(device), threads=threads, processes=processes.world_size,
            **({"command": job.command} if job.command else {}),
        )  # fmt: skip
        record_network(folder, summary, splits)
        restore_signals_and_log(stop)
        if needs_trial(config):
            with default_dtype():  # networks that are built later must not depend on what a step sets
                try_components(
                    config, splits, lambda: build.untrained_trainer(config, device, splits, processes)
                )
        trainer = build.trainer(
            config, network, device, splits, processes, graph_used_before=folder.summary["graph"]
        )
        probes = build_probes(config, trainer, splits)
        restore_log()
        process_count = f", {processes.world_size} processes" if processes.is_distributed else ""
        plural = "s" * (threads > 1)
        log.info(
            f"{config.name}: seed {config.seed} on {device}, {threads} CPU thread{plural}{process_count}"
        )
        log.log(logging.DEBUG if job.is_in_sweep else logging.INFO, str(summary))
        folder.update(
            graph=isinstance(trainer, CudaGraphTrainer),
            probes={probe.name: None for probe in probes},
            files=files_read(components_of(config)),
        )
        if not job.is_in_sweep:  # not before: a mistake would leave a link to a folder that is removed
            point_latest(folder.path)
        texts = tensorboard_texts(job.config_yaml, summary)
        metrics, progress = fit_and_test(
            config, trainer, splits, folder, stop, texts, job, probes, quiet=not share.has_console
        )
    record_metrics(config, folder, metrics, progress, splits)


def tensorboard_texts(config_yaml: str, summary: Summary) -> dict[str, str]:
    """Markdown for TensorBoard's text tab."""
    return {"config": f"```yaml\n{config_yaml}```", "model": summary.markdown()}


def record_network(folder: RunFolder, summary: Summary, splits: DataSplits) -> None:
    """Writes the sizes of network and data, and what the network reads, to the run's summary."""
    folder.update(
        parameters=summary.parameters, images=splits.counts, classes=len(splits.classes),
        majority=splits.majority, input=NetworkInput.of_splits(splits).record(),
    )  # fmt: skip


def record_metrics(
    config: Config, folder: RunFolder, metrics: FinalMetrics, progress: Progress, splits: DataSplits
) -> None:
    """Writes what a run achieved to its summary and to the log."""
    predictions = {
        epoch: predicted_classes(confusion, len(splits.classes))
        for epoch, confusion in metrics.confusions.items()
    }
    write_confusion(folder.path, metrics.confusions, splits.classes)
    folder.update(final=metrics.final, best=metrics.best, predictions=predictions, time=progress.times())
    restore_log()
    accuracy, loss = metrics.final["test/accuracy"], metrics.final["test/loss"]
    log.info(f"{config.name}: test accuracy {accuracy:.4f}, loss {loss:.4f} | {folder.shown}")
    if is_at_chance(accuracy, splits.majority, predictions["final"]):
        share = max(predictions["final"]) / len(splits.test)
        log.warning(
            f"{config.name}: at chance, this network has learned nothing: it gives {share:.0%} of the test"
            f" images to one class; always guessing the largest class reaches {splits.majority:.4f}",
            extra=IN_VERDICT,
        )


def fit_and_test(
    config: Config,
    trainer: Trainer,
    splits: DataSplits,
    folder: RunFolder,
    stop: StopSignal,
    texts: Mapping[str, str],
    job: Job,
    probes: Sequence[Probe],
    *,
    quiet: bool,
) -> tuple[FinalMetrics, Progress]:
    """Trains to the end; returns the final metrics and the progress.

    ``texts`` are Markdown for TensorBoard.
    """
    settings, checkpoints = fit_settings(config), checkpoints_of(config, folder)
    progress = resume_or_start(config, trainer, checkpoints, folder)
    logger = build.logger(
        config, folder.path, splits.train.steps(config.batch_size), progress,
        quiet=quiet, hparams=job.shown_hparams,
    )  # fmt: skip
    with closing(logger):
        for tag, markdown in texts.items():
            logger.text(tag, markdown)
        runner = probe_runner(config, probes, trainer, splits, logger)
        try:
            fit(
                trainer, splits, settings, progress,
                logger=logger, checkpoints=checkpoints, stop=stop, probes=runner,
            )  # fmt: skip
        finally:
            folder.summary["probes"].update(runner.failures)
        checkpoints.finish()
        metrics = final_metrics(
            trainer, splits, progress, batch_size=config.eval_batch_size,
            check_final=lambda final: record_reproduction(
                config, trainer, splits, folder, checkpoints.last, final
            ),
            load_best=lambda: trainer.processes.broadcast(lambda: load(checkpoints.best)),
        )  # fmt: skip
        logger.final(metrics.final, progress.epoch)
    return metrics, progress


def record_reproduction(
    config: Config,
    trainer: Trainer,
    splits: DataSplits,
    folder: RunFolder,
    checkpoint: Path,
    final: dict[str, float],
) -> None:
    """Checks that ``checkpoint`` gives the results of a user's own parts again, and records whether it does.

    Raises NotReproducible where it does not.
    """
    if not needs_trial(config):
        return
    folder.update(final=final)  # for the user to see, if the check fails
    try:
        check_reproduction(config, trainer, splits, checkpoint)
    except NotReproducible as error:
        folder.update(reproduced=False, error=str(error))
        raise
    folder.update(reproduced=True)


def fit_settings(config: Config) -> FitSettings:
    return FitSettings(
        epochs=config.epochs, batch_size=config.batch_size, eval_batch_size=config.eval_batch_size,
        seed=config.seed, patience=config.early_stopping.patience, log_every=config.tracking.every,
    )  # fmt: skip


def checkpoints_of(config: Config, folder: RunFolder) -> Checkpoints:
    return Checkpoints(
        folder.path / "checkpoints", every=config.checkpoint.every, keep=config.checkpoint.keep
    )


def resume_or_start(
    config: Config, trainer: Trainer, checkpoints: Checkpoints, folder: RunFolder
) -> Progress:
    """Restores the trainer from the folder's newest checkpoint and returns how far that run had come.

    Without a checkpoint the run starts anew, and records of an earlier attempt are removed. Raises UserError
    where they are those of a finished run, and where early stopping would have ended the run earlier.
    Raises NotReproducible where the earlier attempt ended with it.
    """
    state = trainer.processes.broadcast(checkpoints.newest)
    if state is None:
        if previous := folder.previous_summary:
            if previous["status"] == "finished":
                raise UserError(
                    f"{folder.shown}: has no checkpoint to go on from, and a run from the beginning would"
                    " replace the results of this finished one; choose another folder"
                )
            log.info(f"{config.name}: no checkpoint to go on from: starts anew")
        folder.clear()
        return Progress(config.early_stopping.monitor)
    previous = folder.previous_summary or {}
    if previous.get("reproduced") is False:
        error = str(previous.get("error"))
        raise NotReproducible(error.removeprefix(f"{NotReproducible.__name__}: "))
    check_layer_order(config.model.title, trainer.model, state["model"])
    progress = trainer.restore(state)
    steps = f", {progress.current.steps} steps into the next" if progress.current.steps else ""
    log.info(f"{config.name}: goes on after epoch {progress.epoch}{steps}")
    patience = config.early_stopping.patience
    if progress.has_waited(patience):
        raise UserError(
            f"early_stopping.patience={patience}: would have ended this run before its epoch"
            f" {progress.epoch}; take a larger one (or null), or start a new run in another folder"
        )
    if progress.is_stale(patience) and progress.epoch < config.epochs:
        log.warning(
            f"{config.name}: early stopping ended this run {patience} epochs after its best one: nothing to"
            " train; a larger early_stopping.patience (or null) goes on"
        )
    return progress
