"""A network at chance, told from a good one on uneven classes."""

import pytest

from bnexp.runs.chance import is_at_chance

BALANCED = [10] * 10


@pytest.mark.parametrize(
    ("accuracy", "majority", "predictions", "at_chance"),
    [
        (0.1135, 0.1135, [0, 10_000], True),  # the largest class only
        (0.098, 0.1135, [10_000, 0], True),  # another class only
        (0.115, 0.1135, [9_900, 100], True),  # almost one class
        (0.20, 0.1135, BALANCED, False),
        (0.82, 0.70, [75, 25], False),  # good networks on uneven classes
        (0.95, 0.90, [90, 10], False),
        (0.99, 0.90, [91, 9], False),
        (0.905, 0.90, [999, 1], True),
        (0.90, 0.90, [], True),  # no better than the guess of the largest class
        (0.91, 0.90, [], False),
        (0.46, 1 / 3, [60, 40, 20], False),  # 120 test images
        (0.1, None, [10], False),  # nothing is known about the test images
    ],
)
def test_chance(accuracy, majority, predictions, at_chance):
    assert is_at_chance(accuracy, majority, predictions) is at_chance


@pytest.mark.parametrize(("lr", "at_chance"), [("100", True), ("0.1", False)])
def test_a_run_at_chance_says_so_and_records_its_predictions(commands, lr, at_chance):
    result = commands.bnexp(f"optimizer.lr={lr}", "epochs=1")
    assert result.code == 0
    summary = commands.summary()
    assert [sum(counts) for counts in summary["predictions"].values()] == [summary["images"]["test"]] * 2
    assert (max(summary["predictions"]["final"]) == summary["images"]["test"]) is at_chance
    assert ("at chance, this network has learned nothing" in result.out + result.err) is at_chance
    assert (summary["choices"]["model"], summary["job_number"]) == ("mlp", None)
