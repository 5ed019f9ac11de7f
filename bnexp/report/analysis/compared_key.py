"""Which of the keys that vary over the runs is compared, and which of the others tell the groups apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bnexp.errors import UserError, bad_choice
from bnexp.report.analysis.settings import TARGET_SUFFIX, is_function_of, short_key

DATASET = "dataset.name"  # accuracies on different data sets are never compared
# The first of these that varies is compared, unless the user names a key.
PREFERRED_KEYS = (
    "model.norm", "model", f"model{TARGET_SUFFIX}", "optimizer", f"optimizer{TARGET_SUFFIX}", "optimizer.lr",
)  # fmt: skip
Columns = Mapping[str, list[str]]  # a varying key's value in each run


def choose_key(by: str | None, typed: Columns, settings: Columns, constants: Mapping[str, str]) -> str | None:
    """The compared key: ``by`` completed to its full name, or the preferred one of the varying keys."""
    choices = [key for key in dict.fromkeys((*typed, *settings)) if key != DATASET]
    if by is None:
        return _default_key(choices, typed, settings)
    if by == DATASET:
        raise UserError(f"--by={by}: accuracies on different data sets are not compared")
    matches = [key for key in choices if key == by or short_key(key) == by]
    if by in matches:
        return by
    if matches:
        return matches[0]
    if by in constants:
        raise UserError(
            f"--by={by}: is {constants[by]} in every run; these differ: {', '.join(choices) or 'none'}"
        )
    if not choices:
        raise UserError(f"--by={by}: all runs have the same settings, so nothing can be compared")
    raise bad_choice("--by", by, choices)


def _default_key(choices: Sequence[str], typed: Columns, settings: Columns) -> str | None:
    """A typed key that tells all groups apart, else another typed key, else a setting."""
    rows = [str(row) for row in zip(*settings.values(), strict=True)]
    decisive = [key for key, column in typed.items() if is_function_of(rows, column)]
    candidates = [key for key in choices if not (DATASET in settings and key.startswith("dataset."))]
    for keys in (decisive, list(typed), candidates):
        order = [*PREFERRED_KEYS, *(key for key in keys if key.endswith(TARGET_SUFFIX)), *keys]
        key = next((key for key in order if key in keys and key in candidates), None)
        if key is not None:
            break
    model = f"model{TARGET_SUFFIX}"
    if key == "model.norm" and model in settings and _always_together(settings[key], settings[model]):
        return model  # each model brings its own norm, so the models are compared
    return key


def forms_blocks(key: str, columns: Columns, by: str | None) -> bool:
    return key == DATASET or (by is not None and _splits(columns[key], columns[by]))


def naming_keys(by: str | None, block_keys: Sequence[str], columns: Columns) -> list[str]:
    """The compared key, the data set, and the fewest further keys that tell the groups apart."""
    chosen = [by] if by else []
    for key in sorted(block_keys, key=lambda key: (key != DATASET, not key.endswith(TARGET_SUFFIX))):
        names = [str([columns[name][i] for name in chosen]) for i in range(len(columns[key]))]
        if key == DATASET or _splits(columns[key], names):
            chosen.append(key)
    return chosen


def _splits(column: Sequence[str], other: Sequence[str]) -> bool:
    """``column`` takes several values within one value of ``other``."""
    return len(set(zip(other, column, strict=True))) > len(set(other))


def _always_together(column: Sequence[str], other: Sequence[str]) -> bool:
    """Each value of one column belongs to one value of the other."""
    return len(set(zip(column, other, strict=True))) == len(set(column)) == len(set(other))


def number_of(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
