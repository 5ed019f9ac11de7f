"""All pictures of a comparison in reading order. Each caption says what its marks, lines and bands are."""

from __future__ import annotations

import logging

from bnexp.report.analysis.verdict import Verdict
from bnexp.report.measurements.collect import measurements
from bnexp.report.plots.confusion import draw_confusions
from bnexp.report.plots.forest import draw_forest
from bnexp.report.plots.learning_rates import draw_learning_rates
from bnexp.report.plots.measurements import draw_measurement
from bnexp.report.plots.style import Picture, drawing_style, shown_blocks
from bnexp.report.plots.training_curves import draw_curves, draw_times
from bnexp.report.plots.tuning import draw_budget, draw_tuning


def draw_pictures(verdict: Verdict) -> list[Picture]:
    """All pictures that the runs have data for; the first one shows the answer.

    Blocks share a picture, except for curves, times and some confusion matrices. Pictures of one column come
    in pairs: tuning and budget, curves and times. Curves without times take both columns, so that the page
    has no hole.
    """
    logging.getLogger("matplotlib.font_manager").setLevel(logging.WARNING)  # the first start builds a list
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # a PDF gets the letters that it uses
    with drawing_style():
        pictures = [draw_learning_rates(verdict), draw_forest(verdict)]
        pictures += [draw_tuning(verdict), draw_budget(verdict)]
        pictures += [draw_measurement(measurement) for measurement in measurements(verdict)]
        for i, (block, summaries) in enumerate(shown_blocks(verdict)):
            suffix = f"-{i + 1}" if i else ""
            times = draw_times(verdict, summaries, block, suffix)
            pictures += [draw_curves(verdict, summaries, block, suffix, is_wide=times is None), times]
        pictures += draw_confusions(verdict)
    return [picture for picture in pictures if picture is not None]
