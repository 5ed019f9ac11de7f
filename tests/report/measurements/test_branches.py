"""The share of a residual branch beside the theory, read from tables whose numbers are known."""

from __future__ import annotations

import pytest

from bnexp.report.measurements.branches import expected_share, read_branches
from helpers.probe_tables import arm


def table(share, blocks: int = 9):
    return [
        {
            "step": 0, "layer": f"hidden.blocks.{block - 1}", "block": float(block), "branch_square": 1.0,
            "output_square": float(block + 1), "share": share(block),
        }
        for block in range(1, blocks + 1)
    ]  # fmt: skip


def settings(norm: str, residual: str = "plain", init: str = "kaiming", activation: str = "relu"):
    return {
        "model_norm": norm, "model_residual": residual, "model_init": init, "model_activation": activation
    }  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "share"),
    [
        (settings("batch"), 0.1),
        (settings("batch_manual", init="lecun"), 0.1),
        (settings("none"), 0.5),
        (settings("none", "skipinit"), None),
        (settings("batch", "fixup"), None),
        (settings("layer"), None),
        (settings("none", init="lecun"), None),
        (settings("none", activation="tanh"), None),
    ],
)
def test_the_theory_of_the_ninth_block(keys, share):
    assert expected_share(arm("a", [table(lambda _: 0.3)], **keys), 9) == share


def test_the_last_block_stands_beside_the_theory():
    arms = [
        arm("none", [table(lambda _: 0.5)] * 3, is_baseline=True, **settings("none")),
        arm("batch", [table(lambda block: 1 / (block + 1))] * 3, **settings("batch")),
        arm("skipinit", [table(lambda _: 0.0)] * 3, index=2, **settings("none", "skipinit")),
    ]
    measurement = read_branches(arms)
    assert [number.estimate.mean for number in measurement.numbers] == pytest.approx([0.5, 0.1, 0])
    assert [number.expected for number in measurement.numbers] == [0.5, 0.1, None]
    assert measurement.sentences[1] == (
        "Share of the branch of block 9 in its output, batch: theory 0.1 (De & Smith 2020, section 3),"
        " measured 0.100 (0.100 to 0.100, 3 seeds)."
    )
    shares = measurement.panels[0].curves
    assert shares[1].x == list(range(1, 10))
    assert shares[1].mean == pytest.approx([1 / (block + 1) for block in range(1, 10)])
    assert shares[2].mean == []  # 0 has no place on a logarithmic axis
