"""Numbers as they are written: points, levels, p values."""

from __future__ import annotations

import math

from bnexp.report.analysis.group_summary import Metric


def points(value: float, metric: Metric, signed: bool = True) -> str:
    """A difference: two decimals in points, four for a loss."""
    return f"{value:{'+' if signed else ''}.{2 if metric.is_accuracy else 4}f}"


def size(value: float, metric: Metric) -> str:
    return f"{points(abs(value), metric, signed=False)}{unit(metric)}"


def unit(metric: Metric) -> str:
    return " points" if metric.is_accuracy else ""


def level(value: float, metric: Metric) -> str:
    return f"{value:.2f} %" if metric.is_accuracy else f"{value:.4f}"


def p_value(p: float) -> str:
    """.031, two significant digits, no zero before the point."""
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
