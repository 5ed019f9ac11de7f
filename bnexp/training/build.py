"""Config -> objects: data, network, loss, optimizer, scheduler, loggers.

Each is handed what it needs from those before it.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bnexp import data
from bnexp.compute import device, torch_overhead
from bnexp.compute.device import ComputeDevice
from bnexp.compute.memory import memory_guard
from bnexp.compute.processes import SINGLE_PROCESS, Processes
from bnexp.config.instantiate import instantiate
from bnexp.config.schema import Component, Config
from bnexp.data import Batches
from bnexp.errors import OutOfMemory, UserError, bad_value, one_line
from bnexp.models.initialization import build_seeded
from bnexp.models.norms import BatchNorm
from bnexp.models.summary import Summary, summarise
from bnexp.runs.identity import RUN_LENGTH_KEYS
from bnexp.runs.loggers import (
    ConsoleLogger,
    CsvLogger,
    Logger,
    LoggerGroup,
    RecordedProgress,
    TensorBoardLogger,
)
from bnexp.training.cuda_graph import CudaGraphSteps, is_capturable, make_capturable, trial
from bnexp.training.metrics import PlainSteps, Step, Steps
from bnexp.training.progress import Progress
from bnexp.training.schedule import Schedule
from bnexp.training.trainer import Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataSplits:
    """The three splits on the device; ``val`` is None where nothing was held out."""

    train: Batches
    val: Batches | None
    test: Batches
    classes: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Images of each split."""
        return {"train": len(self.train), "val": len(self.val or ()), "test": len(self.test)}

    @property
    def majority(self) -> float:
        """The share of the commonest class in the test set: what a network gets that knows no other."""
        return int(self.test.labels.bincount().max()) / len(self.test)

    @property
    def watched(self) -> dict[str, Batches]:
        """What is evaluated every epoch: val, or, where there is none, test, which then chooses nothing."""
        return {"test": self.test} if self.val is None else {"val": self.val}


def load_splits(config: Config, place: ComputeDevice) -> DataSplits:
    """Loads the images and splits them; raises UserError for what the data does not allow."""
    keys = config.dataset
    source = data.load_dataset(keys.name, keys.root, keys.resize)
    train_index, val_index = data.train_val_indices(source.train.labels, keys, config.seed)
    test_index = data.test_indices(source.test.labels, keys.test_size)
    train, test = source.train.to(place.device), source.test.to(place.device)  # once, for train and val
    mean, std = keys.mean, keys.std
    if mean == "auto" or std == "auto":
        found = data.channel_statistics(train.pixels, train_index)
        mean, std = (found[0] if mean == "auto" else mean), (found[1] if std == "auto" else std)

    def batches(images: data.Images, index: Tensor | None, augment: tuple[str, ...] = ()) -> Batches:
        return Batches(
            images, place.device, index=index, mean=mean, std=std, resize=keys.resize,
            augment=augment, crop_padding=keys.crop_padding,
        )  # fmt: skip

    return DataSplits(
        train=batches(train, train_index, keys.augment),
        val=None if val_index is None else batches(train, val_index),
        test=batches(test, test_index),
        classes=source.classes,
    )


def model(config: Config, images: DataSplits) -> nn.Module:
    """The network on the CPU, its start a function of the seed alone."""
    given = {
        "in_channels": images.train.in_channels,
        "image_size": images.train.image_size,
        "num_classes": len(images.classes),
    }
    with memory_guard(f"model={config.model.target}"):
        built = build_seeded(lambda: instantiate(config.model, given), config.seed)
    if not isinstance(built, nn.Module):
        raise UserError(
            f"model._target_={config.model.target}: gives a {type(built).__name__}, not an nn.Module"
        )
    return built


def summary(network: nn.Module, config: Config, images: DataSplits) -> Summary:
    """Runs a copy of the network once, as small as its last batch, so that a misfit shows before training.

    Raises UserError where the network does not fit the images, the classes or the batch.
    """
    last = len(images.train) % config.batch_size or config.batch_size
    count = min(last, 2)
    size = images.train.image_size
    example = torch.zeros(count, images.train.in_channels, size, size)
    try:
        with memory_guard(f"model={config.model.target}"):
            found = summarise(network, example)
    except (UserError, OutOfMemory):
        raise
    except Exception as error:
        reason = one_line(error) or type(error).__name__
        if "more than 1 value per channel" in reason and count == 1:
            raise UserError(
                f"batch_size={config.batch_size}: the last of {len(images.train)} training images would be a"
                " batch of one, and this norm needs more than one value a channel; any other size will do"
            ) from None
        raise UserError(
            f"model={config.model.target}: does not fit {size} x {size} x {images.train.in_channels} images"
            f" in batches of {count} ({reason}); another dataset.resize may help"
        ) from error
    if found.output != (count, len(images.classes)):
        raise UserError(
            f"model={config.model.target}: gives {found.output} for {count} images and"
            f" {len(images.classes)} classes; it must give ({count}, {len(images.classes)})"
        )
    return found


def _check_shares(config: Config, images: DataSplits, world: int) -> None:
    """Raises UserError where a batch cannot be parted among so many processes."""
    if config.batch_size % world:
        must = f"must be a multiple of the {world} processes that share each batch"
        raise bad_value("batch_size", config.batch_size, must)
    last = len(images.train) % config.batch_size
    if 0 < last < 2 * world:
        raise UserError(
            f"batch_size={config.batch_size}: the last of {len(images.train)} training images would be {last}"
            f" for {world} processes, and each needs two; another size will do"
        )


def trainer(
    config: Config,
    network: nn.Module,
    place: ComputeDevice,
    images: DataSplits,
    processes: Processes = SINGLE_PROCESS,
    *,
    graph_before: bool | None = None,
) -> Trainer:
    """All that a step needs; ``graph_before``: whether a run that goes on has taken its steps as a graph."""
    if processes.world > 1:
        _check_shares(config, images, processes.world)
    if config.device.sync_bn:
        network = _synchronised(network, place, processes)
    network.to(place.device, memory_format=place.memory_format(network))  # type: ignore[call-overload]
    optimizer = _optimizer(config.optimizer, network)
    built = Trainer(
        network,
        instantiate(config.loss, {}).to(place.device),
        optimizer,
        place,
        _schedule(config, optimizer, images.train.steps(config.batch_size)),
        config.l1,
        config.grad_clip,
        torch.compile(network) if config.device.compile else None,  # type: ignore[arg-type]  # it is one
        processes,
    )
    if config.device.graphs is not False:
        built.graph = _graph(config, built, images.train, graph_before)
    return built


def _graph(config: Config, built: Trainer, images: Batches, before: bool | None) -> CudaGraphSteps | None:
    """The trainer's steps as a graph, where one is wanted or pays; raises UserError where it can't be."""
    reason = device.graph_obstacle(built.place.device, config.device) or _why_no_graph(config, built)
    wanted = config.device.graphs
    if wanted is True and reason is not None:
        raise bad_value("device.graphs", "true", reason)
    if wanted == "auto":
        if reason is not None or config.device.deterministic:  # where bits count a clock may not choose
            wanted = False
        elif before is not None:
            wanted = before
        else:
            wanted = _known(built) and _pays(config, built, images)
    if not wanted:
        return None
    make_capturable(built.optimizer)
    return CudaGraphSteps(built.optimizer)


def _why_no_graph(config: Config, built: Trainer) -> str | None:
    if built.processes.world > 1:
        return "a graph is one process's; torchrun's talk to each other within a step"
    if getattr(built.schedule.scheduler, "cycle_momentum", False):
        return "this scheduler moves the momentum too, which a graph holds; +scheduler.cycle_momentum=false"
    if not is_capturable(built.optimizer):
        target = config.optimizer.target
        return f"optimizer._target_={target} can't run inside a graph; SGD and those with capturable can"
    return None


def _known(built: Trainer) -> bool:
    """Whether all parts of the step are torch's or ours: a graph runs the Python of others only once."""
    parts = [*built.model.modules(), *built.loss.modules(), built.optimizer]
    return all(type(part).__module__.split(".")[0] in ("torch", "torchvision", "bnexp") for part in parts)


def _pays(config: Config, built: Trainer, images: Batches) -> bool:
    """Whether a trial on copies finds the graph exact and faster."""

    def copied() -> Trainer:
        network, optimizer = copy.deepcopy((built.model, built.optimizer))
        make_capturable(optimizer)
        return Trainer(network, built.loss, optimizer, built.place, l1=config.l1, grad_clip=config.grad_clip)

    def plain() -> tuple[Steps, Step]:
        return PlainSteps(), copied().step

    def graphed() -> tuple[Steps, Step]:
        trained = copied()
        return CudaGraphSteps(trained.optimizer), trained.step

    pays, words = trial(plain, graphed, images, config.batch_size)
    log.info(f"{config.name}: {'one CUDA graph a step' if pays else 'no CUDA graph'}: {words}")
    return pays


def _synchronised(network: nn.Module, place: ComputeDevice, processes: Processes) -> nn.Module:
    """``network`` with batch norms that take their statistics over all processes."""
    torchs = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    ours = [module for module in network.modules() if isinstance(module, BatchNorm)]
    if not torchs and not ours:
        raise bad_value("device.sync_bn", "true", "this network has no batch norm to synchronise")
    if torchs and place.device.type != "cuda":
        only = f"torch's batch norm is synchronised on GPUs alone, not on {place.device.type}"
        raise bad_value("device.sync_bn", "true", f"{only}; model.norm=batch_manual is anywhere")
    if processes.world == 1:
        return network
    for module in ours:
        module.synchronised = True
    return nn.SyncBatchNorm.convert_sync_batchnorm(network) if torchs else network


def tracker(
    config: Config,
    folder: Path,
    steps_per_epoch: int,
    progress: Progress,
    *,
    quiet: bool = False,
    hparams: Mapping[str, float | str] | None = None,
) -> LoggerGroup:
    """The console (``quiet``: not there), the CSV files, and TensorBoard with ``hparams`` for its own tab.

    They go on from ``progress``: what the folder holds beyond it is taken out.
    """
    recorded = RecordedProgress(progress.epoch, progress.step, frozenset(progress.metrics))
    console = ConsoleLogger(config.epochs, steps_per_epoch, quiet=quiet, recorded=recorded)
    loggers: list[Logger] = [console, CsvLogger(folder, recorded)]
    if config.tracking.tensorboard:
        keys = config.tracking
        board = TensorBoardLogger(
            folder, every=keys.every, histograms=keys.histograms, hparams=hparams or {}, recorded=recorded
        )
        loggers.append(board)
    return LoggerGroup(loggers, folder)


def _optimizer(part: Component, network: nn.Module) -> torch.optim.Optimizer:
    parameters = [p for p in network.parameters() if p.requires_grad]
    if not parameters:
        raise UserError(f"model: nothing to train, the network has no parameters ({type(network).__name__})")
    torch_overhead.skip_compiler_import()
    built = instantiate(part, {"params": parameters})
    if not isinstance(built, torch.optim.Optimizer):
        raise UserError(f"optimizer._target_={part.target}: gives a {type(built).__name__}, not an Optimizer")
    return built


def _schedule(config: Config, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> Schedule:
    if config.scheduler.target is None:
        return Schedule()
    keys = dict(config.scheduler.keys)
    interval, monitor = keys.pop("interval", "epoch"), keys.pop("monitor", None)
    whole = config.epochs * (steps_per_epoch if interval == "step" else 1)
    filled = dict.fromkeys(RUN_LENGTH_KEYS, whole) | {
        "mode": "max" if "accuracy" in (monitor or "") else "min"
    }
    keys = {name: filled[name] if value is None and name in filled else value for name, value in keys.items()}
    scheduler = instantiate(Component("scheduler", config.scheduler.target, keys), {"optimizer": optimizer})
    return Schedule(scheduler, interval, monitor)
