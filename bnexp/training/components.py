"""Builds the loss, the optimizer and the schedule that a configuration names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from bnexp.compute import torch_overhead
from bnexp.compute.device import ComputeDevice
from bnexp.compute.memory import memory_guard
from bnexp.config.instantiate import import_target, instantiate
from bnexp.config.schema import Component, Config
from bnexp.data import DataSplits
from bnexp.errors import UserError, bad_value
from bnexp.runs.identity import RUN_LENGTH_KEYS
from bnexp.training.blame import blamed_on
from bnexp.training.loss_mean import balanced_weights, check_is_mean
from bnexp.training.schedule import Schedule


def make_component(component: Component, arguments: Mapping[str, Any]) -> Any:
    """``instantiate``; whatever a constructor that is not bnexp's raises becomes a UserError with its key."""
    if str(component.target).startswith("bnexp."):
        return instantiate(component, arguments)
    with blamed_on(component.title, "cannot be made"), memory_guard(f"{component.key}={component.target}"):
        return instantiate(component, arguments)


def loss_of(config: Config, splits: DataSplits, device: ComputeDevice) -> nn.Module:
    """The loss on the device. Raises UserError if it is no mean over images, or has parameters to train."""
    component, classes = config.loss, len(splits.classes)
    keys = dict(component.keys)
    arguments = {}
    if (weight := keys.pop("weight", None)) == "balanced":
        if missing := sorted({*range(classes)} - {*splits.train.labels.tolist()}):
            problem = f"class {splits.classes[missing[0]]} has no training image that could have a weight"
            raise bad_value("loss.weight", weight, problem)
        arguments["weight"] = balanced_weights(splits.train.labels, classes)
    elif weight is not None:
        if len(weight) != classes:
            raise bad_value("loss.weight", weight, f"must have a number for each of the {classes} classes")
        arguments["weight"] = torch.tensor(weight)
    component = Component(component.key, component.target, keys)
    function, other = (_make_loss(component, arguments, device) for _ in range(2))
    # Not with a copy: a lock or an open file in a loss of the user's own does not survive a deep copy.
    check_is_mean(other, component.title, classes, device.torch_device)
    return function


def _make_loss(component: Component, arguments: Mapping[str, Any], device: ComputeDevice) -> nn.Module:
    function = make_component(component, arguments)
    if not isinstance(function, nn.Module):
        raise UserError(f"{component.title}: gives a {type(function).__name__}, not an nn.Module")
    if any(True for _ in function.parameters()):
        raise UserError(
            f"{component.title}: has parameters of its own, which would be neither trained nor saved;"
            " make them part of the network"
        )
    return function.to(device.torch_device)


def optimizer_of(component: Component, network: nn.Module) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not parameters:
        raise UserError(f"model: nothing to train, the network has no parameters ({type(network).__name__})")
    torch_overhead.skip_compiler_import()
    optimizer = make_component(component, {"params": parameters})
    if not isinstance(optimizer, torch.optim.Optimizer):
        name = type(optimizer).__name__
        raise UserError(f"{component.title}: gives a {name}, not an Optimizer")
    in_optimizer = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    trained = [(name, value) for name, value in network.named_parameters() if value.requires_grad]
    missing = [name for name, value in trained if id(value) not in in_optimizer]
    if missing:
        raise UserError(
            f"{component.title}: leaves out {len(missing)} of {len(trained)} parameters,"
            f" among them {missing[0]}; if that is meant, freeze them in the network: requires_grad_(False)"
        )
    return optimizer


def _accepts_mode(component: Component) -> bool:
    return "mode" in inspect.signature(import_target(component)).parameters


def _check_direction(component: Component, actual: str, mode: str, monitor: str) -> None:
    """Raises UserError where a class that takes no ``mode`` looks for the wrong end of its metric."""
    if actual != mode:
        name = str(component.target).rpartition(".")[2]
        problem = f"{name} looks for its {actual}imum; let its __init__ take mode, and pass it on"
        raise bad_value("scheduler.monitor", monitor, problem)


def schedule_of(
    component: Component, optimizer: torch.optim.Optimizer, *, epochs: int, steps_per_epoch: int
) -> Schedule:
    """The schedule of a run of this length. Raises UserError for a key that its class does not take."""
    if component.target is None:
        return Schedule()
    keys = dict(component.keys)
    interval, monitor = keys.pop("interval", "epoch"), keys.pop("monitor", None)
    run_length = epochs * (steps_per_epoch if interval == "step" else 1)
    mode = "max" if "accuracy" in (monitor or "") else "min"
    if keys.get("mode") is None and "accuracy" in (monitor or "") and _accepts_mode(component):
        keys["mode"] = mode  # a scheduler of your own, as torch's, takes its direction from the metric
    values_for_null = dict.fromkeys(RUN_LENGTH_KEYS, run_length) | {"mode": mode}
    for name, value in keys.items():
        if value is None and name in values_for_null:
            keys[name] = values_for_null[name]
    scheduler = make_component(Component("scheduler", component.target, keys), {"optimizer": optimizer})
    if isinstance(scheduler, ReduceLROnPlateau) and monitor and keys.get("mode") is None:
        _check_direction(component, scheduler.mode, mode, monitor)
    missing = [name for name in ("step", "state_dict", "load_state_dict") if not hasattr(scheduler, name)]
    if missing:
        raise UserError(
            f"{component.title}: has no {missing[0]}, which every scheduler needs;"
            " derive it from torch.optim.lr_scheduler.LRScheduler"
        )
    if isinstance(scheduler, ReduceLROnPlateau) and interval == "step":
        raise bad_value(
            "scheduler.interval", "step", "must be epoch: this scheduler looks at a metric of epochs"
        )
    total_steps = getattr(scheduler, "total_steps", None)
    if isinstance(total_steps, int) and total_steps < run_length:
        unit = "steps" if interval == "step" else "epochs"
        length = f"{run_length}, the {unit} of epochs={epochs}"
        if component.keys.get("total_steps") is None:  # the class has computed it from other keys
            raise UserError(
                f"{component.title}: ends after {total_steps} {unit}, before the last of {length};"
                " scheduler.total_steps=null makes it as long as the run"
            )
        possible_epochs = total_steps // (run_length // epochs)
        hint = f"; it lasts for epochs={possible_epochs}" if possible_epochs else ""
        reason = f"must be null or at least {length}{hint}"
        raise bad_value("scheduler.total_steps", total_steps, reason)
    return Schedule(scheduler, interval, monitor)
