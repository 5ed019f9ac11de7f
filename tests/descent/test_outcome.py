"""How a descent ends, in a word and a sentence; the ranking of several."""

from __future__ import annotations

import csv
import io
import re

import pytest

from bnexp.descent.ranking import rank, ranking_csv, ranking_lines
from helpers.descents import descend

SQUARE = ("function=square", "start=10", "steps=10")
STATES = [
    (
        (*SQUARE, "optimizer.lr=0.5"),
        "converged",
        "a minimum: within 0.001 of its value from step 1",
    ),
    ((*SQUARE, "optimizer.lr=0.05"), "underway", "has not converged after 10 steps: .*3.49 from the minimum"),
    ((*SQUARE, "optimizer.lr=0.9"), "underway", "after 10 steps, from side to side"),
    ((*SQUARE, "optimizer.lr=1"), "oscillates", "the steps do not shrink, 10 from the minimum"),
    ((*SQUARE, "optimizer.lr=1.1"), "diverges", "the steps grow, and the value rises from 100 to 3834"),
    (("function=rosenbrock", "optimizer.lr=0.1"), "diverges", "the value is no finite number"),
    (("function=saddle", "steps=60"), "diverges", "the value falls"),
    (("function=wave", "optimizer.lr=5", "steps=300"), "diverges", "the value falls"),
    (("function=tanh",), "stalls", r"the gradient vanishes \(0.0013\)"),
    (("optimizer=adam",), "stalls", r"the learning rate is small \(the gradient is 13\)"),
    (("noise=1", "steps=100"), "oscillates", "the noise of the gradient keeps it moving"),
    (("function=wave", "optimizer=newton"), "converged", r"a maximum \(second derivative -6.015\)"),
    (("function=saddle", "optimizer=newton"), "converged", r"a saddle point \(eigenvalues -2, 2\)"),
    (("function=cubic", "optimizer=newton"), "converged", "a flat point"),
]


@pytest.mark.parametrize(
    ("overrides", "state", "sentence"), STATES, ids=[" ".join(case[0]) for case in STATES]
)
def test_the_state_and_its_sentence(overrides, state, sentence):
    outcome = descend(*overrides).outcome
    assert outcome.state == state
    assert re.search(sentence, outcome.sentence), outcome.sentence


def test_the_steps_to_the_tolerance_count_those_after_which_the_value_stays_below():
    """Momentum passes the minimum at full speed, so an early value below the tolerance does not count."""
    arm = descend("function=square", "start=1", "optimizer=momentum", "steps=300", "tolerance=0.01")
    steps = arm.outcome.steps_to_tolerance
    values = [row.value for row in arm.path.rows]
    assert all(value <= 0.01 for value in values[steps:])
    assert values[steps - 1] > 0.01
    assert min(values[: steps - 1]) < 0.01


def test_a_path_that_is_not_finite_keeps_its_last_finite_point():
    path = descend("function=rosenbrock", "optimizer.lr=0.1").path
    assert not path.rows[-1].is_finite
    assert path.last is path.rows[-2]
    assert path.last.is_finite


def test_the_ranking_is_by_steps_then_by_value_and_last_what_diverges():
    arms = [
        descend("function=square", f"optimizer.lr={lr}", label=lr)
        for lr in ("1.1", "0.02", "0.01", "0.4", "0.5", "0.3")
    ]
    ((function, group),) = rank(arms).items()
    assert function == "square"
    assert [arm.label for arm in group] == ["0.5", "0.4", "0.3", "0.02", "0.01", "1.1"]
    lines = list(ranking_lines(function, group, 0.001))
    assert lines[0] == "square: ranked by the steps until the value stays within 0.001 of the minimum's"
    assert lines[2].split()[:3] == ["1", "0.5", "1"]
    rows = list(csv.DictReader(io.StringIO(ranking_csv(rank(arms)))))
    assert [row["rank"] for row in rows] == list("123456")
    assert rows[-1]["state"] == "diverges"
    assert rows[3]["steps_to_tolerance"] == ""


def test_each_function_has_a_ranking_of_its_own():
    arms = [
        descend("function=wave", "function.c=0.3"), descend("function=wave"), descend("function=saddle"),
        descend("function=wave", "start=5"),
    ]  # fmt: skip
    groups = rank(arms)
    assert list(groups) == ["wave (c=0.3)", "wave (c=0.471239)", "saddle"]
    assert [len(group) for group in groups.values()] == [1, 2, 1]
    assert next(ranking_lines("saddle", groups["saddle"], 1)).endswith("so ranked by the last value")


def test_regression_is_ranked_by_passes_over_the_examples():
    full = descend("function=regression", "optimizer.lr=0.4", "steps=40", "tolerance=0.01", label="full")
    batches = descend(
        "function=regression", "batch_size=10", "optimizer.lr=0.02", "epochs=3", "tolerance=0.02",
        "scheduler=inverse_sqrt", label="batches",
    )  # fmt: skip
    assert batches.outcome.steps_to_tolerance > full.outcome.steps_to_tolerance
    assert batches.outcome.epochs_to_tolerance < full.outcome.epochs_to_tolerance
    assert [arm.label for arm in rank([full, batches])["regression"]] == ["batches", "full"]


def test_the_same_seed_gives_the_same_noise_to_every_optimizer():
    """Noise moves the point by lr times itself, so it can be read off the path."""
    noisy = [
        descend(
            "function=saddle", "noise=0.5", "steps=1", f"optimizer.lr={lr}", f"seed={seed}"
        ).path.last.point
        for lr, seed in ((0.1, 0), (0.2, 0), (0.1, 1))
    ]
    start, gradient = (-5, -0.01), (-10, 0.02)
    draws = [
        [(s - x) / lr - g for s, x, g in zip(start, point, gradient, strict=True)]
        for point, lr in zip(noisy, (0.1, 0.2, 0.1), strict=True)
    ]
    assert draws[0] == pytest.approx(draws[1])
    assert draws[0] != pytest.approx(draws[2])
    assert max(map(abs, draws[0])) < 5 * 0.5


@pytest.mark.parametrize(
    ("scheduler", "factor"),
    [
        ("none", lambda t: 1.0),
        ("exponential", lambda t: 0.9**t),
        ("inverse_sqrt", lambda t: (1 + 0.1 * t) ** -0.5),
        ("polynomial", lambda t: 1 - t / 20),
    ],
)
def test_every_step_of_a_function_has_the_rate_of_the_scheduler(scheduler, factor):
    rows = descend("function=square", f"scheduler={scheduler}", "optimizer.lr=0.1").path.rows
    assert [row.lr for row in rows[1:]] == pytest.approx([0.1 * factor(t) for t in range(20)], abs=1e-12)
    x = 10.0
    for t in range(20):
        x -= 0.1 * factor(t) * 2 * x
    assert rows[-1].point[0] == pytest.approx(x)


def test_plateau_watches_the_value():
    rows = descend(
        "function=square", "scheduler=plateau", "scheduler.patience=2", "optimizer.lr=1", "steps=10"
    ).path.rows
    assert [row.lr for row in rows[1:7]] == pytest.approx([1, 1, 1, 1, 0.1, 0.1])


def test_a_closure_of_its_own_serves_lbfgs():
    arm = descend(
        "function=rosenbrock", "optimizer=custom", "optimizer._target_=torch.optim.LBFGS", "+optimizer.lr=1",
        "steps=5",
    )  # fmt: skip
    assert arm.outcome.state == "converged"


def test_without_a_minimum_the_lowest_value_is_first_also_where_it_falls_without_end():
    arms = [descend("function=saddle", f"steps={steps}", label=str(steps)) for steps in (20, 60)]
    assert [arm.outcome.state for arm in arms] == ["underway", "diverges"]
    assert [arm.label for arm in rank(arms)["saddle"]] == ["60", "20"]


def test_a_path_that_leaves_every_known_minimum_is_last():
    arms = [descend("function=wave", "steps=300", f"optimizer.lr={lr}", label=lr) for lr in ("5", "0.1")]
    assert arms[0].path.last.value < arms[1].path.last.value
    ((_, group),) = rank(arms).items()
    assert [arm.label for arm in group] == ["0.1", "5"]
