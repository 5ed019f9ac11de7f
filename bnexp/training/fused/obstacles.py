"""Why runs cannot be trained together as one network, by their configuration. Imports no torch."""

from __future__ import annotations

import os
from dataclasses import replace

from bnexp.config.schema import Component, Config

NETWORKS = tuple(f"bnexp.models.{name}" for name in ("MLP", "ConvNet", "LeNet", "ResNet", "DenseNet"))
# These update each weight from its own gradient alone.
OPTIMIZERS = ("torch.optim.SGD", "torch.optim.Adam", "torch.optim.AdamW")
OPTIMIZER_KEYS = {
    "lr",
    "momentum",
    "dampening",
    "weight_decay",
    "nesterov",
    "betas",
    "eps",
    "amsgrad",
    "maximize",
}
LOSSES = ("torch.nn.CrossEntropyLoss", "torch.nn.MultiMarginLoss", "bnexp.training.losses.OneHotMSE")
SCHEDULERS = (
    "bnexp.training.schedulers.InverseSqrtLR",
    *(
        f"torch.optim.lr_scheduler.{name}LR"
        for name in ("Step", "CosineAnnealing", "Exponential", "Polynomial", "OneCycle")
    ),
)


def reason_not_to_fuse(config: Config) -> str | None:
    """Why runs with this configuration and several seeds cannot be one network; None if they can.

    What the configuration does not show is found out before the training: ``train_fused`` then says why.
    """
    return (
        _component_reason(config.model, NETWORKS, "networks")
        or _component_reason(config.optimizer, OPTIMIZERS, "optimizers")
        or _component_reason(config.loss, LOSSES, "losses")
        or _component_reason(config.scheduler, (None, *SCHEDULERS), "schedulers")
        or _key_reason(config)
        or _device_reason(config)
    )


def _component_reason(component: Component, targets: tuple[str | None, ...], plural: str) -> str | None:
    if component.target in targets:
        return None
    names = ", ".join(target.rpartition(".")[2] for target in targets if target)
    return f"{component.key}._target_={component.target}: only these {plural} have a fused form: {names}"


def _key_reason(config: Config) -> str | None:
    if config.model.keys.get("dropout"):
        value = config.model.keys["dropout"]
        return f"model.dropout={value}: the runs would draw their noise from one generator"
    if config.model.keys.get("norm") == "batch_noise":
        return "model.norm=batch_noise: the runs would draw their noise from one generator"
    if config.loss.keys.get("weight") == "balanced":
        return "loss.weight=balanced: the weights follow the training images of each seed"
    unusual = sorted(set(config.optimizer.keys) - OPTIMIZER_KEYS)
    if unusual:
        return f"optimizer.{unusual[0]}: it changes how the optimizer works, not only its numbers"
    if config.scheduler.keys.get("monitor") is not None:
        return "scheduler.monitor: the learning rate would follow the metric of each run"
    if config.probes:
        return "probes: they measure the steps of one network"
    if config.early_stopping.patience is not None:
        return "early_stopping.patience: each run would end at another epoch"
    return None


def _device_reason(config: Config) -> str | None:
    device = config.device
    if device.precision != "fp32":
        return f"device.precision={device.precision}: fused runs are held against single ones in fp32 alone"
    if device.compile:
        return "device.compile=true: each run would compile another network than when it is alone"
    if device.name not in ("auto", "cpu"):
        return f"device={device.name}: fused runs have been measured on a CPU alone"
    if device.graphs is True or device.sync_bn:
        return "device.graphs and device.sync_bn belong to GPUs and to several processes"
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        return "several processes train one network together"
    return None


def differ_in_seed_alone(first: Config, second: Config) -> bool:
    """Whether two runs may be trained together; their names and tags change no number."""
    neutral = replace(second, seed=first.seed, name=first.name, tags=first.tags)
    return first == neutral
