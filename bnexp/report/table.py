"""The small table at the end of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnexp.report.statistics import Paired, mean_sd, paired

METRIC = "test/accuracy"
PAIRING = ("seed", "dataset.fold")


def settings(overrides: Sequence[str]) -> dict[str, str]:
    """``key=value`` words as a dictionary."""
    return dict(word.partition("=")[::2] for word in overrides)


def varying_keys(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The overrides that differ between runs, other than seed and fold."""
    found = [settings(summary["overrides"]) for summary in summaries]
    keys = list(dict.fromkeys(key for setting in found for key in setting if key not in PAIRING))
    return [key for key in keys if len({setting.get(key) for setting in found}) > 1]


def group_name(summary: Mapping[str, Any], keys: Sequence[str]) -> str:
    """A run's values of the varying keys, in one line."""
    return " ".join(settings(summary["overrides"]).get(key, "(default)") for key in keys) or "all runs"


def group(summaries: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, dict[object, float]]:
    """Final test accuracy of the finished runs, in per cent, by group and (seed, fold)."""
    groups: dict[str, dict[object, float]] = {}
    for summary in summaries:
        if summary["status"] == "finished":
            twin = (summary["seed"], settings(summary["overrides"]).get("dataset.fold"))
            groups.setdefault(group_name(summary, keys), {})[twin] = 100 * summary["final"][METRIC]
    return groups


def render(summaries: Sequence[Mapping[str, Any]]) -> str:
    """The table as plain text, at most 80 columns for short names; empty where nothing finished."""
    keys = varying_keys(summaries)
    groups = group(summaries, keys)
    if not groups:
        return ""
    width = max(len(" ".join(keys)), *(len(name) + 2 for name in groups))
    baseline = next(iter(groups))
    rows = [
        "test accuracy, final epoch: mean ± sd over seeds; * baseline, differences paired by seed",
        f"{' '.join(keys):<{width}}   n  acc % mean±sd   diff, points [95 % interval]      p",
    ]
    for name, values in groups.items():
        mean, sd = mean_sd(list(values.values()))
        spread = f"{mean:6.2f} ± {sd:.2f}" if math.isfinite(sd) else f"{mean:6.2f}"
        mark = " *" if name == baseline else ""
        row = f"{name + mark:<{width}} {len(values):>3}  {spread:<14}"
        if name != baseline:
            row += f"  {_difference(paired(values, groups[baseline]))}"
        rows.append(row.rstrip())
    return "\n".join(rows)


def _difference(found: Paired) -> str:
    if found.n == 0:
        return "no shared seeds"
    if not math.isfinite(found.low):
        return f"{found.mean:+.2f} (n = {found.n}: no interval)"
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]".ljust(32) + f"{found.p:.3f}"
