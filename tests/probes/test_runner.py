"""Probes in a real run: their rows, what they leave unchanged, and what happens when one fails."""

from __future__ import annotations

import json
import math
import signal
from functools import cache
from pathlib import Path

import pytest
import torch

from bnexp.config.schema import PROBES
from bnexp.errors import Interrupted
from bnexp.signals import StopSignal
from bnexp.training.trainer import Trainer
from helpers.probe_runs import STEPS, read_probe, train

WRITTEN = sorted(name for name in PROBES if (Path(__file__).parents[2] / f"bnexp/probes/{name}.py").exists())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints/last.pt", weights_only=True)["model"]


def test_every_named_probe_exists():
    assert sorted(PROBES) == WRITTEN


# What the networks need that a probe measures, beside a batch norm.
KEYS = {"branches": ("model.residual=plain",)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The folder of a run without probes, for some keys."""

    @cache
    def run(*keys: str) -> Path:
        return train(tmp_path_factory.mktemp("plain") / "run", "model.norm=batch", "model.dropout=0.2", *keys)

    return run


@pytest.mark.parametrize("name", WRITTEN)
def test_the_trained_bits_are_those_without_a_probe(name, plain, tmp_path):
    keys = KEYS.get(name, ())
    names = ("model.norm=batch", "model.dropout=0.2", f"probes=[{name}]", "probe.every=7")
    probed, unprobed = train(tmp_path / "run", *names, *keys), plain(*keys)
    expected = weights(unprobed)
    for key, value in weights(probed).items():
        assert torch.equal(value, expected[key]), key
    assert (probed / "steps.csv").read_text() == (unprobed / "steps.csv").read_text()
    rows = read_probe(probed, name)
    assert rows
    assert all(math.isfinite(float(row["step"])) for row in rows)
    assert json.loads((probed / "summary.json").read_text())["probes"] == {name: None}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_resumed_run_has_the_rows_of_an_uninterrupted_one(name, tmp_path):
    keys = ("model.norm=batch", f"probes=[{name}]", "probe.every=9", *KEYS.get(name, ()))
    whole = train(tmp_path / "whole", *keys, epochs=2)
    train(tmp_path / "parts", *keys, epochs=1)
    resumed = train(tmp_path / "parts", *keys, epochs=2)
    assert read_probe(resumed, name) == read_probe(whole, name)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_run_that_was_stopped_in_an_epoch_has_the_same_rows(name, tmp_path, monkeypatch):
    names = ("model.norm=batch", "model.dropout=0.2", f"probes=[{name}]", "probe.every=4")
    keys = (*names, *KEYS.get(name, ()))
    whole = train(tmp_path / "whole", *keys)
    stop, steps, step = StopSignal(), [], Trainer.step

    def step_and_stop(trainer, batch):
        steps.append(1)
        stop.received = signal.SIGTERM if len(steps) == 10 else None
        return step(trainer, batch)

    monkeypatch.setattr(Trainer, "step", step_and_stop)
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", *keys, stop=stop)
    for path in (tmp_path / "parts" / "0" / "probes").glob("*.csv"):
        later_row = "13," + path.read_text().splitlines()[1].partition(",")[2]
        path.write_text(f"{path.read_text()}{later_row}\r\n14,")  # as after a kill
    resumed = train(tmp_path / "parts", *keys)
    assert len(steps) == 2 * STEPS
    assert read_probe(resumed, name) == read_probe(whole, name)


def test_measured_steps_are_those_of_probe_every(tmp_path):
    rows = read_probe(train(tmp_path / "run", "probes=[activations]", "probe.every=10"), "activations")
    assert [int(row["step"]) for row in rows] == [1, 11, 21, 31]
    rows = read_probe(train(tmp_path / "default", "probes=[activations]"), "activations")
    assert [int(row["step"]) for row in rows] == [1, 1 + STEPS]  # the first step of each epoch


FAILING = """
from bnexp.probes import Probe

class Failing(Probe):
    name = "failing"
    def before_step(self, moment):
        if moment.step > 1:
            raise ValueError("no more")
        return [{"value": 1.0}]

class Malformed(Probe):
    def __init__(self, rows):
        self.rows = rows
    def before_step(self, moment):
        return self.rows if moment.step > 1 else [{"a": 1.0}]

class Destructive(Probe):
    def before_step(self, moment):
        import torch
        for parameter in moment.network.parameters():
            parameter.data.zero_()
            parameter.grad = None
        moment.network.eval()
        torch.manual_seed(0)
        return [{"value": 2.0}]
"""


@pytest.mark.usefixtures("own_module")
class TestOwnProbes:
    @pytest.fixture
    def own_module(self, tmp_path, monkeypatch):
        (tmp_path / "myprobes.py").write_text(FAILING)
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))

    def test_a_probe_that_fails_ends_with_a_line_and_the_run_goes_on(self, tmp_path, caplog):
        folder = train(tmp_path / "run", "probes=[{_target_: myprobes.Failing}]", "probe.every=5")
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["status"] == "finished"
        assert summary["probes"] == {"failing": "step 6: ValueError: no more"}
        (line,) = [record.getMessage() for record in caplog.records if "failing" in record.getMessage()]
        assert line == "probes: failing fails at step 6 and is left out from now on (ValueError: no more)"
        assert [row["step"] for row in read_probe(folder, "failing")] == ["1"]

    @pytest.mark.parametrize(
        "rows", ["[1]", "[{a: text}]", "[{step: 3}]", "[{a: null}]", "[{b: 1}]", "[{a: 1, b: 2}]"]
    )
    def test_rows_that_no_file_holds_cost_the_probe_and_not_the_run(self, rows, tmp_path):
        key = f"probes=[{{_target_: myprobes.Malformed, rows: {rows}}}]"
        folder = train(tmp_path / "run", key, "probe.every=9", "tracking.tensorboard=true")
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["status"] == "finished"
        assert summary["probes"]["Malformed"].startswith("step 10: ValueError") or "TypeError" in str(summary)
        assert [row["a"] for row in read_probe(folder, "Malformed")] == ["1.0"]

    def test_a_probe_may_do_what_it_likes_with_the_network(self, tmp_path):
        keys = ("model.norm=batch", "model.dropout=0.2")
        plain = train(tmp_path / "plain", *keys)
        probed = train(
            tmp_path / "probed", *keys, "probes=[{_target_: myprobes.Destructive}]", "probe.every=3"
        )
        assert all(torch.equal(value, weights(plain)[key]) for key, value in weights(probed).items())
        assert len(read_probe(probed, "Destructive")) == len(range(0, 2 * STEPS, 3))


def test_tensorboard_has_the_values(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = train(tmp_path / "run", "probes=[activations]", "tracking.tensorboard=true")
    events = EventAccumulator(str(folder))
    events.Reload()
    scalars = events.Scalars("probes/activations/hidden.0.activation/p50")
    rows = read_probe(folder, "activations")
    assert [(event.step, event.value) for event in scalars] == [
        (int(row["step"]), pytest.approx(float(row["p50"]), rel=1e-6)) for row in rows
    ]
