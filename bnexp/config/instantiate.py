"""A part of the configuration -> the object: the one place where a name becomes a thing.

Whatever ``_target_`` names is called with the keys of its group and with those of the values given by bnexp
that its signature accepts.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from bnexp.config.schema import ARGUMENT_TYPES, Component, Config
from bnexp.config.validation import check_arguments
from bnexp.errors import UserError, nearest_match, one_line
from bnexp.runs.identity import RUN_LENGTH_KEYS

FILLED_IN = (*RUN_LENGTH_KEYS, "mode")  # keys of a scheduler that follow from the run where they are null


def instantiate(part: Component, given: Mapping[str, Any]) -> Any:
    """Calls the part's target with its keys and those of ``given`` that it accepts."""
    function = import_target(part)
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    offered = {name: value for name, value in given.items() if takes_all or name in parameters}
    keys = check_arguments(function, part.keys, part.key, given=list(offered), known=ARGUMENT_TYPES[part.key])
    try:
        return function(**offered, **keys)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        named = " ".join(f"{part.key}.{name}={value}" for name, value in keys.items())
        raise UserError(one_line(f"{named or part.key}: {part.target} refuses ({error})")) from error


# What bnexp gives to each part's target, where its signature takes it.
SUPPLIED = {
    "model": ("in_channels", "image_size", "num_classes"),
    "optimizer": ("params",),
    "scheduler": ("optimizer",),
    "loss": (),
}


def check_components(config: Config) -> None:
    """Raises UserError for a key that a part's target would not take, before anything is built."""
    for part in (config.model, config.optimizer, config.scheduler, config.loss):
        if part.target is not None:
            function = import_target(part)
            own = {key: value for key, value in part.keys.items() if key not in ("interval", "monitor")}
            keys = {key: value for key, value in own.items() if value is not None or key not in FILLED_IN}
            given = [*SUPPLIED[part.key], *(key for key in own if key not in keys)]
            check_arguments(function, keys, part.key, given=given, known=ARGUMENT_TYPES[part.key])


def import_target(part: Component) -> Callable[..., Any]:
    """The class or function a part's target names, looked for in the current folder too."""
    key, target = f"{part.key}._target_", str(part.target)
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)  # a console script leaves it out; last, so that it can shadow nothing
    module_name, _, name = target.rpartition(".")
    if not module_name:
        raise UserError(f"{key}={target}: write the module too, as in mynets.Net")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        raise UserError(
            f"{key}={target}: cannot be imported from {folder} or the environment ({reason})"
        ) from error
    function = getattr(module, name, None)
    if function is None:
        near = nearest_match(name, [n for n in vars(module) if not n.startswith("_")])
        hint = f"; did you mean {module_name}.{near}?" if near else ""
        raise UserError(f"{key}={target}: module {module_name} has no {name}{hint}")
    if not callable(function):
        raise UserError(f"{key}={target}: must be a class or function, and it is a {type(function).__name__}")
    return function
