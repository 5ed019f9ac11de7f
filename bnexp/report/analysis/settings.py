"""Which settings differ between runs, and how keys and values are written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bnexp.config.overrides import override_key
from bnexp.report.read.runs import Run
from bnexp.runs.identity import NON_IDENTITY_KEYS, PAIRING_KEYS

# These change no result: names, folders of files, the number of images evaluated at once.
IGNORED_KEYS = (*NON_IDENTITY_KEYS, "dataset.root", "device.threads", "eval_batch_size")
ABSENT = "(absent)"

DATASET_GROUP = "dataset"  # accuracies on different data sets are never compared
TARGET_SUFFIX = "._target_"  # ends the key that names a class, as model._target_


def tabulate_settings(runs: Sequence[Run]) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    """Each varying key with its value in every run; the constant keys; notes on keys that some runs lack."""
    keys = dict.fromkeys(key for run in runs for key in run.settings if not is_ignored(key))
    table = {
        key: [format_value(run.settings[key]) if key in run.settings else ABSENT for run in runs]
        for key in keys
    }
    varying, constants, missing = {}, {}, []
    for key, column in table.items():
        if len(set(column) - {ABSENT}) > 1:
            varying[key] = column
        elif ABSENT not in column:
            constants[key] = column[0]
        elif any({key, f"+{key}", f"++{key}"} & set(run.overrides) for run in runs):
            varying[key] = column  # added on the command line of some runs
        elif _follows_choice(runs, key):
            varying[key] = column  # the key of one choice of its group, as momentum
        elif len(set(table.get(f"{section(key)}{TARGET_SUFFIX}", ()))) < 2:
            missing.append(key)  # all runs use one class, so the key did not exist in an older version
    notes = [f"not in every run's configuration, taken as equal: {', '.join(missing)}"] if missing else []
    return varying, constants, notes


def _follows_choice(runs: Sequence[Run], key: str) -> bool:
    """Whether the runs with the key chose another file of its group than the runs without it."""
    group = section(key)
    with_key = {run.choices.get(group) for run in runs if key in run.settings}
    without_key = {run.choices.get(group) for run in runs if key not in run.settings}
    return not with_key & without_key


def tabulate_typed_keys(runs: Sequence[Run], varying: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Each override key that varies, with what was typed for it, or its default, in every run.

    A group such as ``model`` has the name of its chosen file as its value. Left out are keys of the data set,
    which is never compared, keys whose value is not known for every run, and keys that were typed differently
    for equal settings: two names of one thing are no two things.
    """
    keys = dict.fromkeys(
        override_key(key) for run in runs for key in run.overrides if key not in PAIRING_KEYS
    )
    table = {key: [_typed_value(run, key) for run in runs] for key in keys if not is_ignored(key)}
    settings = [str([column[i] for column in varying.values()]) for i in range(len(runs))]
    return {
        key: column
        for key, column in table.items()
        if key != DATASET_GROUP
        and len(set(column)) > 1
        and (ABSENT not in column or key in varying)
        and is_function_of(column, settings)
    }


def _typed_value(run: Run, key: str) -> str:
    if key in run.choices:
        return run.choices[key]
    if key in run.settings:
        return format_value(run.settings[key])
    return run.overrides.get(key, ABSENT)


def is_function_of(column: Sequence[str], other: Sequence[str]) -> bool:
    """Whether rows with one value in ``other`` have one value in ``column``."""
    return len(set(zip(other, column, strict=True))) == len(set(other))


def is_ignored(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in IGNORED_KEYS)


def format_value(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return json.dumps(value, default=str).replace(", ", ",")


def section(key: str | None) -> str:
    """``model`` of ``model.norm``."""
    return (key or "").partition(".")[0]


def short_key(key: str, others: Sequence[str] = ()) -> str:
    """A key's last part, ``model`` for ``model._target_``; the whole key if one of ``others`` shares it."""
    short = key.removesuffix(TARGET_SUFFIX).removesuffix(".name").rpartition(".")[2]
    return key if any(other != key and short_key(other) == short for other in others) else short


def display_value(key: str, value: str, typed_names: Mapping[str, str]) -> str:
    """A class as it was typed (``mlp``), or its name without the module; other values as they are."""
    return typed_names.get(value, value.rpartition(".")[2]) if key.endswith(TARGET_SUFFIX) else value


def collect_typed_names(runs: Sequence[Run]) -> dict[str, str]:
    """``mlp`` for ``bnexp.models.MLP``, if all runs of this class, and no others, were started with it."""
    names: dict[str, set[str | None]] = {}
    for run in runs:
        for key, value in run.settings.items():
            if key.endswith(TARGET_SUFFIX):
                names.setdefault(str(value), set()).add(run.overrides.get(section(key)))
    single = {target: choices.pop() for target, choices in names.items() if len(choices) == 1}
    uses = Counter(name for name in single.values() if name)
    return {target: name for target, name in single.items() if name and uses[name] == 1}
