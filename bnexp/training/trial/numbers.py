"""Numbers outside of parameters and buffers that a step changes: no checkpoint holds them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from bnexp.config.schema import Config
from bnexp.training.trainer import Trainer

log = logging.getLogger(__name__)

LIBRARIES = ("torch", "torchvision", "bnexp", "builtins")
OF_TORCH = ("training", "_opt_called")  # attributes that torch itself sets


def shared_numbers(config: Config, trainer: Trainer) -> dict[str, dict[str, str]]:
    """The numbers in the classes and modules of the user's own parts, by the part that has them."""
    return {title: dict(_numbers_of_classes(objects)) for title, objects in _parts(config, trainer).items()}


def warn_of_numbers(
    config: Config, trainer: Trainer, restored: Trainer, before: Mapping[str, Mapping[str, str]]
) -> None:
    """Logs a number in an attribute, a class or a module that training changes: its effect may come later.

    ``before`` are the shared numbers before the first step.
    """
    parts, restored_parts = _parts(config, trainer), _parts(config, restored)
    for title, objects in parts.items():
        numbers = dict(_numbers_of_objects(objects))
        restored_numbers = dict(_numbers_of_objects(restored_parts[title]))
        for name in (name for name, value in numbers.items() if restored_numbers.get(name) != value):
            log.warning(
                f"{title}: {name} changes in training, and no checkpoint holds it: if a result depends on"
                " it, a resumed run and bnexp-eval give another one; a buffer (register_buffer) is saved"
            )
        for name, value in _numbers_of_classes(objects):
            if before[title].get(name) != value:
                log.warning(
                    f"{title}: {name} changes in training, and all runs of a process share it: if a result"
                    " depends on it, that depends on the runs before; a buffer (register_buffer) is saved"
                )


def _parts(config: Config, trainer: Trainer) -> dict[str, dict[str, Any]]:
    """The objects of each part, by their names in it."""
    return {
        config.model.title: dict(trainer.model.named_modules()),
        config.loss.title: dict(trainer.loss.named_modules()),
        config.optimizer.title: {"": trainer.optimizer},
    }


def _numbers_of_objects(objects: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, part in objects.items():
        yield from _numbers_in(vars(part), name)


def _numbers_of_classes(objects: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The numbers in the classes of ``objects`` that are the user's own, and in the modules of these."""
    own = {
        ancestor for part in objects.values() for ancestor in type(part).__mro__
        if ancestor.__module__.partition(".")[0] not in LIBRARIES
    }  # fmt: skip
    for ancestor in own:
        yield from _numbers_in(vars(ancestor), ancestor.__name__)
    for name in {ancestor.__module__ for ancestor in own} & sys.modules.keys():
        yield from _numbers_in(vars(sys.modules[name]), name)


def _numbers_in(attributes: Mapping[str, Any], owner: str) -> Iterator[tuple[str, str]]:
    """The name and the text of each number: as a text, nan equals nan."""
    for attribute, value in attributes.items():
        if isinstance(value, int | float) and attribute not in OF_TORCH:
            yield ".".join(filter(None, (owner, attribute))), repr(value)
