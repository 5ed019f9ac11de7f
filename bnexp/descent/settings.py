"""The typed keys of a descent, and the checks that need only the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from bnexp.config.schema import Component, check_name, parse_component
from bnexp.config.validation import Count, NonNegative, Positive, Range, check_mapping
from bnexp.errors import UserError, bad_value

REGRESSION = "bnexp.descent.regression.Regression"
Finite = Annotated[float, Range()]
Steps = Annotated[int, Range(1, 1_000_000)]


@dataclass(frozen=True)
class Tracking:
    tensorboard: bool


@dataclass(frozen=True)
class DescentConfig:
    name: str
    seed: Annotated[int, Range(0, 2**63 - 1)]
    start: tuple[Finite, ...] | None
    steps: Steps
    noise: NonNegative
    tolerance: Positive
    batch_size: Count | None
    epochs: Steps | None
    function: Component
    optimizer: Component
    scheduler: Component
    tracking: Tracking

    @property
    def is_regression(self) -> bool:
        return self.function.target == REGRESSION


def parse(values: Mapping[str, Any]) -> DescentConfig:
    """The checked configuration. Raises UserError for the first mistake."""
    values = dict(values)
    for group in ("function", "optimizer", "scheduler"):
        if group in values:
            values[group] = parse_component(group, values[group])
    if values.get("start") == "???":
        raise UserError("start: this key needs a value: a number for each variable, as in 'start=[1,2]'")
    if isinstance(values.get("start"), int | float):  # of a function of one variable
        values["start"] = [values["start"]]
    config = check_mapping(values, DescentConfig)
    check_name(config.name)
    if not config.is_regression:
        for key in ("batch_size", "epochs"):
            if getattr(config, key) is not None:
                raise bad_value(key, getattr(config, key), "only function=regression has examples")
        if not config.start:
            raise bad_value(
                "start", config.start, "must have a number for each variable, as in 'start=[1,2]'"
            )
    monitor = config.scheduler.keys.get("monitor") or ""
    if "accuracy" in monitor:
        raise bad_value("scheduler.monitor", monitor, "a function has no accuracy; val/loss is its value")
    return config
