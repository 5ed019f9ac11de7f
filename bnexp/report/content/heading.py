"""What stands above the table: what is compared, and the settings that all runs share."""

from __future__ import annotations

from bnexp.report.analysis.epoch_rule import DESCRIPTIONS
from bnexp.report.analysis.settings import TARGET_SUFFIX, is_ignored, section
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.numbers import agree
from bnexp.runs.identity import PAIRING_KEYS

MAIN_KEYS = (
    "dataset.name",
    "model._target_",
    "model.norm",
    "optimizer._target_",
    "optimizer.lr",
    "batch_size",
    "epochs",
)
MAX_IMPLIED = 6  # settings of one choice; the page lists all of them
CHOICE_SUFFIXES = ("._target_", ".name")  # of the key that holds the choice of a group such as model


def scope(verdict: Verdict) -> list[str]:
    """What is compared: the groups, the metric and its epoch, the number of runs, the number of tests."""
    grouping, comparisons = verdict.grouping, verdict.comparisons
    parts = [f"{grouping.by} vs {grouping.baseline}" if grouping.by and comparisons else "one group"]
    parts.append(f"{verdict.metric.label}, {DESCRIPTIONS[verdict.rule]}")
    counts = sorted({c.difference.n for c in comparisons if c.difference.n})
    if counts:
        is_paired = [c.is_paired for c in comparisons if c.difference.n]
        pairing = "paired " if all(is_paired) else "partly paired " if any(is_paired) else "unpaired "
        extremes = "-".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        parts.append(f"{extremes} {pairing}{agree(counts[-1], comparisons[0].noun)}")
    return parts


def implied_settings(verdict: Verdict) -> str:
    """What the typed choices bring along: ``sgd comes with optimizer.lr=0.05; adam with ...``."""
    settings: dict[str, dict[str, None]] = {}
    for c in verdict.comparisons:
        for group, other in ((c.baseline.group, c.candidate.group), (c.candidate.group, c.baseline.group)):
            differences = verdict.grouping.implied_differences(group, other)
            shown = [setting for setting in differences if TARGET_SUFFIX not in setting]
            settings.setdefault(group.label, {}).update(dict.fromkeys(shown))
    texts = [f"{label} with {', '.join(list(s)[:MAX_IMPLIED])}" for label, s in settings.items() if s]
    return (
        f"settings that come along with the choices, and are compared with them: {'; '.join(texts)}"
        if texts
        else ""
    )


def shared_settings(verdict: Verdict) -> str:
    """The main settings that all runs share; the page lists every one."""
    constants, settings = verdict.grouping.constants, []
    for key in MAIN_KEYS:
        if key in constants:
            value = verdict.grouping.display_value(key, constants[key])
            settings.append(f"{_choice(key)}={value}")
    settings += _shared_overrides(verdict)
    return f"same in all: {' '.join(settings)}" if settings else ""


def _shared_overrides(verdict: Verdict) -> list[str]:
    """Other overrides on the command lines of all runs: mostly values that are not the default."""
    runs = verdict.runs
    listed = {*MAIN_KEYS, *map(_choice, MAIN_KEYS), *PAIRING_KEYS}
    return [
        f"{key}={value}"
        for key, value in runs[0].overrides.items()
        if key not in listed and not is_ignored(key) and all(run.overrides.get(key) == value for run in runs)
    ]


def _choice(key: str) -> str:
    """``model`` for ``model._target_``, as it is typed; other keys as they are."""
    return section(key) if key.endswith(CHOICE_SUFFIXES) else key
