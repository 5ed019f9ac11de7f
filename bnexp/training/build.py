"""Builds what a run needs from its configuration: data, network, trainer, loggers."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bnexp import data
from bnexp.compute.device import ComputeDevice
from bnexp.compute.memory import memory_guard
from bnexp.compute.process_tuning import default_dtype
from bnexp.compute.processes import SINGLE_PROCESS, Processes
from bnexp.config.instantiate import import_target
from bnexp.config.schema import Config
from bnexp.data import DataSplits, Split
from bnexp.data.network_input import NetworkInput
from bnexp.errors import ExitCalled, OutOfMemory, UserError, bad_value, forbid_exit, one_line, place_of
from bnexp.files import is_utf8
from bnexp.models.initialization import build_seeded
from bnexp.models.norm_variants import GhostBatchNorm
from bnexp.models.norms import has_manual_batch_norm, synchronize_batch_norms
from bnexp.models.summary import Summary, summarise
from bnexp.runs.console_logger import ConsoleLogger
from bnexp.runs.csv_logger import CsvLogger
from bnexp.runs.loggers import Logger, LoggerGroup, RecordedProgress
from bnexp.runs.probe_logger import ProbeLogger
from bnexp.runs.tensorboard_logger import TensorBoardLogger
from bnexp.seeding import seed_global
from bnexp.training.blame import blamed_on
from bnexp.training.components import loss_of, make_component, optimizer_of, schedule_of
from bnexp.training.graph_selection import with_cuda_graph
from bnexp.training.progress import Progress
from bnexp.training.trainer import Trainer
from bnexp.training.trial.first_weights import check_first_weights
from bnexp.training.trial.known import is_known

log = logging.getLogger(__name__)


def load_splits(config: Config, device: ComputeDevice, fingerprint: str | None = None) -> DataSplits:
    """Loads the images and splits them; raises UserError for what the data does not allow.

    Also where the images of a folder have another fingerprint than the one that is given.
    """
    keys = config.dataset
    dataset = data.load_dataset(keys.name, keys.root, keys.resize, fingerprint)
    return split_dataset(dataset, config, device)


def split_dataset(dataset: data.ImageDataset, config: Config, device: ComputeDevice) -> DataSplits:
    """The splits of this run's seed; they share the images with other splits of ``dataset`` on its device."""
    keys = config.dataset
    labels = dataset.train.labels
    train_index, val_index = data.train_val_indices(labels, keys, config.seed, dataset.classes)
    test_index = data.test_indices(dataset.test.labels, keys.test_size, dataset.classes)
    train = dataset.train.to(device.torch_device)  # once, for train and val
    test = dataset.test.to(device.torch_device)
    mean, std = keys.mean, keys.std
    if mean == "auto" or std == "auto":
        channel_mean, channel_std = data.channel_statistics(train.pixels, train_index)
        mean = channel_mean if mean == "auto" else mean
        std = channel_std if std == "auto" else std

    def batches(images: data.Images, index: Tensor | None, augment: tuple[str, ...] = ()) -> Split:
        return Split(
            images, device.torch_device, index=index, mean=mean, std=std, resize=keys.resize,
            augment=augment, crop_padding=keys.crop_padding,
        )  # fmt: skip

    return DataSplits(
        train=batches(train, train_index, keys.augment),
        val=None if val_index is None else batches(train, val_index),
        test=batches(test, test_index),
        classes=dataset.classes,
        white=dataset.white,
    )


def model(config: Config, data_shape: NetworkInput) -> nn.Module:
    """The network on the CPU; its initial weights are a function of the seed alone."""
    import_target(config.model)  # a module may seed or draw when it is imported; afterwards it cannot
    with memory_guard(f"model={config.model.target}"):
        network = build_seeded(_constructor(config, data_shape), config.seed)
    if not isinstance(network, nn.Module):
        raise UserError(f"{config.model.title}: gives a {type(network).__name__}, not an nn.Module")
    tensors = [*network.named_parameters(), *network.named_buffers()]
    lazy = list(dict.fromkeys(name.rpartition(".")[0] for name, tensor in tensors if is_lazy(tensor)))
    if lazy:
        raise UserError(
            f"{config.model.title}: {', '.join(lazy)}: lazy layers have no weights to start"
            " from; give them their sizes, from in_channels, image_size and num_classes"
        )
    return network


def check_model(config: Config, data_shape: NetworkInput, network: nn.Module) -> None:
    """Makes a user's own network again. Raises UserError where its weights do not follow from the seed."""
    title = config.model.title
    if is_known(config.model):
        return
    with blamed_on(title, "cannot be made a second time"), memory_guard(f"model={config.model.target}"):
        check_first_weights(title, _constructor(config, data_shape), network, config.seed)


def _constructor(config: Config, data_shape: NetworkInput) -> Callable[[], nn.Module]:
    sizes = {
        "in_channels": data_shape.channels,
        "image_size": data_shape.image_size,
        "num_classes": len(data_shape.classes),
    }
    return partial(make_component, config.model, sizes)


def summary(network: nn.Module, config: Config, splits: DataSplits) -> Summary:
    """Runs a copy of the network once, on two images (one if the last batch has one): errors show early.

    Raises UserError if the network does not fit the images, the classes or the batch.
    """
    last_batch_size = len(splits.train) % config.batch_size or config.batch_size
    count, classes, target = min(last_batch_size, 2), len(splits.classes), config.model.target
    size, channels = splits.train.image_size, splits.train.in_channels
    # A lock, an open file or a hook in a network of the user's own does not survive a deep copy.
    network = (
        copy.deepcopy(network) if is_known(config.model) else model(config, NetworkInput.of_splits(splits))
    )
    try:
        with memory_guard(f"model={target}"), forbid_exit(config.model.title), default_dtype():
            network_summary = summarise(network, torch.zeros(count, channels, size, size))
    except (UserError, OutOfMemory, ExitCalled):
        raise
    except Exception as error:  # anything: a user's own network may raise what it likes
        reason = one_line(error) or type(error).__name__
        if "more than 1 value per channel" in reason and count == 1:
            raise UserError(
                f"batch_size={config.batch_size}: the last of {len(splits.train)} training images would be a"
                " batch of one, and this norm needs more than one value a channel;"
                f" batch_size={_size_without_single_image(config.batch_size, len(splits.train))} will do"
            ) from None
        reason = "; ".join(filter(None, (reason, place_of(error))))
        if not isinstance(error, RuntimeError | ValueError):  # torch's own, for a size that does not fit
            raise UserError(
                f"{config.model.title}: its forward pass fails ({type(error).__name__}: {reason})"
            ) from error
        raise UserError(
            f"model={config.model.target}: does not fit {size} x {size} x {channels} images"
            f" in batches of {count} ({reason}); another dataset.resize may help"
        ) from error
    if network_summary.output != (count, classes):
        output = network_summary.output or "no single tensor"
        raise UserError(
            f"model={config.model.target}: gives {output} for {count} images and"
            f" {classes} classes; it must give ({count}, {classes})"
        )
    return network_summary


def _size_without_single_image(batch_size: int, images: int) -> int:
    """A batch size near ``batch_size``, rather a smaller one, with which no batch has a single image."""
    sizes = [*range(batch_size, 1, -1), *range(batch_size + 1, images + 1)]
    return next(size for size in sizes if images % size != 1)


def trainer(
    config: Config,
    network: nn.Module,
    device: ComputeDevice,
    splits: DataSplits,
    processes: Processes = SINGLE_PROCESS,
    *,
    graph_used_before: bool | None = None,
) -> Trainer:
    """Everything that a step needs. ``graph_used_before``: whether the run that continues used a graph."""
    plain = _trainer(config, network, device, splits, processes)
    return with_cuda_graph(config, plain, splits.train, graph_used_before)


def untrained_trainer(
    config: Config, device: ComputeDevice, splits: DataSplits, processes: Processes
) -> Trainer:
    """A trainer with a network of its own, which has the first weights."""
    return _trainer(config, model(config, NetworkInput.of_splits(splits)), device, splits, processes)


def _trainer(
    config: Config, network: nn.Module, device: ComputeDevice, splits: DataSplits, processes: Processes
) -> Trainer:
    """The trainer of a network, moved to its device; each step is launched operation by operation."""
    seed_global(config.seed, "components")  # optimizer, loss and scheduler may draw when they are built
    if config.device.sync_bn:
        network = _synchronize_batch_norms(network, device, processes)
    network.to(device.torch_device, memory_format=device.memory_format(network))  # type: ignore[call-overload]
    optimizer = optimizer_of(config.optimizer, network)
    return Trainer(
        network,
        loss_of(config, splits, device),
        optimizer,
        device,
        schedule=schedule_of(
            config.scheduler,
            optimizer,
            epochs=config.epochs,
            steps_per_epoch=splits.train.steps(config.batch_size),
        ),
        l1=config.l1,
        grad_clip=config.grad_clip,
        compiled=torch.compile(network) if config.device.compile else None,  # type: ignore[arg-type]
        processes=processes,
        seed=config.seed,
    )


def logger(
    config: Config,
    folder: Path,
    steps_per_epoch: int,
    progress: Progress,
    *,
    quiet: bool = False,
    hparams: Mapping[str, float | str] | None = None,
    label: str = "",
) -> Logger:
    """The console (unless ``quiet``), the CSV files, and TensorBoard with ``hparams`` for its HParams tab.

    Records in ``folder`` that lie beyond ``progress`` are removed.
    """
    recorded = RecordedProgress(progress.epoch, progress.step, frozenset(progress.metrics))
    console = ConsoleLogger(config.epochs, steps_per_epoch, quiet=quiet, progress=recorded, label=label)
    loggers: list[Logger] = [console, CsvLogger(folder, recorded), ProbeLogger(folder, recorded)]
    if config.tracking.tensorboard and not is_utf8(folder):
        log.warning(
            f"{config.name}: tracking.tensorboard: no event file, because the folder's path is no UTF-8 text"
            " for Python here; another folder, or PYTHONUTF8=1, gives one"
        )
    elif config.tracking.tensorboard:
        keys = config.tracking
        tensorboard = TensorBoardLogger(
            folder, every=keys.every, histograms=keys.histograms, hparams=hparams or {}, progress=recorded
        )
        loggers.append(tensorboard)
    return LoggerGroup(loggers, folder)


def check_shards(config: Config, splits: DataSplits, world_size: int) -> None:
    """Raises UserError if a batch cannot be divided among the processes."""
    if config.batch_size % world_size:
        must = f"must be a multiple of the {world_size} processes that share each batch"
        raise bad_value("batch_size", config.batch_size, must)
    remainder = len(splits.train) % config.batch_size
    if 0 < remainder < 2 * world_size:
        raise UserError(
            f"batch_size={config.batch_size}: the last of {len(splits.train)} training images would be"
            f" {remainder} for {world_size} processes, and each needs two; another size will do"
        )


def _synchronize_batch_norms(network: nn.Module, device: ComputeDevice, processes: Processes) -> nn.Module:
    """``network`` with batch norms that take their statistics over all processes."""
    has_torch_norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
    if any(isinstance(module, GhostBatchNorm) for module in network.modules()):
        raise bad_value("device.sync_bn", "true", "model.norm_images takes its statistics over fewer images")
    if not has_torch_norms and not has_manual_batch_norm(network):
        raise bad_value("device.sync_bn", "true", "this network has no batch norm to synchronise")
    if has_torch_norms and device.type != "cuda":
        only = f"torch's batch norm is synchronised on GPUs alone, not on {device.type}"
        raise bad_value("device.sync_bn", "true", f"{only}; model.norm=batch_manual is on any device")
    if not processes.is_distributed:
        return network
    network = synchronize_batch_norms(network)
    return nn.SyncBatchNorm.convert_sync_batchnorm(network) if has_torch_norms else network
