"""The names of all keys that a command line can set."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from bnexp.cli.hydra_commands import HydraCommand
from bnexp.config.overrides import flatten


def all_keys(values: Mapping[str, str], command: HydraCommand) -> list[str]:
    """Every key and group of the configuration that the group choices in ``values`` compose, dotted."""
    from hydra import compose, initialize_config_module

    overrides = [
        f"{group}={values[group]}" for group in command.groups if values.get(group) in command.choices(group)
    ]
    GlobalHydra.instance().clear()
    with initialize_config_module(command.config_module, version_base="1.3"):
        composed = OmegaConf.to_container(compose("config", overrides=overrides), resolve=False)
    assert isinstance(composed, dict)
    names: dict[str, None] = {}  # an ordered set
    for key in flatten({str(name): value for name, value in composed.items()}):
        names |= dict.fromkeys(accumulate(key.split("."), lambda parent, name: f"{parent}.{name}"))
    return [name for name in names if not name.endswith("_target_")]
