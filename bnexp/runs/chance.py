"""When a trained network is no better than chance: the rule, for a run's own log and for the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

SINGLE_CLASS = 0.95


def is_at_chance(accuracy: float, majority: float | None, predictions: Sequence[int] = ()) -> bool:
    """Whether a network has learned nothing, by its test accuracy and the classes that it predicts.

    It is at chance where it predicts almost one class only, or where it is no better than the guess of the
    largest class. ``majority`` is that class's share of the test images, q; ``predictions`` counts the
    images that the network gives to each class. "Almost one class" means that at most 5 % of 1 - q, the share
    of the other classes, are predicted as another class. A good network on uneven classes predicts more.
    Where nothing was recorded the answer is False.
    """
    if majority is None or math.isnan(accuracy):
        return False
    if accuracy <= majority + 1e-9:
        return True
    images = sum(predictions)
    return images > 0 and 1 - max(predictions) / images <= (1 - SINGLE_CLASS) * (1 - majority)
