"""Variables of the environment in arguments: the run holds their values, whatever they are later."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bnexp
from bnexp.cli.environment_values import insert_environment
from bnexp.errors import UserError

QUICK = ("epochs=1", "dataset.train_size=100", "dataset.test_size=50", "tracking.tensorboard=false")
ACTIVATION = "model.activation=${oc.env:BNEXP_TEST}"
CASES = {
    ("lr=${oc.env:BNEXP_TEST}", "0.1"): "lr=0.1",
    ("lr=${oc.env:BNEXP_TEST},0.5", "0.1"): "lr=0.1,0.5",
    ("lr=${oc.env:BNEXP_TEST}", "0.1,0.5"): "lr=0.1,0.5",
    ("root=${oc.env:BNEXP_TEST}/a", "/data"): "root=/data/a",
    ("root=${oc.env:BNEXP_TEST}", "my photos = 1"): "root='my photos = 1'",
    ("lr=${oc.decode:${oc.env:BNEXP_TEST}}", "0.1"): "lr=${oc.decode:0.1}",
    ("name=${oc.env:BNEXP_OTHER,plain}", ""): "name=plain",
    ("name=${oc.env:BNEXP_OTHER,null}", ""): "name=null",
    ("name=\\${oc.env:BNEXP_TEST}", "a"): "name=\\${oc.env:BNEXP_TEST}",
    ("name=${oc.env:BNEXP_OTHER,${seed}}", ""): "name=${oc.env:BNEXP_OTHER,${seed}}",
    ("-m", ""): "-m",
}


@pytest.mark.parametrize(("argument", "value"), CASES)
def test_a_variable_is_inserted_as_by_the_shell(monkeypatch, argument, value):
    monkeypatch.setenv("BNEXP_TEST", value)
    assert insert_environment([argument]) == [CASES[argument, value]]


def test_a_variable_that_is_not_set_is_named():
    with pytest.raises(UserError, match=r"the environment variable NO_SUCH is not set; set it"):
        insert_environment(["lr=${oc.env:NO_SUCH}"])


def test_a_run_keeps_the_value_that_a_variable_had(commands, monkeypatch):
    monkeypatch.setenv("BNEXP_TEST", "relu")
    assert commands.bnexp(ACTIVATION, *QUICK, "hydra.run.dir=run").code == 0
    before = commands.eval("run")
    monkeypatch.setenv("BNEXP_TEST", "tanh")
    assert commands.eval("run") == before
    monkeypatch.delenv("BNEXP_TEST")
    assert commands.resume("run", "epochs=2").code == 0
    result = commands.resume("run", ACTIVATION)
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "the environment variable BNEXP_TEST is not set" in result.err


def test_a_preset_with_another_value_of_a_variable_is_refused_afterwards(commands, monkeypatch):
    Path("presets/experiment").mkdir(parents=True)
    preset = "# @package _global_\nmodel:\n  activation: ${oc.env:BNEXP_TEST}\n"
    Path("presets/experiment/mine.yaml").write_text(preset)
    monkeypatch.setenv("BNEXP_TEST", "relu")
    run = commands.bnexp("--config-dir", "presets", "experiment=mine", *QUICK, "hydra.run.dir=run")
    assert run.code == 0, run.err
    assert commands.eval("run").code == 0
    monkeypatch.setenv("BNEXP_TEST", "tanh")
    result = commands.eval("run")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "model.activation=tanh from ${oc.env:BNEXP_TEST}" in result.err
    monkeypatch.delenv("BNEXP_TEST")
    result = commands.eval("run")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "model.activation: the environment variable BNEXP_TEST is not set" in result.err


def test_an_edited_configuration_is_refused(commands):
    commands.bnexp(*QUICK, "hydra.run.dir=run")
    path = Path("run/.hydra/config.yaml")
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    result = commands.eval("run")
    assert result.code == 2
    assert "other values than those of the run; restore the file" in result.err
    assert json.loads(Path("run/summary.json").read_text())["status"] == "finished"


@pytest.mark.parametrize("command", ["bnexp", "plan", "resume"])
def test_an_unset_variable_of_an_argument_is_one_line(commands, monkeypatch, command):
    monkeypatch.delenv("BNEXP_TEST", raising=False)
    arguments = (".", ACTIVATION) if command == "resume" else (ACTIVATION, *QUICK)
    result = getattr(commands, command)(*arguments)
    reason = "the environment variable BNEXP_TEST is not set; set it, or write ${oc.env:BNEXP_TEST,VALUE}"
    assert (result.code, result.out, result.err) == (2, "", f"bnexp: {ACTIVATION}: {reason}\n")


def test_a_preset_is_resumed_only_with_the_same_value_of_its_variable(commands, monkeypatch):
    presets = commands.folder / "presets"
    (presets / "experiment").mkdir(parents=True)
    preset = "# @package _global_\nmodel:\n  norm: ${oc.env:BNEXP_TEST}\n"
    (presets / "experiment/mine.yaml").write_text(preset)
    run = ("--config-dir", str(presets), "experiment=mine", *QUICK, "hydra.run.dir=run")
    line = "bnexp: model.norm: the environment variable BNEXP_TEST is not set\n"
    monkeypatch.delenv("BNEXP_TEST", raising=False)
    assert (commands.bnexp(*run).err, Path("run").exists()) == (line, False)
    monkeypatch.setenv("BNEXP_TEST", "batch")
    assert commands.bnexp(*run).code == 0
    resume = ("run", "epochs=2", "--trust", str(presets))
    monkeypatch.setenv("BNEXP_TEST", "layer")
    result = commands.resume(*resume)
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "model.norm=layer from ${oc.env:BNEXP_TEST}); set the variable as it was" in result.err
    with pytest.raises(UserError, match="other values"):
        bnexp.open_run("run").model()
    monkeypatch.delenv("BNEXP_TEST")
    assert commands.resume(*resume).err == line
    monkeypatch.setenv("BNEXP_TEST", "batch")
    assert commands.resume(*resume).code == 0
