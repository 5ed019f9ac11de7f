"""``sweep.search=tpe``: the points come from Optuna, which learns from earlier trials (Bergstra et al. 2011)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bnexp.errors import UserError
from bnexp.report.read.design import Interval

if TYPE_CHECKING:
    from bnexp.sweeps.tuning import Tuning

POINTS_AT_ONCE = 4  # of each arm; always the same, so that an interrupted search asks the same points again


def tree_batches(tuning: Tuning, regions: Sequence[Sequence[Interval]]) -> Iterator[list[list[str]]]:
    """Batches of jobs; each arm has a study of its own, with the same budget.

    A point of which a run was lost is told as failed. Raises UserError where Optuna is not installed.
    """
    from bnexp.sweeps.tuning import assignment

    optuna = import_optuna()
    for region in regions:
        studies = {tuple(arm): _make_study(optuna) for arm in tuning.arms}
        space = {interval.key: _distribution(optuna, interval) for interval in region}
        left = tuning.design.trials // len(regions)
        while left > 0:
            count = min(POINTS_AT_ONCE, left)
            trials = {arm: [study.ask(space) for _ in range(count)] for arm, study in studies.items()}
            points = {
                arm: [[assignment(i, _rounded(i, trial.params[i.key])) for i in region] for trial in asked]
                for arm, asked in trials.items()
            }
            yield tuning.jobs(points)
            tuning.read()
            for arm, asked in trials.items():
                for trial, point in zip(asked, points[arm], strict=True):
                    score = tuning.score_of(list(arm), point)
                    state = optuna.trial.TrialState.FAIL if score is None else None
                    studies[arm].tell(trial, score, state=state)
            left -= count


def import_optuna() -> Any:
    """Raises UserError where the extra ``tune`` is not installed."""
    try:
        import optuna
    except ImportError:
        install = "pip install -e '.[tune]'"
        raise UserError(
            f"sweep.search=tpe: Optuna is not installed; {install} in a clone of bnexp brings it"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _make_study(optuna: Any) -> Any:
    """Points that are asked together keep apart: each counts as bad until its score is known."""
    sampler = optuna.samplers.TPESampler(seed=0, constant_liar=True)
    return optuna.create_study(direction="maximize", sampler=sampler)


def _distribution(optuna: Any, interval: Interval) -> Any:
    if interval.is_integer:
        return optuna.distributions.IntDistribution(
            int(interval.low), int(interval.high), log=interval.is_log
        )
    return optuna.distributions.FloatDistribution(interval.low, interval.high, log=interval.is_log)


def _rounded(interval: Interval, value: float) -> float:
    return interval.value_at(interval.position_of(value))
