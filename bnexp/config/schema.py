"""The typed schema of a run's configuration, and the checks that need only the configuration.

``parse`` turns the composed keys, plain dictionaries, into frozen dataclasses. No module that uses them needs
Hydra. The components (model, optimizer, scheduler, loss) each name a ``_target_``. Their keys are not checked
against it here, but when ``config.instantiate`` imports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from bnexp.config.validation import (
    Count,
    CountOrZero,
    NonNegative,
    Positive,
    Probability,
    Range,
    check,
    check_mapping,
)
from bnexp.errors import UserError, bad_choice, bad_value, unknown_key

CountOrShare = Annotated[int, Range(1)] | Annotated[float, Range(0, 1, exclude_low=True, exclude_high=True)]
MIN_LOOK = 3  # seeds; fewer allow no test
COMPONENTS = ("model", "optimizer", "scheduler", "loss")
PROBE_NAMES = (
    "activations", "gradients", "landscape", "shift", "spectrum", "rank", "precise", "gap", "branches",
)  # fmt: skip
PROBES = {name: f"bnexp.probes.{name}.{name.capitalize()}" for name in PROBE_NAMES}


@dataclass(frozen=True)
class Component:
    """An object to build by calling ``target`` with ``keys``; ``key`` is the name of its group."""

    key: str
    target: str | None
    keys: Mapping[str, Any]

    @property
    def title(self) -> str:
        """``model._target_=mynets.Net``: how a message names it."""
        return f"{self.key}._target_={self.target}"


@dataclass(frozen=True)
class Dataset:
    name: Literal["digits", "mnist", "fashion_mnist", "cifar10", "image_folder"]
    root: str | None
    resize: Annotated[int, Range(1, 4096)] | None
    val_size: Annotated[int, Range(0)] | Annotated[float, Range(0, 1, exclude_high=True)]
    train_size: CountOrShare | None
    test_size: CountOrShare | None
    folds: Annotated[int, Range(2)] | None
    fold: CountOrZero | None
    mean: tuple[float, ...] | Literal["auto"]
    std: tuple[Positive, ...] | Literal["auto"]
    augment: tuple[Literal["flip", "crop"], ...]
    crop_padding: Annotated[int, Range(1, 512)]
    delta: Positive | None = None  # a default, because older saved runs lack this key

    @property
    def has_val(self) -> bool:
        return self.folds is not None or self.val_size > 0


@dataclass(frozen=True)
class Device:
    name: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["fp32", "bf16", "fp16"]
    compile: bool
    graphs: bool | Literal["auto"]
    threads: Annotated[int, Range(1, 1024)] | None
    deterministic: bool
    sync_bn: bool = False  # a default, because older saved runs lack this key


@dataclass(frozen=True)
class EarlyStopping:
    monitor: Literal["val/loss", "val/accuracy"]
    patience: Count | None


@dataclass(frozen=True)
class Checkpoint:
    every: Count
    keep: CountOrZero


@dataclass(frozen=True)
class Tracking:
    tensorboard: bool
    histograms: bool
    every: Count


@dataclass(frozen=True)
class ProbeKeys:
    every: Count | None = None
    layers: tuple[str, ...] = ()
    images: Count = 1000


@dataclass(frozen=True)
class Report:
    epoch: Literal["auto", "best", "mean", "final"]


@dataclass(frozen=True)
class Sweep:
    looks: tuple[Count, ...] = (5, 10, 20, 40)
    trials: Annotated[int, Range(2, 10_000)] = 16
    tuning_seeds: Annotated[int, Range(1, 1000)] = 2
    search: Literal["sobol", "tpe"] = "sobol"
    together: tuple[str, ...] = ()
    sample: Count | None = None


@dataclass(frozen=True)
class Config:
    name: str
    tags: tuple[str, ...]
    seed: Annotated[int, Range(0, 2**63 - 1)]
    epochs: Annotated[int, Range(1, 1_000_000)]
    batch_size: Annotated[int, Range(1, 2**31)]
    eval_batch_size: Annotated[int, Range(1, 2**31)]
    l1: NonNegative
    grad_clip: Positive | None
    on_failure: Literal["continue", "stop"]
    model: Component
    dataset: Dataset
    optimizer: Component
    scheduler: Component
    loss: Component
    device: Device
    early_stopping: EarlyStopping
    checkpoint: Checkpoint
    tracking: Tracking
    report: Report = Report("auto")  # defaults, because older saved runs lack these keys
    sweep: Sweep = Sweep()
    probes: tuple[Component, ...] = ()
    probe: ProbeKeys = ProbeKeys()


# The signatures of torch hold no ranges: torch checks these arguments only when the object is built.
ARGUMENT_TYPES: dict[str, dict[str, Any]] = {
    "optimizer": {
        "lr": NonNegative,
        "momentum": NonNegative,
        "dampening": float,
        "nesterov": bool,
        "weight_decay": NonNegative,
        "betas": tuple[Probability, Probability],
        "eps": NonNegative,
    },
    "scheduler": {
        "step_size": Count,
        "gamma": Positive,
        "factor": Annotated[float, Range(0, 1, exclude_high=True)],
        "patience": CountOrZero,
        "mode": Literal["min", "max"] | None,
        "T_max": Count | None,
        "eta_min": NonNegative,
        "total_iters": Count | None,
        "power": Positive,
        "max_lr": Positive,
        "total_steps": Count | None,
        "pct_start": Annotated[float, Range(0, 1)],
        "milestones": tuple[Count, ...],
        "T_0": Count,
        "T_mult": Count,
        "base_lr": NonNegative,
        "decay": NonNegative,
        "last_epoch": Literal[-1],  # bnexp resumes a schedule from the checkpoint
    },
    "loss": {
        "label_smoothing": Annotated[float, Range(0, 1)],
        "p": Literal[1, 2],
        "margin": float,
        "weight": tuple[Positive, ...] | Literal["balanced"] | None,  # 0: a batch could have no mean
        "reduction": Literal["mean"],
    },
    "model": {},
    "probes": {},
    "function": {},
}
INTERVALS = Literal["epoch", "step"]
MONITORS = Literal["val/loss", "val/accuracy", "train/loss", "train/accuracy"]


def parse(values: Mapping[str, Any]) -> Config:
    """The checked configuration. Raises UserError for the first mistake."""
    values = dict(values)
    for group in COMPONENTS:
        if group in values:
            values[group] = parse_component(group, values[group])
    if "probes" in values:
        values["probes"] = parse_probes(values["probes"])
    if values.get("seed") == "auto":
        raise UserError("seed=auto: plans the seeds of a sweep; add -m and a list to compare")
    config = check_mapping(values, Config)
    check_name(config.name)
    _check_folds(config.dataset)
    _check_monitors(config)
    check_looks(config.sweep.looks)
    return config


def parse_probes(values: Any) -> tuple[Component, ...]:
    """The probes by name, as in probes=[landscape], or with a ``_target_``; raises UserError."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise bad_value("probes", values, f"must be a list, as in probes=[{next(iter(PROBES))}]")
    components = []
    for value in values:
        if isinstance(value, Mapping):
            components.append(parse_component("probes", value))
        elif value in PROBES:
            components.append(Component("probes", PROBES[value], {}))
        else:
            raise bad_choice("probes", value, PROBES)
    targets = [component.target for component in components]
    for component in components:
        if targets.count(component.target) > 1:
            raise bad_value("probes", list(values), "must name each probe once")
    return tuple(components)


def check_looks(looks: Sequence[int]) -> None:
    """Raises UserError unless the numbers rise and a test is possible at the first one."""
    if not looks or looks[0] < MIN_LOOK or list(looks) != sorted(set(looks)):
        reason = f"must be rising numbers of seeds of at least {MIN_LOOK}, as in [5,10,20,40]"
        raise bad_value("sweep.looks", list(looks), reason)


def check_name(name: str) -> None:
    """Raises UserError for a name that cannot be part of a folder's name."""
    if not name:
        raise bad_value("name", name, "must not be empty")
    if "/" in name or "\\" in name or name != " ".join(name.split()) or not name.isprintable():
        raise bad_value(
            "name", repr(name), "must be one line without / or \\: it is part of the folder's name"
        )


def parse_component(group: str, values: Any) -> Component:
    """The component of a group of keys. Raises UserError for a value that its type does not allow."""
    if not isinstance(values, Mapping):
        allowed = (
            f"must be a mapping of keys; a preset chooses a file in its defaults list: override /{group}"
        )
        raise bad_value(group, values, allowed)
    target = check(values.get("_target_"), str | None, f"{group}._target_")
    if target == "???" or (target is None and group != "scheduler"):
        raise UserError(
            f"{group}._target_: give the class or function to call, as in {group}._target_=mynets.Net"
        )
    keys = {str(name): value for name, value in values.items() if name != "_target_"}
    for name, value in keys.items():
        if value == "???":
            raise UserError(f"{group}.{name}: this key needs a value")
        if name in ARGUMENT_TYPES[group]:
            keys[name] = check(value, ARGUMENT_TYPES[group][name], f"{group}.{name}")
    if group == "loss" and keys.get("weight") is None:
        keys.pop("weight", None)  # a class of your own need not know it
    if group == "scheduler":
        _check_scheduler(keys, target)
    return Component(group, target, keys)


def _check_scheduler(keys: dict[str, Any], target: str | None) -> None:
    if target is None and keys:
        raise unknown_key(f"scheduler.{next(iter(keys))}", [])
    if "interval" in keys:
        check(keys["interval"], INTERVALS, "scheduler.interval")
        if keys["interval"] == "step" and "monitor" in keys:
            reason = "must be epoch, because scheduler.monitor is computed once an epoch"
            raise bad_value("scheduler.interval", "step", reason)
    if "monitor" in keys:
        check(keys["monitor"], MONITORS, "scheduler.monitor")


def _check_folds(dataset: Dataset) -> None:
    if (dataset.folds is None) != (dataset.fold is None):
        key, other_key = ("folds", "fold") if dataset.folds is None else ("fold", "folds")
        example = "dataset.folds=5 dataset.fold=0"
        raise UserError(f"dataset.{key}: needed together with dataset.{other_key}, as in {example}")
    if dataset.folds is not None and dataset.fold is not None and dataset.fold >= dataset.folds:
        raise bad_value("dataset.fold", dataset.fold, f"must be below dataset.folds={dataset.folds}")


def _check_monitors(config: Config) -> None:
    if config.dataset.has_val:
        if config.report.epoch == "mean":
            reason = "needs the test accuracy of every epoch, which only dataset.val_size=0 evaluates"
            raise bad_value("report.epoch", "mean", reason)
        return
    reason = (
        "needs a validation set, but dataset.val_size=0 leaves none (the test set is never used to choose)"
    )
    monitor = config.scheduler.keys.get("monitor", "")
    if monitor.startswith("val/"):
        raise bad_value("scheduler.monitor", monitor, reason)
    if config.early_stopping.patience is not None:
        raise bad_value("early_stopping.patience", config.early_stopping.patience, reason)
    if config.report.epoch == "best":
        raise bad_value("report.epoch", "best", reason)
