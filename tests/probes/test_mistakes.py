"""Mistakes with probes: one line that names the key, before the training."""

from __future__ import annotations

import pytest

from bnexp.errors import UserError
from helpers.probe_runs import train


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["probes=[gradient]"], "probes=gradient: must be one of "),
        (["probes=[gradient]"], "did you mean gradients?"),
        (["probes=gradients"], "probes=gradients: must be a list, as in probes=[activations]"),
        (["probes=[gradients,gradients]"], "must name each probe once"),
        (
            ["probes=[gradients]", "probe.layers=[hidden.0.line]"],
            "probe.layers=hidden.0.line: must be one of",
        ),
        (["probes=[gradients]", "probe.layers=[hidden.0.line]"], "did you mean hidden.0.linear?"),
        (["probes=[gradients]", "probe.every=0"], "probe.every=0: must be a whole number, at least 1"),
        (["probes=[activations]", "model.activation=linear"], "this network has no activation function"),
        (["probes=[{_target_: torch.nn.Linear}]"], "Linear"),
        (["probes=[{_target_: no.such.Probe}]"], "probes._target_=no.such.Probe: cannot be imported"),
        (["probes=[{bins: 3}]"], "probes._target_: give the class or function to call"),
        (["probes=[gradients]", "probe.images=none"], "probe.images=none"),
    ],
)
def test_a_mistake_is_named(tmp_path, overrides, message):
    with pytest.raises(UserError) as error:
        train(tmp_path, *overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_probe_of_a_run_that_diverges_leaves_its_rows(tmp_path):
    from bnexp.errors import Diverged
    from helpers.probe_runs import read_probe

    keys = ("probes=[activations,gradients]", "probe.every=1", "optimizer.lr=1e30", "tracking.every=5")
    with pytest.raises(Diverged):
        train(tmp_path, *keys)
    assert [row["step"] for row in read_probe(tmp_path / "0", "gradients")][:2] == ["1", "1"]
