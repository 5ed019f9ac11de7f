"""sys.exit or os._exit in the user's own code fails the run: one line, exit code 1, status failed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bnexp.errors import ExitCalled, forbid_exit
from bnexp.runs.folder import RunFolder
from bnexp.runs.outcome import record_outcome
from bnexp.runs.summary import load_summary

QUICK = ("epochs=1", "dataset.train_size=100", "dataset.test_size=50", "tracking.tensorboard=false")

# A network that calls sys.exit at the place that the environment variable EXIT_AT names.
NET = """
import os, sys
from torch import nn

def leave(place):
    if os.environ.get("EXIT_AT") == place:
        sys.exit({code})

class Net(nn.Module):
    def __init__(self, image_size, num_classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(image_size ** 2, num_classes))
        leave("constructor")

    def forward(self, images):
        leave("step" if self.training else "evaluation")
        return self.layers(images)

leave("import")
"""


@pytest.fixture
def own_network(commands, monkeypatch):
    """Writes exits.py, whose network exits at a place with a code; returns the arguments that name it."""

    def write(place: str, code: str = "'no licence\\nfor this GPU'") -> tuple[str, ...]:
        Path("exits.py").write_text(NET.format(code=code), encoding="utf-8")
        monkeypatch.setenv("EXIT_AT", place)
        monkeypatch.syspath_prepend(str(commands.folder))
        monkeypatch.delitem(__import__("sys").modules, "exits", raising=False)
        return ("model=custom", "model._target_=exits.Net", *QUICK)

    return write


PLACES = {
    "import": "model._target_=exits.Net: its module called sys.exit",
    "constructor": "model._target_=exits.Net called sys.exit",
    "step": "model._target_=exits.Net called sys.exit",
    "evaluation": "model._target_=exits.Net called sys.exit",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("code", "text"), [("'no licence\\nfor this GPU'", "no licence for this GPU"), ("0", "0"), ("", "None")]
)
def test_a_run_that_exits_has_failed(commands, own_network, place, code, text):
    result = commands.bnexp(*own_network(place, code))
    line = f"{PLACES[place]} ({text})"
    assert (result.code, result.err) == (1, f"bnexp: {line}\n")
    assert commands.summary()["status"] == "failed"
    assert commands.summary()["error"] == f"ExitCalled: {line}"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("error", ["GeneratorExit", "asyncio.CancelledError", "Stop"])
def test_a_run_whose_code_raises_what_is_no_exception_has_failed(commands, own_network, place, error):
    arguments = own_network(place)
    source = Path("exits.py").read_text(encoding="utf-8").replace("sys.exit(", f"raise {error}(")
    own_error = "import asyncio\n\nclass Stop(BaseException):\n    pass\n"
    Path("exits.py").write_text(own_error + source, encoding="utf-8")
    result = commands.bnexp(*arguments)
    reason = f"raised {error.rpartition('.')[2]}: no licence for this GPU"
    line = f"{PLACES[place].removesuffix(' called sys.exit')} {reason}"
    assert (result.code, result.err) == (1, f"bnexp: {line}\n")
    assert commands.summary()["status"] == "failed"
    assert commands.summary()["error"] == f"ExitCalled: {line}"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("status", [0, 3])
def test_a_run_that_calls_os_exit_has_failed(commands, own_network, place, status):
    arguments = own_network(place, str(status))
    source = Path("exits.py").read_text(encoding="utf-8").replace("sys.exit(", "os._exit(")
    Path("exits.py").write_text(source, encoding="utf-8")
    result = commands.bnexp(*arguments)
    line = f"{PLACES[place].replace('sys.exit', 'os._exit')} ({status})"
    assert (result.code, result.err) == (1, f"bnexp: {line}\n")
    assert (commands.summary()["status"], commands.summary()["error"]) == ("failed", f"ExitCalled: {line}")


def test_os_exit_belongs_to_the_innermost_block():
    with (
        forbid_exit("outer"),
        pytest.raises(ExitCalled, match=r"^inner called os\._exit \(1\)$"),
        forbid_exit("inner"),
    ):
        os._exit(1)
    with pytest.raises(ExitCalled, match=r"^outer called os\._exit \(2\)$"):
        exit_after_an_inner_block()


@forbid_exit("outer")
def exit_after_an_inner_block() -> None:
    with forbid_exit("inner"):
        pass
    os._exit(2)


def test_os_exit_ends_a_process_after_the_block():
    code = "import os; from bnexp.errors import forbid_exit\nwith forbid_exit('x'): pass\nos._exit(7)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7


def test_a_sweep_names_every_job_that_exits(commands, own_network):
    exiting = commands.folder / "sweep"
    arguments = (
        "-m",
        *own_network("step"),
        "seed=0,1",
        "hydra.launcher.jobs=1",
        f"hydra.sweep.dir={exiting}",
    )
    result = commands.bnexp(*arguments)
    assert result.code == 1
    assert result.err.count("called sys.exit (no licence for this GPU)") >= 2
    assert "Traceback" not in result.err
    summaries = [json.loads(path.read_text(encoding="utf-8")) for path in exiting.glob("*/summary.json")]
    assert [summary["status"] for summary in summaries] == ["failed", "failed"]


def test_an_import_that_exits_ends_a_sweep_before_its_first_job(commands, own_network):
    result = commands.bnexp("-m", *own_network("import"), "seed=0,1")
    assert (result.code, result.err) == (1, f"bnexp: {PLACES['import']} (no licence for this GPU)\n")
    assert commands.runs() == []


def test_an_evaluation_that_exits_is_one_line(commands, own_network, monkeypatch):
    assert commands.bnexp(*own_network("nowhere"), "hydra.run.dir=run").code == 0
    monkeypatch.setenv("EXIT_AT", "evaluation")
    result = commands.eval("run", "--trust", "exits.Net")
    assert (result.code, result.out) == (1, "")
    assert result.err == "bnexp: the network or the loss called sys.exit (no licence for this GPU)\n"


def test_the_record_of_a_run_that_exits(tmp_path):
    config = {"name": "a", "tags": [], "seed": 0, "epochs": 2, "dataset": {"name": "digits", "root": None}}
    folder = RunFolder(tmp_path, config, [])
    with pytest.raises(ExitCalled, match="no licence"), record_outcome(folder, keep=False):
        raise SystemExit("no licence")
    assert load_summary(tmp_path)["status"] == "failed"
    assert "no licence" in load_summary(tmp_path)["error"]
