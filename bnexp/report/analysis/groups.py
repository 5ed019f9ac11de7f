"""Which runs belong together: what differs between their saved configurations, other than seed and fold.

One differing key is compared (``by``). A key that varies within one of its values too, as in a grid, makes
blocks: only groups that agree in it are compared. A key that changes along with ``by`` is a confounder and is
pointed out.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bnexp.errors import UserError, bad_choice
from bnexp.report.read.runs import Problem, Run
from bnexp.runs.identity import NON_IDENTITY_KEYS

# What a run is called, where its files lie and how many images it evaluates at once change no result.
IGNORED = (*NON_IDENTITY_KEYS, "dataset.root", "device.threads", "eval_batch_size")
DATASET = "dataset.name"  # accuracies on two data sets are never compared
FIRST = ("model.norm", "model._target_", "optimizer._target_", "optimizer.lr")
OFF = ("none", "null", "false")  # the natural baselines
ABSENT = "(absent)"
VERSIONS = ("bnexp", "torch", "torchvision", "device")


@dataclass(frozen=True)
class Group:
    """Runs that differ in seed and fold alone."""

    name: str
    value: str  # of the compared key
    block: str  # the other keys' values, the same in all groups it is compared with
    settings: Mapping[str, str]  # every differing key
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Grouping:
    by: str | None
    title: str  # the compared key, short
    baseline: str
    groups: tuple[Group, ...]
    blocked: tuple[str, ...]  # the keys that tell blocks apart, short
    constants: Mapping[str, str]
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]
    typed: Mapping[str, str]  # the word on the command line for a _target_, where all its runs agree on one
    along: tuple[str, ...] = field(default=())  # keys that are no blocks

    def word(self, key: str, value: str) -> str:
        return _word(key, value, self.typed)

    def reference(self, group: Group) -> Group | None:
        """What a group is compared with: the baseline of its block."""
        first = self.blocks[group.block][0]  # where there is one
        return first if first.value == self.baseline and first is not group else None

    @cached_property
    def blocks(self) -> dict[str, list[Group]]:
        """The groups that agree in all but the compared key and what changes along with it."""
        found: dict[str, list[Group]] = {}
        for one in self.groups:
            found.setdefault(one.block, []).append(one)
        return found

    def confounders(self, group: Group, other: Group) -> list[str]:
        """What differs between two groups besides the compared key and what its choice brings with it."""
        assert self.by is not None
        found = []
        for key in self.along:
            ours, theirs = group.settings[key], other.settings[key]
            brought = ABSENT in (ours, theirs) and _part(key) == _part(self.by)
            if ours != theirs and not brought:
                found.append(key)
        for name in VERSIONS:
            mine, its = (
                {run.versions[name] for run in g.runs if name in run.versions} for g in (group, other)
            )
            if mine and its and not mine & its and not (name == "device" == _part(self.by)):
                found.append(f"version of {name}" if name != "device" else name)
        return found


def group(runs: Sequence[Run], by: str | None = None, baseline: str | None = None) -> Grouping:
    """Groups, compared key and baseline; raises UserError for a key or baseline that is not among them."""
    values, constants, notes = _values(runs)
    varying = list(values)
    by = _compared(by, values, constants)
    blocks = [
        key for key in varying if key != by and (key == DATASET or _splits(values[key], values.get(by or "")))
    ]
    shown = _shown(by, blocks, values)
    names, typed = {key: _short(key, shown) for key in shown}, _typed(runs)
    found: dict[tuple[str, ...], list[int]] = {}
    for i in range(len(runs)):
        found.setdefault(tuple(values[key][i] for key in ([by] if by else []) + blocks), []).append(i)
    groups, problems = [], []
    for members in found.values():
        settings = {key: values[key][members[0]] for key in varying}
        rest = " ".join(f"{names[key]}={_word(key, settings[key], typed)}" for key in shown if key != by)
        value = _word(by, settings[by], typed) if by else ""
        name = (f"{value} ({rest})" if rest and value else value or rest) or "all runs"
        kept, repeats = _one_each([runs[i] for i in members], name)
        problems += repeats
        groups.append(Group(name, value, rest, settings, kept))
    first = _baseline(baseline, groups)
    outer, ranks = [key for key in shown if key != by], {key: _ranks(values[key]) for key in shown}
    groups.sort(
        key=lambda one: (
            [ranks[key][one.settings[key]] for key in outer],
            one.value != first,
            ranks[by][one.settings[by]] if by else 0,
        )
    )
    return Grouping(
        by,
        names[by] if by else "group",
        first,
        tuple(groups),
        tuple(names[key] for key in outer),
        constants,
        (*notes, *_versions(runs)),
        tuple(problems),
        typed,
        tuple(key for key in varying if key != by and key not in blocks),
    )


def show(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return json.dumps(value, default=str).replace(", ", ",")


def ignored(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in IGNORED)


def _values(runs: Sequence[Run]) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    """Every varying key with its value in each run; the constant ones; what is missing in older runs."""
    keys = dict.fromkeys(key for run in runs for key in run.settings if not ignored(key))
    table = {
        key: [show(run.settings[key]) if key in run.settings else ABSENT for run in runs] for key in keys
    }
    varying, constants, missing = {}, {}, []
    for key, column in table.items():
        present = set(column) - {ABSENT}
        if len(present) > 1:
            varying[key] = column
        elif ABSENT not in column:
            constants[key] = column[0]
        elif any({key, f"+{key}", f"++{key}"} & set(run.overrides) for run in runs):
            varying[key] = column
        elif len(set(table.get(f"{_part(key)}._target_", ()))) < 2:
            missing.append(key)  # not a key of another choice: an older version had no such key
    notes = [f"not in every run's configuration, taken as equal: {', '.join(missing)}"] if missing else []
    return varying, constants, notes


def _compared(by: str | None, values: Mapping[str, list[str]], constants: Mapping[str, str]) -> str | None:
    choices = [key for key in values if key != DATASET]
    if by is None:
        inherited = [key for key in choices if not (DATASET in values and key.startswith("dataset."))]
        order = [*FIRST, *(key for key in inherited if key.endswith("._target_")), *inherited]
        found = next((key for key in order if key in inherited), None)
        # A model that brings its own norm is compared as a model.
        if found == "model.norm" and _same_split(values[found], values.get("model._target_")):
            return "model._target_"
        return found
    if by == DATASET:
        raise UserError(f"--by={by}: accuracies on different data sets are not compared")
    full = [key for key in choices if key == by or _short(key, []) == by]
    if len(full) == 1 or by in full:
        return by if by in full else full[0]
    if by in constants:
        raise UserError(
            f"--by={by}: is {constants[by]} in every run; these differ: {', '.join(choices) or 'none'}"
        )
    raise bad_choice("--by", by, choices)


def _baseline(baseline: str | None, groups: Sequence[Group]) -> str:
    values = list(dict.fromkeys(one.value for one in groups))
    if baseline is None:
        return next((value for value in OFF if value in values), values[0])
    named = {one.name: one.value for one in groups} | {value: value for value in values}
    if baseline not in named:
        raise bad_choice("--baseline", baseline, values)
    return named[baseline]


def _splits(column: Sequence[str], by: Sequence[str] | None) -> bool:
    """The key takes several values within one value of the compared key."""
    return by is not None and len(set(zip(by, column, strict=True))) > len(set(by))


def _same_split(one: Sequence[str], other: Sequence[str] | None) -> bool:
    return other is not None and len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other))


def _shown(by: str | None, blocks: Sequence[str], values: Mapping[str, list[str]]) -> list[str]:
    """The fewest keys that tell the groups apart, the compared one first."""
    order = sorted(blocks, key=lambda key: (key != DATASET, not key.endswith("._target_")))
    shown = [by] if by else []
    for key in order:
        rows = list(zip(*(values[name] for name in shown), strict=True)) if shown else [()] * len(values[key])
        if _splits(values[key], [str(row) for row in rows]):
            shown.append(key)
    return shown


def _one_each(runs: Sequence[Run], name: str) -> tuple[tuple[Run, ...], list[Problem]]:
    """One run a twin: the newest."""
    newest = {run.twin: run for run in runs}
    old = [run for run in runs if newest[run.twin] is not run]
    where = [f"seed {run.seed}" + ("" if run.fold is None else f", fold {run.fold}") for run in old]
    return tuple(newest[twin] for twin in sorted(newest, key=str)), [
        Problem(run.folder, f"{words} of {name} was run again later: the newer run is compared")
        for run, words in zip(old, where, strict=True)
    ]


def _versions(runs: Sequence[Run]) -> list[str]:
    found = {name: sorted({run.versions[name] for run in runs if name in run.versions}) for name in VERSIONS}
    return [f"runs differ in {name}: {'; '.join(all_)}" for name, all_ in found.items() if len(all_) > 1]


def _part(key: str | None) -> str:
    return (key or "").partition(".")[0]


def _short(key: str, among: Sequence[str]) -> str:
    """The last word of a key (model for ``model._target_``); the whole key where that is ambiguous."""
    short = key.removesuffix("._target_").removesuffix(".name").rpartition(".")[2]
    return key if any(other != key and _short(other, []) == short for other in among) else short


def _word(key: str, value: str, typed: Mapping[str, str]) -> str:
    return typed.get(value, value.rpartition(".")[2]) if key.endswith("._target_") else value


def _typed(runs: Sequence[Run]) -> dict[str, str]:
    """``mlp`` for ``bnexp.models.MLP``, where that is how each of its runs was asked for, and no other's."""
    words: dict[str, set[str | None]] = {}
    for run in runs:
        for key, value in run.settings.items():
            if key.endswith("._target_"):
                words.setdefault(str(value), set()).add(run.overrides.get(_part(key)))
    single = {target: found.pop() for target, found in words.items() if len(found) == 1}
    often = Counter(word for word in single.values() if word)
    return {target: word for target, word in single.items() if word and often[word] == 1}


def _ranks(column: Sequence[str]) -> dict[str, int]:
    """Numbers by size, then words in the order in which they came."""

    def size(word: str) -> float:
        try:
            return float(word)
        except ValueError:
            return math.inf

    return {word: rank for rank, word in enumerate(sorted(dict.fromkeys(column), key=size))}
