"""Where the numbers come from: when and on which machine the runs trained, and on how many images."""

from __future__ import annotations

from collections.abc import Iterable

from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.numbers import agree

SPLITS = {"train": "training", "val": "validation", "test": "test"}


def provenance(verdict: Verdict) -> list[str]:
    """Date, device and threads, version of torch, data sizes. What the runs do not record is left out.

    Where runs differ, every value is given.
    """
    runs = verdict.runs
    dates = sorted({run.started_at[:10] for run in runs if run.started_at})
    parts = [" to ".join(dict.fromkeys((dates[0], dates[-1])))] if dates else []
    parts += _values(run.versions.get("device", "") for run in runs)
    threads = sorted({run.threads for run in runs if run.threads})
    if threads:
        parts.append(f"{_join(map(str, threads))} {agree(threads[-1], 'threads')}")
    parts += [f"torch {versions}" for versions in _values(run.versions.get("torch", "") for run in runs)]
    return parts + _values(_images(run.images) for run in runs)


def _images(counts: object) -> str:
    """``1,294 training, 144 validation, 359 test images``."""
    if not isinstance(counts, dict):
        return ""
    texts = [f"{counts[split]:,} {name}" for split, name in SPLITS.items() if split in counts]
    return f"{', '.join(texts)} images" if texts else ""


def _values(texts: Iterable[str]) -> list[str]:
    """The distinct texts as one, in the order of the runs; nothing where no run has one."""
    distinct = list(dict.fromkeys(text for text in texts if text))
    return [_join(distinct)] if distinct else []


def _join(texts: Iterable[str]) -> str:
    return " or ".join(texts)
