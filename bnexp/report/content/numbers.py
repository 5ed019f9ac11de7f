"""How numbers are written: differences, values, counts, p values."""

from __future__ import annotations

import math

from bnexp.report.analysis.group_summary import Metric


def points(value: float, metric: Metric, signed: bool = True) -> str:
    """A difference: two decimals for an accuracy, in points, and four for a loss."""
    return f"{value:{'+' if signed else ''}.{2 if metric.is_accuracy else 4}f}"


def size(value: float, metric: Metric) -> str:
    """The absolute value of a difference, with its unit."""
    return f"{points(abs(value), metric, signed=False)}{unit(metric)}"


def unit(metric: Metric) -> str:
    return " points" if metric.is_accuracy else ""


def level(value: float, metric: Metric) -> str:
    """A value of the metric, with its unit."""
    return f"{value:.2f} %" if metric.is_accuracy else f"{value:.4f}"


def mean_and_sd(mean: float, sd: float, decimals: int) -> str:
    """``98.91 ± 0.08``; the mean alone where there is no deviation."""
    return f"{mean:.{decimals}f}" + ("" if math.isnan(sd) else f" ± {sd:.{decimals}f}")


def span(low: float, high: float, metric: Metric) -> str:
    """``anything from -1.17 to +2.29 points``; ``anything`` where the interval has no ends."""
    if math.isinf(low) or math.isinf(high):
        return "anything"
    return f"anything from {points(low, metric)} to {points(high, metric)}{unit(metric)}"


def singular(noun: str) -> str:
    return noun.removesuffix("s")


def agree(count: int, noun: str) -> str:
    """The plural noun, or its singular for a count of 1."""
    return singular(noun) if count == 1 else noun


def p_value(p: float) -> str:
    """``.031``: two significant digits, no zero before the point."""
    if math.isnan(p):
        return ""
    if p < 1e-4:
        return "<.0001"
    digits = 4 if p < 0.001 else 3 if p < 0.1 else 2
    return f"{p:.{digits}f}".lstrip("0") if p < 0.995 else "1.0"


def p_is(p: float) -> str:
    """``p = .031`` or ``p < .0001``."""
    text = p_value(p)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"
