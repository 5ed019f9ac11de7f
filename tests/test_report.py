import math

import pytest

from bnexp.report.confusion import confusion
from bnexp.report.confusion import render as render_confusion
from bnexp.report.statistics import mean_sd, paired
from bnexp.report.table import group, render, varying_keys


def summary(model, seed, accuracy, status="finished", **more):
    words = [f"model={model}", f"seed={seed}", "epochs=2", *(f"{k}={v}" for k, v in more.items())]
    return {"status": status, "overrides": words, "seed": seed, "final": {"test/accuracy": accuracy}}


def test_groups_are_what_differs_other_than_the_seed():
    runs = [summary(m, s, 0.9) for m in ("mlp", "mlp_bn") for s in (0, 1)] + [
        summary("mlp", 2, 0.1, "failed")
    ]
    assert varying_keys(runs) == ["model"]
    assert group(runs, ["model"]) == {m: {(0, None): 90.0, (1, None): 90.0} for m in ("mlp", "mlp_bn")}


def test_paired_interval_by_hand():
    """d = 1, 2, 3: mean 2, s 1, t(.975, 2) = 4.302653, half-width 4.302653 / sqrt(3) = 2.484138."""
    found = paired({0: 11, 1: 22, 2: 33, 9: 5}, {0: 10, 1: 20, 2: 30, 8: 5})
    assert (found.n, found.mean) == (3, 2)
    assert found.high - found.mean == pytest.approx(2.484138, abs=1e-6)
    assert found.mean - found.low == pytest.approx(2.484138, abs=1e-6)
    assert found.p == pytest.approx(0.0741799, abs=1e-6)


@pytest.mark.parametrize(("ours", "n"), [({}, 0), ({0: 1.0}, 1), ({0: 2.0, 1: 3.0}, 2)])
def test_no_interval_without_spread(ours, n):
    found = paired(ours, {0: 1.0, 1: 2.0})
    assert found.n == n
    assert math.isnan(found.p)
    assert math.isnan(found.low)


def test_mean_and_sample_deviation():
    assert mean_sd([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert math.isnan(mean_sd([1.0])[1])


def test_table():
    runs = [
        summary(m, s, a) for m, s, a in [("mlp", 0, 0.95), ("mlp", 1, 0.97), ("bn", 0, 0.97), ("bn", 1, 0.98)]
    ]
    assert render(runs).splitlines() == [
        "test accuracy, final epoch: mean ± sd over seeds; * baseline, differences paired by seed",
        "model   n  acc % mean±sd   diff, points [95 % interval]      p",
        "mlp *   2   96.00 ± 1.41",
        "bn      2   97.50 ± 0.71   +1.50 [-4.85, +7.85]            0.205",
    ]
    assert render([summary("mlp", 0, 0.1, "failed")]) == ""


def test_confusion():
    counts = confusion([0, 0, 1], [0, 1, 1], 3)
    assert counts == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    lines = render_confusion(counts, ["cat", "dog", "owl"]).splitlines()
    assert lines[1].split() == ["cat", "1", "1", "0", "0.5000"]
    assert lines[3].endswith("no images")
