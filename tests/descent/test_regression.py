"""Linear regression: the table, the batches, and gradient descent by hand beside torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from bnexp.descent.regression import Regression, descend_by_hand
from bnexp.descent.table import load_table
from bnexp.errors import UserError
from helpers.descents import descend


def test_the_diabetes_table_is_standardised():
    table = load_table(None, None)
    assert table.features.shape == (442, 10)
    assert table.names[:3] == ("age", "sex", "bmi")
    for column in (*table.features.unbind(1), table.target):
        assert column.mean().item() == pytest.approx(0, abs=1e-12)
        assert column.square().mean().item() == pytest.approx(1)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", " "])
@pytest.mark.parametrize("header", [True, False])
def test_every_delimiter_and_header_gives_the_same_numbers(tmp_path, delimiter, header):
    rows = [[1.5, 2, 3], [4, -5e-1, 6], [7, 8, 10]]
    mark = "\ufeff"  # some spreadsheets begin a file with it
    lines = ["a b y".replace(" ", delimiter)] * header + [delimiter.join(map(str, row)) for row in rows]
    (tmp_path / "t.csv").write_text(mark + "\n".join(lines) + "\n\n", encoding="utf-8")
    table = load_table(str(tmp_path / "t.csv"), None)
    values = np.array(rows)
    expected = (values - values.mean(0)) / values.std(0)
    np.testing.assert_allclose(torch.column_stack([table.features, table.target]).numpy(), expected)
    assert table.names == (("a", "b") if header else ("x1", "x2"))


def test_only_the_first_rows_are_used_and_standardised(tmp_path):
    (tmp_path / "t.csv").write_text("1,2\n2,5\n3,1\n1000,1000\n")
    table = load_table(str(tmp_path / "t.csv"), 3)
    assert len(table.target) == 3
    assert table.features.abs().max() < 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a,b\n1,2\n3,x\n", "line 3, column b: 'x' is no finite number"),
        ("1,2\n3,inf\n", "line 2, column x2: 'inf' is no finite number"),
        ("a,b\n1,2\n3,\n", "line 3, column b: is empty"),
        ("a,b\n1,2\nnan,4\n", "line 3, column a: is empty"),
        ("1\n2\n3\n", "has one column"),
        ("a,b\n1,2\n", "has one row"),
        ("a,b\n", "has a header and no row"),
        ("", "has no row"),
        ("1,2\n3\n", "line 2 has 1 columns, and the first line 2"),
        ("1,2\n1,3\n1,4\n", "column x1 is constant"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(tmp_path, text, reason):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_table(str(path), None)
    assert str(error.value).startswith(f"function.table={path}")
    assert reason in str(error.value)


def test_a_table_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_table(str(tmp_path / "none.csv"), None)
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe1")
    with pytest.raises(UserError, match="is no text in UTF-8"):
        load_table(str(tmp_path / "t.csv"), None)
    with pytest.raises(UserError, match=r"function\.rows=443: must be at most 442"):
        load_table(None, 443)


def test_the_minimum_is_the_least_squares_solution():
    regression = Regression(None, None, None, seed=0)
    model = LinearRegression().fit(regression.table.features, regression.table.target)
    expected = [*model.coef_, model.intercept_]
    assert regression.minimum((0.0,) * 11) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("batch_size", [1, 10, 441, 442, 1500, None])
def test_an_epoch_shows_each_example_once_and_each_epoch_has_its_own_order(batch_size):
    regression = Regression(None, None, batch_size, seed=0)
    count = regression.steps_per_epoch
    epochs = [torch.cat([regression.batch(epoch * count + i) for i in range(count)]) for epoch in range(2)]
    assert all(sorted(epoch.tolist()) == list(range(442)) for epoch in epochs)
    assert not torch.equal(*epochs)
    assert regression.examples_after(count) == 442
    assert regression.examples_after(count + 1) == 442 + min(batch_size or 442, 442)


def test_the_loss_of_a_batch_is_half_the_mean_square():
    regression = Regression(None, None, 10, seed=3)
    point = torch.linspace(-1, 1, 11, dtype=torch.float64)
    batch = regression.batch(5)
    residuals = regression.inputs[batch] @ point - regression.table.target[batch]
    assert regression.loss(point, 5).item() == pytest.approx((residuals**2).sum().item() / 20)


@pytest.mark.parametrize(("batch_size", "lr"), [(1500, 0.4), (10, 0.05), (1, 0.005)])
def test_by_hand_and_by_torch_the_weights_are_the_same(batch_size, lr):
    overrides = ("function=regression", f"batch_size={batch_size}", f"optimizer.lr={lr}", "epochs=2")
    path = descend(*overrides, "scheduler=inverse_sqrt").path
    assert path.by_hand is not None
    assert path.by_hand.point == pytest.approx(path.last.point, abs=1e-12)
    assert max(map(abs, path.last.point)) > 0.05


def test_by_hand_the_gradient_is_that_of_autograd():
    regression = Regression(None, None, None, seed=0)
    start = tuple(float(i) for i in range(11))
    point = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(regression.value(point), point)
    by_hand = descend_by_hand(regression, start, [1.0]).point
    assert by_hand == pytest.approx((point - gradient).tolist())


def test_other_optimizers_are_not_compared_with_the_descent_by_hand():
    assert descend("function=regression", "optimizer=momentum").path.by_hand is None
    assert descend("function=regression", "noise=0.1").path.by_hand is None


def test_the_path_has_a_row_for_100_examples_and_for_each_epoch():
    path = descend("function=regression", "batch_size=10", "epochs=2").path
    assert [row.step for row in path.rows] == [0, 10, 20, 30, 40, 45, 51, 61, 71, 81, 90]
    assert [row.epoch for row in path.rows][5] == 1
    assert all(a.seconds < b.seconds for a, b in zip(path.rows, path.rows[1:], strict=False))


def test_newton_solves_regression_in_one_step():
    arm = descend("function=regression", "optimizer=newton", "steps=1")
    assert arm.outcome.distance < 1e-9
    assert arm.outcome.sentence.startswith("converged to the least-squares solution")
