"""Groups of runs that differ in seed and fold alone, formed from their saved configurations.

One differing key is compared (``by``). A key that also varies within one of its values, as in a grid, forms
blocks: only groups of the same block are compared. A key that changes together with ``by`` is a confounder:
the report names it. What was typed is compared: ``optimizer=sgd,adam`` compares ``optimizer``, and the
settings that each choice brings along are named beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from bnexp.errors import bad_choice
from bnexp.report.analysis.compared_key import (
    Columns,
    choose_key,
    forms_blocks,
    naming_keys,
    number_of,
)
from bnexp.report.analysis.settings import (
    ABSENT,
    collect_typed_names,
    display_value,
    format_value,
    is_function_of,
    section,
    short_key,
    tabulate_settings,
    tabulate_typed_keys,
)
from bnexp.report.read.runs import PairKey, Problem, Run

DEFAULT_BASELINES = ("none", "null", "false")
VERSIONS = ("bnexp", "torch", "torchvision", "device")


@dataclass(frozen=True)
class Group:
    """Runs that differ in seed and fold alone."""

    name: str
    value: str  # of the compared key
    label: str  # the value as a word of a sentence: ``batch``, but ``model.bn=true``
    assignment: str  # ``model.norm=none``, for sentences in which "none" could be read as "no group"
    block: str  # the other keys' values, equal in all groups that it is compared with
    settings: Mapping[str, str]  # every varying key
    runs: tuple[Run, ...]

    @property
    def full_label(self) -> str:
        """The label and the block."""
        return f"{self.label} ({self.block})" if self.block else self.label

    @property
    def full_assignment(self) -> str:
        """The assignment and the block."""
        return f"{self.assignment} ({self.block})" if self.block else self.assignment


@dataclass(frozen=True)
class Grouping:
    """All groups, and the key that tells the groups of a block apart."""

    by: str | None
    title: str  # the compared key, short
    baseline: str  # a value of the compared key
    groups: tuple[Group, ...]
    block_keys: tuple[str, ...]  # the keys that tell blocks apart, short
    constants: Mapping[str, str]
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]
    typed_names: Mapping[str, str]  # the name typed for a class
    covarying_keys: tuple[str, ...]  # varying keys that form no blocks
    implied_keys: tuple[str, ...]  # varying settings that follow from what was typed

    def display_value(self, key: str, value: str) -> str:
        return display_value(key, value, self.typed_names)

    def baseline_of(self, group: Group) -> Group | None:
        """The baseline of the group's block; None for a baseline and in a block without one."""
        first = self.blocks[group.block][0]
        return first if first.value == self.baseline and first is not group else None

    @cached_property
    def blocks(self) -> dict[str, list[Group]]:
        """The groups by block, each block's baseline first."""
        blocks: dict[str, list[Group]] = {}
        for group in self.groups:
            blocks.setdefault(group.block, []).append(group)
        return blocks

    def implied_differences(self, group: Group, other: Group) -> list[str]:
        """The settings that the typed choice of ``group`` brings along, where ``other`` has another value."""
        return [
            f"{key}={self.display_value(key, group.settings[key])}"
            for key in self.implied_keys
            if group.settings[key] not in (other.settings[key], ABSENT)
        ]

    def differing_settings(self, group: Group, other: Group) -> list[str]:
        """The settings that differ besides the compared key and the keys of its choices."""
        assert self.by is not None
        return [
            key
            for key in self.covarying_keys
            if (a := group.settings[key]) != (b := other.settings[key])
            and not (ABSENT in (a, b) and section(key) == section(self.by))
        ]

    def confounders(self, group: Group, other: Group) -> list[str]:
        """The differing settings, and the device and versions where they differ."""
        keys = self.differing_settings(group, other)
        for name in VERSIONS:
            versions, other_versions = (_versions(g.runs, name) for g in (group, other))
            differ = versions and other_versions and not versions & other_versions
            if differ and not (name == "device" == section(self.by or "")):
                keys.append(name if name == "device" else f"version of {name}")
        return keys


def group_runs(
    runs: Sequence[Run],
    by: str | None = None,
    baseline: str | None = None,
    tuned_keys: Sequence[str] = (),
) -> Grouping:
    """Groups, compared key and baseline. ``tuned_keys`` have each group's best values and are no settings.

    Raises UserError for an unknown key or baseline.
    """
    settings_columns, constants, notes = tabulate_settings(runs)
    tuned_columns = [settings_columns[key] for key in tuned_keys if key in settings_columns]
    settings_columns = {  # also without the keys that take over a tuned value
        key: column for key, column in settings_columns.items() if column not in tuned_columns
    }
    typed_columns = {
        key: column
        for key, column in tabulate_typed_keys(runs, settings_columns).items()
        if key.lstrip("+") not in tuned_keys
    }
    by = choose_key(by, typed_columns, settings_columns, constants)
    if by is not None and by not in typed_columns:
        typed_columns = {}  # a setting is compared, which no override names
    columns, implied_keys = _merge_columns(typed_columns, settings_columns)
    block_keys = [key for key in columns if key != by and forms_blocks(key, columns, by)]
    name_keys = naming_keys(by, block_keys, columns)
    labels = {key: short_key(key, name_keys) for key in name_keys}
    typed_names = collect_typed_names(runs)
    members: dict[tuple[str, ...], list[int]] = {}
    for i in range(len(runs)):
        members.setdefault(tuple(columns[key][i] for key in ([by] if by else []) + block_keys), []).append(i)
    groups, problems = [], []
    for indices in members.values():
        settings = {key: column[indices[0]] for key, column in (settings_columns | columns).items()}
        texts = {key: display_value(key, settings[key], typed_names) for key in name_keys}
        block = " ".join(f"{labels[key]}={text}" for key, text in texts.items() if key != by)
        value = texts[by] if by else ""
        tuned = _tuned_values(runs[indices[0]], tuned_keys)
        name = (f"{value} ({block})" if block and value else value or block) or "all runs"
        newest, repetitions = _newest_runs([runs[i] for i in indices], name)
        problems += repetitions
        groups.append(
            Group(name, value, _label(by, value) + tuned, f"{by}={value}{tuned}", block, settings, newest)
        )
    baseline = _choose_baseline(baseline, groups)
    outer_keys = [key for key in name_keys if key != by]
    return Grouping(
        by=by,
        title=labels[by] if by else "group",
        baseline=baseline,
        groups=tuple(_sort_groups(groups, by, baseline, outer_keys, columns)),
        block_keys=tuple(labels[key] for key in outer_keys),
        constants=constants,
        notes=(*notes, *_version_notes(runs)),
        problems=tuple(problems),
        typed_names=typed_names,
        covarying_keys=tuple(key for key in columns if key != by and key not in block_keys),
        implied_keys=implied_keys,
    )


def _tuned_values(run: Run, keys: Sequence[str]) -> str:
    """`` at lr=0.83``; "" where nothing was tuned."""
    texts = [f"{short_key(key)}={format_value(run.settings[key])}" for key in keys if key in run.settings]
    return f" at {', '.join(dict.fromkeys(texts))}" if texts else ""


def _merge_columns(typed: Columns, settings: Columns) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """The typed keys and the settings that do not follow from them; and the settings that do.

    A choice in a group brings along settings of this group, and an experiment any setting.
    """
    rows = [str(row) for row in zip(*typed.values(), strict=True)]
    implied = [
        key
        for key, column in settings.items()
        if key in typed or ({section(key), "experiment"} & set(typed) and is_function_of(column, rows))
    ]
    free = {key: column for key, column in settings.items() if key not in implied}
    return dict(typed) | free, tuple(key for key in implied if key not in typed)


def _label(by: str | None, value: str) -> str:
    """The value alone, or with its key where it is a number, true, false or null."""
    is_word = number_of(value) is None and value not in ("true", "false", "null")
    return value if is_word else f"{by}={value}"


def _choose_baseline(baseline: str | None, groups: Sequence[Group]) -> str:
    """The requested value, else ``none`` or its like, else the first value as typed."""
    values = list(dict.fromkeys(group.value for group in groups))
    if baseline is None:
        return next((value for value in DEFAULT_BASELINES if value in values), values[0])
    by_name = {group.name: group.value for group in groups} | {value: value for value in values}
    by_name |= {group.label: group.value for group in groups}
    if baseline in by_name:
        return by_name[baseline]
    if (number := number_of(baseline)) is not None:
        for value in values:
            if number_of(value) == number:
                return value
    raise bad_choice("--baseline", baseline, values)


def _newest_runs(runs: Sequence[Run], name: str) -> tuple[tuple[Run, ...], list[Problem]]:
    """The newest run of each seed and fold, and a problem for each older run."""
    newest = {run.pair_key: run for run in sorted(runs, key=lambda run: run.started_at)}
    problems = []
    for run in runs:
        if newest[run.pair_key] is not run:
            which = f"seed {run.seed}" + ("" if run.fold is None else f", fold {run.fold}")
            reason = f"{which} of {name} was run again later: the newer run is compared"
            problems.append(Problem(run.folder, reason))
    return tuple(newest[key] for key in sorted(newest, key=_number_order)), problems


def _number_order(pair_key: PairKey) -> tuple[int, int]:
    seed, fold = pair_key
    return seed, -1 if fold is None else fold


def _sort_groups(
    groups: Sequence[Group], by: str | None, baseline: str, outer_keys: Sequence[str], columns: Columns
) -> list[Group]:
    """Block by block in the order of the other keys' values; in each block the baseline first."""
    ranks = {key: _ranks(columns[key]) for key in ([by] if by else []) + list(outer_keys)}

    def position(group: Group) -> tuple[list[int], bool, int]:
        block = [ranks[key][group.settings[key]] for key in outer_keys]
        return block, group.value != baseline, ranks[by][group.settings[by]] if by else 0

    return sorted(groups, key=position)


def _ranks(column: Sequence[str]) -> dict[str, int]:
    """Numbers by size, then other values in the order of their first appearance."""

    def size(value: str) -> float:
        number = number_of(value)
        return math.inf if number is None else number

    return {value: rank for rank, value in enumerate(sorted(dict.fromkeys(column), key=size))}


def _versions(runs: Sequence[Run], name: str) -> set[str]:
    return {run.versions[name] for run in runs if name in run.versions}


def _version_notes(runs: Sequence[Run]) -> list[str]:
    versions = {name: sorted(_versions(runs, name)) for name in VERSIONS}
    return [f"runs differ in {name}: {'; '.join(v)}" for name, v in versions.items() if len(v) > 1]
