"""Mistakes with probes: one line that names the key, before the training."""

from __future__ import annotations

import json

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


OWN_PROBES = """
import sys
from bnexp.probes import Probe

class Outside(Probe):
    name = "../../outside"

class Gap(Probe):
    name = "gap"

class Leaves(Probe):
    name = "leaves"

    def before_step(self, moment):
        sys.exit("enough")

class Too(Leaves):
    pass
"""


@pytest.fixture
def own_probes(tmp_path, monkeypatch):
    (tmp_path / "own_probes.py").write_text(OWN_PROBES, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(
    ("probes", "message"),
    [
        (
            "[{_target_: own_probes.Outside}]",
            "own_probes.Outside: its name '../../outside' is that of a file",
        ),
        ("[{_target_: own_probes.Gap}]", "own_probes.Gap: its name gap is that of another probe"),
        ("[gap,{_target_: own_probes.Gap}]", "own_probes.Gap: its name gap is that of another probe"),
        (
            "[{_target_: own_probes.Leaves},{_target_: own_probes.Too}]",
            "Too: its name leaves is that of another",
        ),
    ],
)
def test_a_name_that_cannot_be_that_of_a_file_of_its_own_is_refused(tmp_path, own_probes, probes, message):
    with pytest.raises(UserError) as error:
        train(tmp_path, f"probes={probes}")
    assert message in str(error.value)
    assert not list(tmp_path.rglob("*.csv"))


def test_a_probe_that_exits_is_named_and_the_run_goes_on(tmp_path, own_probes, caplog):
    folder = train(tmp_path, "probes=[{_target_: own_probes.Leaves}]")
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8"))["status"] == "finished"
    assert "probes: leaves fails at step 1 and is left out from now on" in caplog.text
    assert "the probe leaves called sys.exit (enough)" in caplog.text


def test_a_probe_of_a_run_that_diverges_leaves_its_rows(tmp_path):
    from bnexp.errors import Diverged
    from helpers.probe_runs import read_probe

    keys = ("probes=[activations,gradients]", "probe.every=1", "optimizer.lr=1e30", "tracking.every=5")
    with pytest.raises(Diverged):
        train(tmp_path, *keys)
    assert [row["step"] for row in read_probe(tmp_path / "0", "gradients")][:2] == ["1", "1"]
