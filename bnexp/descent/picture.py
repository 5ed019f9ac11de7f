"""The pictures of descents: a curve with its points, contours with paths, the loss of regression."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from bnexp.descent.functions import PlainFunction, Point
from bnexp.descent.path import DescentPath, PathRow
from bnexp.descent.ranking import Arm, rank
from bnexp.descent.regression import Regression
from bnexp.report.plots.style import (
    MAX_GROUPS,
    TEXT_COLOUR,
    Picture,
    Style,
    draw_legend,
    drawing_style,
    legend_height,
    make_figure,
    make_style,
    scale_loss_axis,
    shorten,
)

Box = list[tuple[float, float]]  # the lowest and the highest coordinate to show, for each variable
CURVE_POINTS, GRID_POINTS, CONTOURS = 601, 161, 12
MAX_MARKERS = 60  # a path with more visible points is a line without markers
VISIBLE = 0.015  # the shortest step whose two ends can be told apart, relative to the picture
MARGIN = 0.08  # around the points, relative to their extent


def draw_paths(arms: Sequence[Arm], name: str = "paths") -> Picture:
    """The paths of one function in one picture: the best MAX_GROUPS, in their typed order."""
    logging.getLogger("matplotlib.font_manager").setLevel(logging.WARNING)  # the first start builds a list
    best = next(iter(rank(arms).values()))[:MAX_GROUPS]
    shown = [arm for arm in arms if arm in best]
    objective = shown[0].path.objective
    with drawing_style():
        if isinstance(objective, Regression):
            figure, caption = _draw_regression(shown)
        elif isinstance(objective, PlainFunction) and len(objective.variables) == 1:
            figure, caption = _draw_curve(shown, objective)
        elif isinstance(objective, PlainFunction) and len(objective.variables) == 2:
            figure, caption = _draw_contours(shown, objective)
        else:
            figure, caption = _draw_values(shown)
    if len(arms) > MAX_GROUPS:
        caption += f" Shown: the best {MAX_GROUPS} of {len(arms)} descents."
    alt = f"{arms[0].function}: " + "; ".join(f"{arm.label}: {arm.outcome.sentence}" for arm in shown)
    return Picture(name, arms[0].function, alt, caption, figure)


def _draw_curve(arms: Sequence[Arm], function: PlainFunction) -> tuple[Any, str]:
    """A function of one variable, and the points of each path on it, joined in their order."""
    labels = [shorten(arm.label) for arm in arms]
    figure, (axes,) = make_figure(3.0, left=0.75, top=legend_height(labels))
    box = _box(arms)
    ((low, high),) = box
    x = torch.linspace(low, high, CURVE_POINTS, dtype=torch.float64)
    curve = function.grid(x).detach()
    axes.plot(x, curve, color=TEXT_COLOUR, alpha=0.45, linewidth=1.2, zorder=1)
    for i, (arm, label) in enumerate(zip(arms, labels, strict=True)):
        rows = _rows_to_show(arm.path, box)
        _plot_path(axes, [(row.point[0], row.value) for row in rows], make_style(i), label, box)
    _mark_starts(axes, [(arm.path.rows[0].point[0], arm.path.rows[0].value) for arm in arms])
    axes.set_xlim(low, high)
    axes.set_ylim(*_value_limits(curve, arms, box))
    axes.set_xlabel(function.variables[0])
    axes.set_ylabel("value")
    draw_legend(figure, axes)
    return figure, "Grey line: the function. Marks: the points of the descent, joined in their order."


def _draw_contours(arms: Sequence[Arm], function: PlainFunction) -> tuple[Any, str]:
    """Contours of a function of two variables, and the paths on them."""
    labels = [shorten(arm.label) for arm in arms]
    figure, (axes,) = make_figure(3.6, left=0.65, top=legend_height(labels))
    box = _with_equal_units(_box(arms), axes)
    x1, x2 = (torch.linspace(low, high, GRID_POINTS, dtype=torch.float64) for low, high in box)
    first, second = torch.meshgrid(x1, x2, indexing="xy")
    values = function.grid(first, second).detach()
    if levels := _levels(values):
        contours = axes.contour(
            x1, x2, values.numpy(), levels=levels, colors=TEXT_COLOUR, linewidths=0.6, alpha=0.35,
            linestyles="solid", zorder=1,
        )  # fmt: skip
        axes.clabel(contours, levels[::2], fontsize=6.5, fmt=lambda value: f"{value:.3g}", inline_spacing=2)
    for i, (arm, label) in enumerate(zip(arms, labels, strict=True)):
        points = [(row.point[0], row.point[1]) for row in _rows_to_show(arm.path, box)]
        _plot_path(axes, points, make_style(i), label, box)
    _mark_starts(axes, [arm.path.rows[0].point for arm in arms])
    for minimum in _minima(arms):
        if _is_inside(minimum, box):
            axes.plot(*minimum, "+", color=TEXT_COLOUR, markersize=11, markeredgewidth=1.4, zorder=4)
    axes.grid(visible=False)
    axes.set_xlim(*box[0])
    axes.set_ylim(*box[1])
    axes.set_xlabel(function.variables[0])
    axes.set_ylabel(function.variables[1])
    draw_legend(figure, axes)
    return figure, "Thin lines: places of equal value. Ring: the start. +: the nearest known minimum."


def _draw_regression(arms: Sequence[Arm]) -> tuple[Any, str]:
    """The loss over all examples, against passes over them and against seconds."""
    labels = [shorten(arm.label) for arm in arms]
    figure, panels = make_figure(
        2.8, columns=2, left=0.65, top=legend_height(labels), gap=(0.25, 0.2), sharey=True
    )
    losses = []
    for i, (arm, label) in enumerate(zip(arms, labels, strict=True)):
        rows, style = arm.path.finite_rows, make_style(i)
        losses += [row.value for row in rows]
        for axes, xs in zip(
            panels, ([row.epoch for row in rows], [row.seconds for row in rows]), strict=True
        ):
            first = int(axes is panels[1])  # at 0 seconds: not on a logarithmic axis
            axes.plot(
                xs[first:], [row.value for row in rows[first:]], color=style.colour, linestyle=style.dash,
                linewidth=1.2, label=label, marker=style.marker if len(rows) <= MAX_MARKERS else "",
                markersize=3,
            )  # fmt: skip
    least = _least_value(arms[0].path)
    for axes, label in zip(panels, ("epoch", "seconds of the steps"), strict=True):
        axes.axhline(least, color=TEXT_COLOUR, linewidth=0.8, linestyle=":", alpha=0.7)
        axes.set_xlabel(label)
    if len(arms[0].path.finite_rows) > 1:
        _scale_seconds_axis(panels[1])
    scale_loss_axis(panels[0], [*losses, least])
    panels[0].set_ylabel("loss")
    draw_legend(figure, panels[0])
    return figure, "The loss over all examples. Dotted line: the loss of the least-squares solution."


def _scale_seconds_axis(axes: Any) -> None:
    """A logarithmic axis with a tick at each power of ten, written as a plain number."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_values(arms: Sequence[Arm]) -> tuple[Any, str]:
    """The value after each step: of a function with more than two variables."""
    labels = [shorten(arm.label) for arm in arms]
    figure, (axes,) = make_figure(2.8, left=0.75, top=legend_height(labels))
    for i, (arm, label) in enumerate(zip(arms, labels, strict=True)):
        points = [(float(row.step), row.value) for row in arm.path.finite_rows]
        _plot_path(axes, points, make_style(i), label, [])
    axes.set_xlabel("step")
    axes.set_ylabel("value")
    draw_legend(figure, axes)
    return figure, "The value after each step."


def _plot_path(axes: Any, points: Sequence[tuple[float, float]], style: Style, label: str, box: Box) -> None:
    """A line through the points, with a mark on each that can be told apart from the point before."""
    axes.plot(
        *zip(*points, strict=True), color=style.colour, linestyle=style.dash, linewidth=1.1, label=label,
        zorder=3, marker=style.marker, markersize=3.5, markevery=_points_to_mark(points, box),
    )  # fmt: skip


def _points_to_mark(points: Sequence[tuple[float, float]], box: Box) -> list[int]:
    """The numbers of the points to mark: all of a short path, of a long one the first of each long step."""
    if len(points) <= MAX_MARKERS // 2:
        return list(range(len(points)))
    sizes = [high - low for low, high in box]
    marked = [0]
    for i, (before, after) in enumerate(pairwise(points), 1):
        moves = [abs(b - a) / size for a, b, size in zip(before, after, sizes, strict=False)]
        if math.hypot(*moves) > VISIBLE:
            marked.append(i)
    return marked if len(marked) <= MAX_MARKERS else []


def _mark_starts(axes: Any, places: Sequence[Point]) -> None:
    for x, y in dict.fromkeys(places):
        axes.plot(x, y, "o", color=TEXT_COLOUR, fillstyle="none", markersize=9, zorder=4)


def _box(arms: Sequence[Arm]) -> Box:
    """The region that shows every path. A path that diverges is shown where it begins.

    It is shown as far from the origin as twice the other paths; alone, as ten times its start.
    """
    steady = [arm for arm in arms if arm.outcome.state != "diverges"]
    points = [row.point for arm in steady for row in arm.path.finite_rows]
    points += [arm.path.rows[0].point for arm in arms] + _minima(steady or arms)
    farthest = max(1e-3, *(math.hypot(*point) for point in points))
    limit = (2 if steady else 10) * farthest
    points += [row.point for arm in arms for row in arm.path.finite_rows if math.hypot(*row.point) <= limit]
    sides = [(min(coordinates), max(coordinates)) for coordinates in zip(*points, strict=True)]
    widest = max(1e-3 * farthest, *(high - low for low, high in sides))
    box = []
    for low, high in sides:
        margin = max((high - low) / 2, widest / 8) + MARGIN * widest
        box.append(((low + high) / 2 - margin, (low + high) / 2 + margin))
    return box


def _with_equal_units(box: Box, axes: Any) -> Box:
    """``box``, larger in one direction, so that a unit is as long on both axes: an ellipse looks like one."""
    place, figure = axes.get_position(), axes.figure.get_size_inches()
    inches = (place.width * figure[0], place.height * figure[1])
    unit = max((high - low) / length for (low, high), length in zip(box, inches, strict=True))
    return [
        ((low + high - unit * length) / 2, (low + high + unit * length) / 2)
        for (low, high), length in zip(box, inches, strict=True)
    ]


def _rows_to_show(path: DescentPath, box: Box) -> list[PathRow]:
    """The rows up to the first that is outside of ``box``: the line leads to where the path leaves."""
    rows = []
    for row in path.finite_rows:
        rows.append(row)
        if not _is_inside(row.point, box):
            break
    return rows


def _value_limits(curve: torch.Tensor, arms: Sequence[Arm], box: Box) -> tuple[float, float]:
    """The values to show: those of the points inside ``box``, and the curve up to as much again."""
    inside = [row.value for arm in arms for row in arm.path.finite_rows if _is_inside(row.point, box)]
    finite = curve[curve.isfinite()]
    low, high = min(inside), max(inside)
    reach = max(high - low, 1e-9)
    low, high = max(low - reach, float(finite.min())), min(high + reach, float(finite.max()))
    margin = 0.06 * max(high - low, 1e-9)
    return low - margin, high + margin


def _minima(arms: Sequence[Arm]) -> list[Point]:
    """The known minima that are nearest to the last points."""
    minima = [arm.path.objective.minimum(arm.path.last.point) for arm in arms]
    return list(dict.fromkeys(minimum for minimum in minima if minimum is not None))


def _is_inside(point: Point, box: Box) -> bool:
    return all(low <= coordinate <= high for coordinate, (low, high) in zip(point, box, strict=True))


def _levels(values: torch.Tensor) -> list[float]:
    """Round values for contours that divide the picture into regions of equal area."""
    finite = values[values.isfinite()]
    if len(finite) == 0:
        return []
    shares = torch.linspace(0.02, 0.97, CONTOURS, dtype=values.dtype)
    return sorted({float(f"{value:.2g}") for value in finite.quantile(shares).tolist()})


def _least_value(path: DescentPath) -> float:
    minimum = path.objective.minimum(path.last.point)
    return float(path.objective.value(torch.tensor(minimum, dtype=torch.float64)))
