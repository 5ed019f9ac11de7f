"""The axes of a sweep: which jobs its arguments mean, and in which order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.core.override_parser.types import Sweep as HydraSweep
from omegaconf import DictConfig

from bnexp.config.overrides import override_key, override_values, split_override
from bnexp.config.schema import Sweep
from bnexp.errors import UserError, bad_choice
from bnexp.report.read.design import Interval
from bnexp.runs.identity import PAIRING_KEYS
from bnexp.sweeps.tuning import read_intervals

AUTO = "auto"  # the seed of a sweep that plans its own seeds


@dataclass(frozen=True)
class Axes:
    """``jobs`` has the overrides of each job; where the seeds are planned, of each arm, without a seed."""

    jobs: list[list[str]]
    plans_seeds: bool = False
    intervals: tuple[Interval, ...] = ()  # what is tuned

    @property
    def arms(self) -> list[list[str]]:
        """The jobs without their seeds, each once."""
        arms = [[text for text in job if not text.startswith("seed=")] for job in self.jobs]
        return [list(arm) for arm in dict.fromkeys(map(tuple, arms))]


def read_axes(config: DictConfig, arguments: list[str], loader: ConfigLoader, settings: Sweep) -> Axes:
    """The jobs that follow from the arguments and from the axes of a preset.

    The seed's axis changes last but is written first: twins are trained side by side, and a sweep that is cut
    short can compare what it has. ``loader`` knows the choices for ``glob(...)``. Raises UserError for an
    axis without a value or one that is given twice, for an interval that cannot be tuned, and for
    ``seed=auto`` with nothing to compare.
    """
    axes = [f"{key}={value}" for key, value in _axes_with_seeds_first(config, arguments).items()]
    parser = OverridesParser.create(config_loader=loader)
    _check_given_once(parser.parse_overrides(arguments))
    values: dict[str, list[str]] = {}
    intervals: dict[str, IntervalSweep] = {}
    for override in parser.parse_overrides([*axes, *arguments]):  # of equal keys the last counts
        key, value = override.get_key_element(), override.value()
        if isinstance(value, IntervalSweep):
            intervals[key] = value
            values.pop(key, None)
        else:
            values[key] = _values(override)  # keeps the place of the key, the seed's in front
            intervals.pop(key, None)
    plans_seeds = AUTO in values.get("seed", ())
    if plans_seeds:
        _check_planned(values)
        del values["seed"]
    jobs = _sample(_combine(values, settings.together), settings.sample)
    return Axes(jobs, plans_seeds, read_intervals(intervals, config))


def _check_given_once(overrides: Sequence[Override]) -> None:
    """Raises UserError for an axis that another override of its key replaces: its jobs would be missing."""
    previous: dict[str, Override] = {}
    for override in overrides:
        earlier = previous.get(key := override_key(str(override.input_line)))
        if earlier is not None and earlier.is_sweep_override():
            remedy = f"write {key} once, with all values"
            raise UserError(f"{earlier.input_line}: {override.input_line} would replace it; {remedy}")
        previous[key] = override


def _combine(values: Mapping[str, Sequence[str]], together: Sequence[str]) -> list[list[str]]:
    """Every combination of the values, each once; the first values of the keys ``together`` meet, and so on.

    Raises UserError for a key of ``together`` that is no axis, and where their numbers of values differ.
    """
    for key in together:
        if key not in values:
            raise bad_choice("sweep.together", key, list(values))
        if len(values[key]) != len(values[together[0]]):
            counts = ", ".join(f"{name} has {len(values[name])}" for name in (together[0], key))
            raise UserError(f"sweep.together: the axes need equally many values; {counts}")
    groups: dict[str, list[list[str]]] = {}
    for key, listed in values.items():
        name = "together" if key in together else key
        texts = [[f"{key}={value}"] for value in listed]
        groups[name] = [a + b for a, b in zip(groups[name], texts, strict=True)] if name in groups else texts
    jobs = [[text for part in parts for text in part] for parts in itertools.product(*groups.values())]
    return [list(job) for job in dict.fromkeys(map(tuple, jobs))]


def _sample(jobs: list[list[str]], count: int | None) -> list[list[str]]:
    """The jobs of ``count`` combinations of the other axes than seed and fold, always the same ones."""
    combinations = [
        tuple(text for text in job if split_override(text)[0] not in PAIRING_KEYS) for job in jobs
    ]
    distinct = list(dict.fromkeys(combinations))
    if count is None or count >= len(distinct):
        return jobs
    chosen = set(random.Random(0).sample(distinct, count))
    return [job for job, combination in zip(jobs, combinations, strict=True) if combination in chosen]


def _check_planned(values: Mapping[str, Sequence[str]]) -> None:
    """Raises UserError where ``seed=auto`` has nothing to compare, or other repetitions beside it."""
    if len(values["seed"]) > 1:
        raise UserError(f"seed={','.join(values['seed'])}: auto stands alone, it chooses the seeds")
    if "dataset.fold" in values:
        raise UserError("dataset.fold: folds are repetitions of their own; give the seeds, as in seed=0,1,2")
    if all(len(listed) == 1 for listed in values.values()):
        raise UserError("seed=auto: nothing to compare; add a list, as in model.norm=none,batch")


def _check_no_function_in_list(override: Override) -> None:
    """Raises UserError for a list that holds a function of Hydra, which gives several values itself."""
    listed = getattr(override.value(), "list", None)
    if isinstance(listed, list) and any(isinstance(value, HydraSweep | Glob) for value in listed):
        raise UserError(
            f"{override.input_line}: a function as range, choice, interval or glob stands alone; or write"
            " all values, as in a,b,c"
        )


def _values(override: Override) -> list[str]:
    _check_no_function_in_list(override)
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if not override.is_discrete_sweep():
        raise UserError(f"{override.input_line}: an axis is a list of values, as in a,b or range(5)")
    values = [str(value) for value in override.sweep_string_iterator()]
    if not values:
        raise UserError(f"{override.input_line}: names no value, so there is no job")
    return values


def _axes_with_seeds_first(config: DictConfig, arguments: list[str]) -> dict[str, str]:
    """The axes of a preset; in front those of the seed and the fold, also where ``arguments`` have them."""
    axes = {str(key): str(value) for key, value in (config.hydra.sweeper.get("params") or {}).items()}
    values = axes | override_values(arguments)
    return {key: values[key] for key in PAIRING_KEYS if key in values} | axes


def varying_keys(jobs: list[list[str]]) -> dict[str, bool]:
    """The keys that distinguish jobs, seed and fold always, and whether all values of a key are numbers."""
    values: dict[str, list[str]] = {}
    for job in jobs:
        for key, value in override_values(job).items():
            values.setdefault(key, []).append(value)
    varying = {key: texts for key, texts in values.items() if len(set(texts)) > 1 or key in PAIRING_KEYS}
    return {key: None not in map(number, texts) for key, texts in (varying or values).items()}


def label_of(overrides: list[str], keys: dict[str, bool]) -> list[str]:
    """The overrides of a job that distinguish it from the sweep's other jobs."""
    return [override for override in overrides if split_override(override)[0] in keys]


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
