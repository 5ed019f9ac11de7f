"""The small table at the end of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnexp.report.statistics import Paired, mean_sd, paired

METRIC = "test/accuracy"
PAIRING = ("seed", "dataset.fold")


def group(
    summaries: Sequence[Mapping[str, Any]],
) -> tuple[list[str], dict[tuple[str, ...], dict[object, float]]]:
    """Finished runs grouped by the overrides that differ between them other than seed and fold.

    Returns those keys, and for each group the final test accuracy in per cent by (seed, fold).
    """
    settings = [dict(word.partition("=")[::2] for word in summary["overrides"]) for summary in summaries]
    keys = list(dict.fromkeys(key for setting in settings for key in setting if key not in PAIRING))
    varying = [key for key in keys if len({setting.get(key) for setting in settings}) > 1]
    groups: dict[tuple[str, ...], dict[object, float]] = {}
    for summary, setting in zip(summaries, settings, strict=True):
        if summary["status"] == "finished":
            name = tuple(setting.get(key, "(default)") for key in varying)
            twin = (summary["seed"], setting.get("dataset.fold"))
            groups.setdefault(name, {})[twin] = 100 * summary["final"][METRIC]
    return varying, groups


def render(summaries: Sequence[Mapping[str, Any]]) -> str:
    """The table as plain text, at most 80 columns for short names; empty where nothing finished."""
    varying, groups = group(summaries)
    if not groups:
        return ""
    names = {name: " ".join(name) or "all runs" for name in groups}
    width = max(len(" ".join(varying)), *(len(text) + 2 for text in names.values()))
    baseline = next(iter(groups))
    rows = [
        "test accuracy, final epoch: mean ± sd over seeds; * baseline, differences paired by seed",
        f"{' '.join(varying):<{width}}   n  acc % mean±sd   diff, points [95 % interval]      p",
    ]
    for name, values in groups.items():
        mean, sd = mean_sd(list(values.values()))
        spread = f"{mean:6.2f} ± {sd:.2f}" if math.isfinite(sd) else f"{mean:6.2f}"
        mark = " *" if name == baseline else ""
        row = f"{names[name] + mark:<{width}} {len(values):>3}  {spread:<14}"
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
