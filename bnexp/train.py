"""The entry point: ``bnexp`` and ``python -m bnexp.train``. It wires; the rooms below do the work.

torch is imported when a run begins, not before: --help, --cfg and completion stay quick.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from bnexp.cli import composed_config, exit_codes, launch
from bnexp.compute import torchrun
from bnexp.config.schema import Config, parse
from bnexp.runs.folder import RunFolder, locked, record_outcome
from bnexp.signals import StopSignal
from bnexp.sweeps import sweep, workers

if TYPE_CHECKING:
    from bnexp.training.build import DataSplits
    from bnexp.training.checkpoint import Checkpoints
    from bnexp.training.progress import Progress
    from bnexp.training.trainer import Trainer

log = logging.getLogger(__name__)


def train(config: Config, folder: RunFolder, text: str, stop: StopSignal, job: sweep.Job | None) -> None:
    """One run, from a checked configuration to a complete record; ``job`` where it belongs to a sweep.

    It goes on from the checkpoint in the folder, where there is one.
    """
    from bnexp.compute import device, memory, process_tuning
    from bnexp.compute.processes import Processes
    from bnexp.training import build

    jobs, hparams, quiet = (job.at_once, job.hparams, job.quiet) if job else (1, {}, False)
    processes = Processes.started()
    number = processes.local_rank if processes.world > 1 else job.turn if job else None
    place = device.prepare(config.device, number)
    batch = f"batch_size={config.batch_size} or eval_batch_size={config.eval_batch_size}"
    with processes.joined(place.device), memory.memory_guard(batch):
        images = processes.agreed(lambda: build.load_splits(config, place), same=lambda found: found.counts)
        network = build.model(config, images)
        summary = build.summary(network, config, images)
        wanted = config.device.threads or folder.threads_before()  # another number would change the last bits
        flops = summary.flops * config.batch_size / processes.world
        threads = process_tuning.set_threads(wanted, flops, jobs * processes.local_world)
        command = {"command": job.command} if job else {}
        folder.record_environment(device=str(place), threads=threads, processes=processes.world, **command)
        where = f"{place}, {threads} CPU thread{'s' * (threads > 1)}"
        several = f", {processes.world} processes" if processes.world > 1 else ""
        log.info(f"{config.name}: seed {config.seed} on {where}{several}")
        log.log(logging.DEBUG if job else logging.INFO, str(summary))
        folder.update(
            parameters=summary.parameters, images=images.counts, classes=len(images.classes),
            majority=images.majority,
        )  # fmt: skip
        before = folder.summary["graph"]
        trainer = build.trainer(config, network, place, images, processes, graph_before=before)
        folder.update(graph=trainer.graph is not None)
        notes = {"config": f"```yaml\n{text}```", "model": summary.markdown()}
        final, best, progress = learn(
            config, trainer, images, folder, stop, notes, quiet=quiet, hparams=hparams
        )
    folder.update(best=best, final=final, time=progress.times())
    accuracy, loss = final["test/accuracy"], final["test/loss"]
    log.info(f"{config.name}: test accuracy {accuracy:.4f}, loss {loss:.4f} | {os.path.relpath(folder.path)}")


def learn(
    config: Config,
    trainer: Trainer,
    images: DataSplits,
    folder: RunFolder,
    stop: StopSignal,
    notes: Mapping[str, str],
    *,
    quiet: bool,
    hparams: Mapping[str, float | str],
) -> tuple[dict[str, float], dict[str, float] | None, Progress]:
    """Trains to the end from where the folder's checkpoint is; the final metrics, those of the best epoch."""
    from bnexp.training import build
    from bnexp.training.checkpoint import Checkpoints, load
    from bnexp.training.loop import final_metrics, fit

    keys, processes = config.checkpoint, trainer.processes
    checkpoints = Checkpoints(folder.path / "checkpoints", every=keys.every, keep=keys.keep)
    progress = carried_on(config, trainer, checkpoints, folder)
    steps = images.train.steps(config.batch_size)
    tracker = build.tracker(config, folder.path, steps, progress, quiet=quiet, hparams=hparams)
    with closing(tracker):
        for tag, markdown in notes.items():
            tracker.text(tag, markdown)
        metrics = fit(
            trainer, images.train, images.watched, epochs=config.epochs, batch_size=config.batch_size,
            eval_batch_size=config.eval_batch_size, seed=config.seed, patience=config.early_stopping.patience,
            window=config.tracking.every, progress=progress, recorder=tracker, stop=stop,
            checkpoints=checkpoints,
        )  # fmt: skip
        final, best = final_metrics(
            trainer, images.train, images.test, metrics, batch_size=config.eval_batch_size, progress=progress,
            best_weights=lambda: processes.from_first(lambda: load(checkpoints.best)),
        )  # fmt: skip
        tracker.final(final, progress.epoch)
    return final, best, progress


def carried_on(config: Config, trainer: Trainer, checkpoints: Checkpoints, folder: RunFolder) -> Progress:
    """How far the run in the folder had come, with the trainer as it was then; nowhere in a new one."""
    from bnexp.training.progress import Progress

    state = trainer.processes.from_first(checkpoints.newest)
    if state is None:
        folder.clear()
        return Progress(config.early_stopping.monitor)
    progress = trainer.restore(state)
    within = f", {progress.tally.batches} steps into the next" if progress.tally.batches else ""
    log.info(f"{config.name}: goes on after epoch {progress.epoch}{within}")
    return progress


@hydra.main(version_base="1.3", config_path="pkg://bnexp.conf", config_name="config")
def entry(composed: DictConfig) -> None:
    hydra_config = HydraConfig.get()
    path = Path(hydra_config.runtime.output_dir)
    current = sweep.Sweep.current()
    stop = workers.stop_signal(current.stop_file if current else None)
    if stop.received is not None or (current and not current.wants(hydra_config, path, composed)):
        return

    def run() -> None:
        values = composed_config.resolve_config(composed)
        with locked(path):
            folder = RunFolder(path, values, list(hydra_config.overrides.task))
            if folder.before is None:
                composed_config.save_config(path, composed)
            with record_outcome(folder, keep=current is not None):
                config = parse(values)
                if folder.before is not None:  # a mistake leaves it as it was
                    composed_config.save_config(path, composed)
                text = OmegaConf.to_yaml(composed, resolve=True)
                train(config, folder, text, stop, current.job(hydra_config) if current else None)
        if stop.received is not None:  # it came after the last step: the run is finished, a sweep is not
            raise stop.interrupted()

    with stop:  # to the last line: torchrun ends the others with a signal while they say what they saw
        code = exit_codes.exit_code(run)
    if code >= 128:
        if current is None and not torchrun.is_distributed():
            log.info(f"carry on: bnexp-resume {shlex.quote(os.path.relpath(path))}")
        stop.hand_on()
    if current is None or (code >= 128 and stop.ends_process):  # the parent hears for its workers
        sys.exit(code)


def main() -> None:
    code = launch.launch(entry)
    sys.exit(exit_codes.exit_code(lambda: sys.exit(sweep.finish_sweep(code))))


if __name__ == "__main__":
    main()
