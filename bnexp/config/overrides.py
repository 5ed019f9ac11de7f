"""Overrides (the ``key=value`` arguments of the command line) and dotted keys. Imports no Hydra."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from bnexp.errors import UserError


def flatten(values: Mapping[str, Any], parent: str = "") -> dict[str, Any]:
    """Nested keys as dotted keys: ``{"model": {"norm": "none"}}`` becomes ``{"model.norm": "none"}``.

    A list is one value. An empty group stays in the result, with an empty mapping as its value.
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{parent}{key}.")
        else:
            flat[f"{parent}{key}"] = value
    return flat


def split_override(override: str) -> tuple[str, str]:
    """The two sides of ``key=value``. The value is empty where there is no equals sign."""
    key, _, value = override.partition("=")
    return key, value


def override_key(override: str) -> str:
    """The key that an override sets, adds (``+key=value``) or deletes (``~key``)."""
    return split_override(override)[0].lstrip("+~")


def override_values(overrides: Iterable[str]) -> dict[str, str]:
    """The value of each key, as it is written. The last override of a key counts."""
    return dict(map(split_override, overrides))


def check_deletions(overrides: Iterable[str]) -> None:
    """Raises UserError if an override deletes a key: ``~optimizer.lr``.

    Its value would be the default of a signature, which no configuration shows. A group whose ``_target_`` is
    replaced may lose the keys that the new class does not take, and ``~experiment`` takes a preset away.
    """
    overrides = list(overrides)
    replaced_targets = {override_key(text) for text in overrides if not text.startswith("~")}
    for override in overrides:
        key = override_key(override)
        group = key.partition(".")[0]
        if override.startswith("~") and key != "experiment" and f"{group}._target_" not in replaced_targets:
            raise deletion_error(key)


def deletion_error(key: str) -> UserError:
    """For ``~key``."""
    reason = "its value would be a default that no configuration shows"
    return UserError(f"~{key}: a key cannot be deleted, because {reason}; write {key}=VALUE")


def quote_value(text: str) -> str:
    r"""``text`` in single quotes, so that Hydra reads it as one value that is equal to ``text``.

    In Hydra's grammar a backslash stands for itself, except in front of a quote or at the end of the text:
    ``\'`` is a quote and ``\\'`` is a backslash followed by the closing quote.
    """
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)\Z", r"\1\1", escaped) + "'"
