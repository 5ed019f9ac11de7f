"""Descents from the YAML files of bnexp-descend, without its command."""

from __future__ import annotations

from typing import Any

from hydra import compose, initialize_config_module

from bnexp.cli import composed_config
from bnexp.descent.outcome import judge
from bnexp.descent.path import Descent
from bnexp.descent.ranking import Arm
from bnexp.descent.settings import DescentConfig, parse


def config_of(*overrides: str) -> DescentConfig:
    """The checked configuration of a command line."""
    with initialize_config_module("bnexp.conf.descent", version_base="1.3"):
        values: dict[str, Any] = composed_config.resolve_config(
            compose("config", overrides=["name=test", *overrides])
        )
    return parse(values)


def descend(*overrides: str, label: str = "a") -> Arm:
    """A descent that has ended, and its outcome."""
    config = config_of(*overrides)
    path = Descent(config).run()
    return Arm(label, config, path, judge(path, config.tolerance))
