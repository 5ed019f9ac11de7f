"""What the probe spectrum shows, read from tables whose numbers are known."""

from __future__ import annotations

import math

import pytest

from bnexp.report.measurements.spectrum import (
    gradient_share,
    isolation,
    last_third,
    read_spectrum,
    stability_limit,
)
from bnexp.report.read.probe_tables import ProbeTable
from helpers.probe_tables import arm

DESCENT = {
    "optimizer__target_": "torch.optim.SGD", "optimizer_lr": 0.5, "optimizer_momentum": 0.0,
    "batch_size": 100, "scheduler__target_": None, "dataset_train_size": 100, "dataset_val_size": 0,
}  # fmt: skip


def spectrum(greatest, tenth=0.5, share=0.1):
    """Ten ranks; ``greatest`` has the greatest eigenvalue at each measured step."""
    return [
        {
            "step": step, "rank": float(rank), "gradient_share": share * rank, "residual": 0.0,
            "eigenvalue": value if rank == 1 else tenth,
        }
        for step, value in enumerate(greatest, 1)
        for rank in range(1, 11)
    ]  # fmt: skip


def descent_settings(**keys):
    return arm("descent", [], **(DESCENT | keys)).settings


def test_the_last_measured_step_counts():
    table = ProbeTable(tuple(spectrum([1.0, 4.0])))
    assert isolation(table) == 8
    assert gradient_share(table) == pytest.approx(1)
    assert math.isnan(isolation(ProbeTable(tuple(spectrum([1.0], tenth=-0.5)))))
    assert math.isnan(isolation(ProbeTable(tuple(spectrum([4.0])[:5]))))


def test_batch_norm_is_held_against_the_paper():
    none = arm("none", [spectrum([value]) for value in (4.0, 4.1, 3.9)], is_baseline=True)
    batch = arm("batch", [spectrum([1.0], share=0.02)] * 3, model_norm="batch")
    sentences = read_spectrum([none, batch]).sentences
    assert sentences[0].startswith("lambda_1 / lambda_10, none: 8.00 (")
    assert sentences[3].startswith("Share of the gradient in the space of 10 eigenvectors, batch: 0.2")
    assert sentences[4].startswith(
        "Isolation of the greatest eigenvalue, lambda_1 / lambda_10: with batch 0.25"
    )
    assert sentences[4].endswith("smaller, as Ghorbani et al. (2019) report.")
    assert sentences[5].endswith("smaller, as Ghorbani et al. (2019) report.")


@pytest.mark.parametrize(
    ("end", "ending"),
    [
        (4.2, "1.05 times 2 / lr = 4: at the edge of stability or just above,"
              " as Cohen et al. (2021) report."),
        (2.0, "0.50 times 2 / lr = 4: below. Cohen et al. (2021) report that it rises to 2 / lr;"
              " in these steps it does not."),
        (8.0, "2.00 times 2 / lr = 4: above. Cohen et al. (2021) report it at 2 / lr or just above;"
              " that does not show here."),
    ],
)  # fmt: skip
def test_the_last_third_is_held_against_the_edge_of_stability(end, ending):
    tables = [spectrum([1.0, 1.5, 2.0, 3.0, end + shift, end - shift]) for shift in (0, 0.1, 0.2)]
    assert last_third(ProbeTable(tuple(tables[1]))) == pytest.approx(end)
    descent = arm("0.5", tables, is_baseline=True)
    descent.settings.update(descent_settings())
    measurement = read_spectrum([descent])
    assert measurement.sentences[-1].endswith(ending)
    assert measurement.numbers[-1].expected == 4
    assert measurement.panels[0].lines == [(4, "2 / lr = 4")]


def test_few_measured_steps_have_no_last_third():
    assert math.isnan(last_third(ProbeTable(tuple(spectrum([1.0] * 5)))))


@pytest.mark.parametrize(
    "keys",
    [
        {"optimizer_momentum": 0.9}, {"optimizer__target_": "torch.optim.Adam"}, {"batch_size": 64},
        {"scheduler__target_": "torch.optim.lr_scheduler.StepLR"}, {"dataset_val_size": 0.1},
        {"dataset_train_size": None}, {"optimizer_lr": 0.0},
    ],
)  # fmt: skip
def test_only_gradient_descent_has_a_limit(keys):
    assert stability_limit(descent_settings()) == 4
    assert stability_limit(descent_settings(**keys)) is None
