"""What stands above the table: the title and the settings that all runs share."""

from __future__ import annotations

from bnexp.report.analysis.sample_size import PAIRING_KEYS
from bnexp.report.analysis.settings import is_ignored, section
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.numbers import agree

MAIN_KEYS = (
    "dataset.name",
    "model._target_",
    "model.norm",
    "optimizer._target_",
    "optimizer.lr",
    "batch_size",
    "epochs",
)
CHOICE_SUFFIXES = ("._target_", ".name")  # of the key that holds the choice of a group such as model


def title(verdict: Verdict) -> list[str]:
    """Parts of the title: what is compared, on which metric, over how many seeds, in which family."""
    grouping, comparisons = verdict.grouping, verdict.comparisons
    parts = [f"compare {grouping.by} vs {grouping.baseline}" if grouping.by else "one group"]
    parts.append(f"{verdict.metric.label}, final epoch")
    counts = sorted({c.difference.n for c in comparisons if c.difference.n})
    if counts:
        pairing = "paired" if all(c.is_paired for c in comparisons) else "partly unpaired"
        extremes = "-".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        parts.append(f"{extremes} {pairing} {agree(counts[-1], comparisons[0].noun)}")
    if verdict.family > 1:
        parts.append(f"Holm, m={verdict.family}")
    return parts


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
