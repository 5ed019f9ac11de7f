"""A unit: runs that are trained together, with their networks, their data and their common trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from bnexp import data
from bnexp.compute.device import ComputeDevice, prepare_device
from bnexp.compute.process_tuning import set_threads
from bnexp.config.schema import Component, Config
from bnexp.data import DataSplits
from bnexp.data.fused_batches import FusedData
from bnexp.data.network_input import NetworkInput
from bnexp.models.summary import Summary
from bnexp.runs.folder import RunFolder
from bnexp.runs.job import Job, MachineShare
from bnexp.training import build, components
from bnexp.training.fused.comparison import require_same
from bnexp.training.fused.layers import NotFusable
from bnexp.training.fused.size import replicas_for
from bnexp.training.fused.trainer import FusedTrainer, fuse_on_device, memory_format


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
    dataset = data.load_dataset(keys.name, keys.root, keys.resize, runs[0].job.fingerprints.get("dataset"))
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
