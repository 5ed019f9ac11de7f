"""``sweep.search=tpe``: Optuna asks for the points, and learns from earlier ones (Bergstra et al. 2011)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bnexp.errors import UserError
from bnexp.report.read.design import Interval

POINTS_AT_ONCE = 4  # of each arm; always the same, so that an interrupted search asks the same points again


class TreeSearch:
    """The search of one arm within the intervals of ``region``. Raises UserError where Optuna is missing."""

    def __init__(self, region: Sequence[Interval]) -> None:
        self._optuna, self.region = import_optuna(), region
        # Points that are asked together keep apart: each counts as bad until its score is known.
        sampler = self._optuna.samplers.TPESampler(seed=0, constant_liar=True)
        self._study = self._optuna.create_study(direction="maximize", sampler=sampler)
        self._space = {interval.key: self._distribution(interval) for interval in region}
        self._open_trials: list[Any] = []

    def ask(self, count: int) -> list[list[str]]:
        """The next points, as overrides."""
        self._open_trials = [self._study.ask(self._space) for _ in range(count)]
        return [
            [i.assignment(i.value_at(i.position_of(trial.params[i.key]))) for i in self.region]
            for trial in self._open_trials
        ]

    def tell(self, scores: Sequence[float | None]) -> None:
        """The scores of the points of the last ``ask``; None for a point that lost a run: it failed."""
        for trial, score in zip(self._open_trials, scores, strict=True):
            state = self._optuna.trial.TrialState.FAIL if score is None else None
            self._study.tell(trial, score, state=state)

    def _distribution(self, interval: Interval) -> Any:
        kinds, low, high = self._optuna.distributions, interval.low, interval.high
        if interval.is_integer:
            return kinds.IntDistribution(int(low), int(high), log=interval.is_log)
        return kinds.FloatDistribution(low, high, log=interval.is_log)


def import_optuna() -> Any:
    """Raises UserError where the extra ``tune`` is not installed."""
    try:
        import optuna
    except ImportError:
        install = "pip install -e '.[tune]'"
        text = f"sweep.search=tpe: Optuna is not installed; {install} in a clone of bnexp brings it"
        raise UserError(text) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
