"""A run's folder may be a stranger's: nothing in it runs, leads out of it, or becomes code in a report."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import yaml

import bnexp.models
import bnexp.training.losses
import bnexp.training.schedulers
from bnexp.config.trust import _SAFE_TARGETS
from bnexp.report.analysis.verdict import compare
from bnexp.report.read.runs import read_runs
from bnexp.report.write import write_report
from helpers.run_folders import write_run

QUICK = ("epochs=1", "dataset.train_size=100", "dataset.test_size=50", "tracking.tensorboard=false")


def test_targets_that_need_no_trust_are_classes():
    modules = [torch.nn, torch.optim, torch.optim.lr_scheduler, bnexp.models]
    modules += [bnexp.training.losses, bnexp.training.schedulers]
    modules += [
        importlib.import_module(f"torch.nn.modules.{module.name}")
        for module in pkgutil.iter_modules(torch.nn.modules.__path__)
    ]
    functions = set()
    for module in modules:
        for name, value in vars(module).items():
            target = f"{module.__name__}.{name}"
            home = getattr(value, "__module__", "")
            from_typing = home in ("typing", "typing_extensions", "collections.abc")
            if _SAFE_TARGETS.fullmatch(target) and callable(value) and not from_typing:
                functions |= set() if inspect.isclass(value) else {target}
    assert functions == {"bnexp.models.from_torchvision"}


@pytest.fixture
def run(commands) -> Path:
    assert commands.bnexp(*QUICK, "hydra.run.dir=run").code == 0
    return Path("run")


YAML_CODE = "!!python/object/apply:os.system ['touch mark']"


@pytest.mark.parametrize("name", ["config.yaml", "hydra.yaml"])
@pytest.mark.parametrize("command", ["eval", "resume", "compare"])
def test_a_yaml_tag_makes_no_object(commands, run, command, name):
    path = run / ".hydra" / name
    path.write_text(f"{path.read_text()}\nmark: {YAML_CODE}\n")
    result = getattr(commands, command)("run")
    assert not Path("mark").exists()
    if (command, name) not in (
        ("compare", "hydra.yaml"),
        ("resume", "config.yaml"),
    ):  # files that the command does not read
        assert result.code in (1, 2)
        assert "Traceback" not in result.err


def test_a_sweeps_yaml_makes_no_object(commands):
    commands.bnexp("-m", "seed=0", *QUICK, "hydra.sweep.dir=sweep")
    path = Path("sweep/multirun.yaml")
    path.write_text(f"{path.read_text()}\nmark: {YAML_CODE}\n")
    result = commands.resume("sweep")
    assert (result.code, Path("mark").exists()) == (2, False)
    assert len(result.err.splitlines()) == 1


def test_a_report_resolves_no_interpolation(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    for seed in (0, 1, 2):
        for norm in ("none", "batch"):
            write_run(tmp_path / "runs", 0.9, seed=seed, model_norm=norm, name="${oc.env:SECRET}",
                     l1="${oc.env:SECRET}")  # fmt: skip
    runs, problems = read_runs([tmp_path / "runs"])
    write_report(compare(runs, problems), tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        assert b"hunter2" not in path.read_bytes(), path
    assert "${oc.env:SECRET}" in (tmp_path / "out/report.html").read_text()


def move_outside(run: Path, name: str) -> Path:
    """Moves ``name`` out of the run's folder and leaves a link to it there. Returns the new path."""
    outside_path = Path("outside").resolve()
    (run / name).rename(outside_path)
    (run / name).symlink_to(outside_path)
    return outside_path


NAMES = ("summary.json", "metrics.csv", "train.log", "checkpoints", ".hydra", ".lock", ".hydra/config.yaml")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["eval", "resume", "compare", "bnexp"])
def test_a_link_that_leads_out_of_the_run_is_not_followed(commands, run, command, name):
    outside_path = move_outside(run, name)
    if outside_path.is_file():
        outside_path.write_text("secret")
    contents = {
        path: path.read_bytes() for path in (outside_path, *outside_path.rglob("*")) if path.is_file()
    }
    arguments = ["hydra.run.dir=run", "epochs=2"] if command == "bnexp" else ["run"]
    arguments += ["epochs=2"] if command == "resume" else []
    result = getattr(commands, command)(*arguments)
    assert result.code == 2
    assert f"{name}: points outside the run's folder" in result.err
    assert "secret" not in result.out + result.err
    assert contents == {
        path: path.read_bytes() for path in (outside_path, *outside_path.rglob("*")) if path.is_file()
    }


def test_a_pipe_in_a_run_is_refused_and_not_waited_for(commands, run):
    (run / "metrics.csv").unlink()
    os.mkfifo(run / "metrics.csv")
    result = commands.compare("run")
    assert "metrics.csv: neither a file nor a folder" in result.err


class Elements(HTMLParser):
    """All elements and attributes of a page or a picture, as a browser sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


HOSTILE_TEXT = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;|`x`"


def test_a_report_shows_hostile_text_of_a_run_as_text(tmp_path):
    """In names, tags, keys, values, error texts, folders, versions, and in the pictures' text and alt."""
    for seed in (0, 1, 2):
        for norm in ("none", HOSTILE_TEXT, "batch"):
            run = write_run(tmp_path / "runs", 0.9 + seed / 100, folder=f"{norm[:5]}{seed}<b>", seed=seed,
                           model_norm=norm, name=HOSTILE_TEXT, tags=[HOSTILE_TEXT])  # fmt: skip
            config = yaml.safe_load((run / ".hydra/config.yaml").read_text())
            config |= {
                HOSTILE_TEXT: HOSTILE_TEXT,
                "optimizer": {"_target_": HOSTILE_TEXT, HOSTILE_TEXT: seed, "lr": HOSTILE_TEXT},
            }
            (run / ".hydra/config.yaml").write_text(yaml.safe_dump(config))
            versions = {
                "versions": {HOSTILE_TEXT: HOSTILE_TEXT, "torch": HOSTILE_TEXT},
                "started": HOSTILE_TEXT,
                "device": HOSTILE_TEXT,
            }
            (run / "environment.json").write_text(json.dumps(versions))
            if norm == HOSTILE_TEXT and not seed:
                summary = json.loads((run / "summary.json").read_text())
                for status in ("failed", "diverged"):
                    summary |= {
                        "status": status,
                        "error": HOSTILE_TEXT,
                        "overrides": [f"{HOSTILE_TEXT}={HOSTILE_TEXT}"],
                    }
                    (run / "summary.json").write_text(json.dumps(summary))
    runs, problems = read_runs([tmp_path / "runs"])
    write_report(compare(runs, problems), tmp_path / "out")
    pages = [path for path in (tmp_path / "out").iterdir() if path.suffix in (".html", ".svg")]
    assert len(pages) > 2
    for path in pages:
        elements = Elements()
        elements.feed(path.read_text())
        assert not elements.names & {"script", "img", "b"}, path
        assert not {name for name in elements.attributes if name.startswith("on")}, path
    assert "&lt;script&gt;" in (tmp_path / "out/report.html").read_text()


def test_the_makefile_serves_tensorboard_on_this_machine_only():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    calls = [line for line in makefile.splitlines() if "--logdir" in line]
    assert calls
    assert all("--host localhost" in line for line in calls)
