"""Builds the object that a component of the configuration names: the only place that imports a ``_target_``.

The target is called with the keys of its group, and with those of the caller's arguments that its signature
accepts.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from bnexp.config.opened_files import collect_opened_files, file_digests, paths_in
from bnexp.config.schema import ARGUMENT_TYPES, Component, Config
from bnexp.config.source import is_own_target, search_current_folder, source_files
from bnexp.config.validation import check_arguments
from bnexp.errors import ExitCalled, UserError, describe, forbid_exit, nearest_match, one_line
from bnexp.files import keep_current_folder
from bnexp.runs.identity import RUN_LENGTH_KEYS

# Keys of a scheduler that bnexp computes from the run where they are null.
DERIVED_KEYS = (*RUN_LENGTH_KEYS, "mode")
# What a constructor raises for a value that it does not take. A user's own code raises the others by mistake.
REFUSALS: tuple[type[Exception], ...] = (TypeError, ValueError)
OTHER_REFUSALS_OF_TORCH = (KeyError, IndexError, AttributeError, AssertionError)
# The arguments that bnexp passes to each component's target, as far as the signature accepts them.
CALLER_ARGUMENTS = {
    "model": ("in_channels", "image_size", "num_classes"),
    "optimizer": ("params",),
    "scheduler": ("optimizer",),
    "loss": (),
    "probes": (),
}


def instantiate(component: Component, caller_arguments: Mapping[str, Any]) -> Any:
    """Calls the component's target with its keys and those of ``caller_arguments`` that it accepts.

    Raises UserError for a key that the target does not take, and for a value that it refuses; ExitCalled if
    the target calls sys.exit.
    """
    function = import_target(component)
    parameters = inspect.signature(function).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    accepted_arguments = {
        name: value for name, value in caller_arguments.items() if open_ended or name in parameters
    }
    group = component.key
    keys = check_arguments(
        function,
        component.keys,
        group,
        caller_arguments=list(accepted_arguments),
        annotations=ARGUMENT_TYPES[group],
    )
    is_torch = str(component.target).startswith("torch.")
    refusals = REFUSALS + (OTHER_REFUSALS_OF_TORCH if is_torch else ())
    try:
        with (
            keep_current_folder(),
            forbid_exit(f"{group}._target_={component.target}"),
            collect_opened_files(str(component)) as files,
        ):
            if is_own_target(component.target):  # a norm, for example, may have the name of a folder
                files.update(paths_in(keys))
            return function(**accepted_arguments, **keys)
    except UserError:
        raise
    except refusals as error:
        settings = " ".join(f"{group}.{name}={value}" for name, value in keys.items())
        raise UserError(
            one_line(f"{settings or group}: {component.target} refuses ({one_line(error)})")
        ) from error


def components_of(config: Config) -> list[Component]:
    """The components that are built: a scheduler may have no target."""
    components = (config.model, config.optimizer, config.scheduler, config.loss)
    return [component for component in components if component.target is not None]


def check_components(config: Config) -> None:
    """Raises UserError for a key that a component's target does not take, before anything is built."""
    for component in (*components_of(config), *config.probes):
        function, group = import_target(component), component.key
        keys = {key: value for key, value in component.keys.items() if key not in ("interval", "monitor")}
        derived_keys = [key for key, value in keys.items() if value is None and key in DERIVED_KEYS]
        check_arguments(
            function,
            {key: value for key, value in keys.items() if key not in derived_keys},
            group,
            caller_arguments=[*CALLER_ARGUMENTS[group], *derived_keys],
            annotations=ARGUMENT_TYPES[group],
        )


def _import_module(name: str) -> ModuleType:
    """Imports a module, and notes the files that it reads meanwhile: it does so once in a process.

    The current folder stays: paths of the command line, as ``dataset.root``, are relative to it.
    """
    if name in sys.modules:
        return sys.modules[name]
    path = list(sys.path)
    try:
        with keep_current_folder(), collect_opened_files(name):
            return importlib.import_module(name)
    finally:  # a module may clear or replace the search path: later imports need what was in it
        sys.path += [folder for folder in path if folder not in sys.path]


def files_read(components: Sequence[Component]) -> dict[str, str]:
    """Files that the components have read while they were imported and made: path -> digest.

    Without the source files that the fingerprint of a component covers.
    """
    modules = [str(component.target).rpartition(".")[0] for component in components]
    sources = [
        os.path.abspath(path)
        for component in components
        for path in source_files(component.target, component.keys).values()
    ]
    return file_digests([*map(str, components), *modules], left_out=sources)


def import_target(component: Component) -> Callable[..., Any]:
    """The class or function that a component's target names. Modules in the current folder are found too."""
    key, target = f"{component.key}._target_", str(component.target)
    search_current_folder()
    module_name, _, name = target.rpartition(".")
    if not module_name:
        raise UserError(f"{key}={target}: write the module too, as in mynets.Net")
    try:
        with forbid_exit(f"{key}={target}: its module"):
            module = _import_module(module_name)
    except ExitCalled:
        raise
    except Exception as error:
        reason = describe(error)
        raise UserError(
            f"{key}={target}: cannot be imported from {os.getcwd()} or the environment ({reason})"
        ) from error
    function = getattr(module, name, None)
    if function is None:
        nearest = nearest_match(name, [public for public in vars(module) if not public.startswith("_")])
        hint = f"; did you mean {module_name}.{nearest}?" if nearest else ""
        place = f" ({module.__file__})" if getattr(module, "__file__", None) else ""
        raise UserError(f"{key}={target}: module {module_name}{place} has no {name}{hint}")
    if not callable(function):
        raise UserError(f"{key}={target}: must be a class or function, but it is a {type(function).__name__}")
    return function
