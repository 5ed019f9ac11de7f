"""A run's folder may come from elsewhere: nothing in it runs, leads out, or stands in a page as code."""

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
from bnexp.config.trust import _SAFE_TARGETS
from bnexp.report.analysis.verdict import compare
from bnexp.report.read.runs import read_runs
from bnexp.report.write import write_report
from helpers.made_runs import made_run

QUICK = ("epochs=1", "dataset.train_size=100", "dataset.test_size=50", "tracking.tensorboard=false")


def test_what_needs_no_trust_are_classes_that_compute():
    modules = [torch.nn, torch.optim, torch.optim.lr_scheduler, bnexp.models, bnexp.losses]
    modules += [
        importlib.import_module(f"torch.nn.modules.{found.name}")
        for found in pkgutil.iter_modules(torch.nn.modules.__path__)
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
    done = getattr(commands, command)("run")
    assert not Path("mark").exists()
    if (command, name) not in (("compare", "hydra.yaml"), ("resume", "config.yaml")):  # which they don't read
        assert done.code in (1, 2)
        assert "Traceback" not in done.err


def test_a_sweeps_yaml_makes_no_object(commands):
    commands.bnexp("-m", "seed=0", *QUICK, "hydra.sweep.dir=sweep")
    path = Path("sweep/multirun.yaml")
    path.write_text(f"{path.read_text()}\nmark: {YAML_CODE}\n")
    done = commands.resume("sweep")
    assert (done.code, Path("mark").exists()) == (2, False)
    assert len(done.err.splitlines()) == 1


def test_a_report_resolves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    for seed in (0, 1, 2):
        for norm in ("none", "batch"):
            made_run(tmp_path / "runs", 0.9, seed=seed, model_norm=norm, name="${oc.env:SECRET}",
                     l1="${oc.env:SECRET}")  # fmt: skip
    runs, problems = read_runs([tmp_path / "runs"])
    write_report(compare(runs, problems), tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        assert b"hunter2" not in path.read_bytes(), path
    assert "${oc.env:SECRET}" in (tmp_path / "out/report.html").read_text()


def leads_out(run: Path, name: str) -> Path:
    """``name`` in the run becomes a link to what lies beside it."""
    beside = Path("beside").resolve()
    (run / name).rename(beside)
    (run / name).symlink_to(beside)
    return beside


NAMES = ("summary.json", "metrics.csv", "train.log", "checkpoints", ".hydra", ".lock", ".hydra/config.yaml")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["eval", "resume", "compare", "bnexp"])
def test_a_link_that_leads_out_is_not_followed(commands, run, command, name):
    beside = leads_out(run, name)
    if beside.is_file():
        beside.write_text("secret")
    before = {path: path.read_bytes() for path in (beside, *beside.rglob("*")) if path.is_file()}
    words = ["hydra.run.dir=run", "epochs=2"] if command == "bnexp" else ["run"]
    words += ["epochs=2"] if command == "resume" else []
    done = getattr(commands, command)(*words)
    assert done.code == 2
    assert f"{name}: points outside the run's folder" in done.err
    assert "secret" not in done.out + done.err
    assert before == {path: path.read_bytes() for path in (beside, *beside.rglob("*")) if path.is_file()}


def test_a_pipe_in_a_run_holds_nobody(commands, run):
    (run / "metrics.csv").unlink()
    os.mkfifo(run / "metrics.csv")
    done = commands.compare("run")
    assert "metrics.csv: neither a file nor a folder" in done.err


class Elements(HTMLParser):
    """All elements and attributes of a page or a picture, as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;|`x`"


def test_whatever_a_run_is_called_a_page_shows_it_as_text(tmp_path):
    """In names, tags, keys, values, error texts, folders, versions, and in the pictures' text and alt."""
    for seed in (0, 1, 2):
        for norm in ("none", EVIL, "batch"):
            run = made_run(tmp_path / "runs", 0.9 + seed / 100, folder=f"{norm[:5]}{seed}<b>", seed=seed,
                           model_norm=norm, name=EVIL, tags=[EVIL])  # fmt: skip
            config = yaml.safe_load((run / ".hydra/config.yaml").read_text())
            config |= {EVIL: EVIL, "optimizer": {"_target_": EVIL, EVIL: seed, "lr": EVIL}}
            (run / ".hydra/config.yaml").write_text(yaml.safe_dump(config))
            versions = {"versions": {EVIL: EVIL, "torch": EVIL}, "started": EVIL, "device": EVIL}
            (run / "environment.json").write_text(json.dumps(versions))
            if norm == EVIL and not seed:
                summary = json.loads((run / "summary.json").read_text())
                for status in ("failed", "diverged"):
                    summary |= {"status": status, "error": EVIL, "overrides": [f"{EVIL}={EVIL}"]}
                    (run / "summary.json").write_text(json.dumps(summary))
    runs, problems = read_runs([tmp_path / "runs"])
    write_report(compare(runs, problems), tmp_path / "out")
    pages = [path for path in (tmp_path / "out").iterdir() if path.suffix in (".html", ".svg")]
    assert len(pages) > 2
    for path in pages:
        found = Elements()
        found.feed(path.read_text())
        assert not found.names & {"script", "img", "b"}, path
        assert not {name for name in found.attributes if name.startswith("on")}, path
    assert "&lt;script&gt;" in (tmp_path / "out/report.html").read_text()


def test_tensorboard_is_for_this_machine_alone():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    calls = [line for line in makefile.splitlines() if "--logdir" in line]
    assert calls
    assert all("--host localhost" in line for line in calls)
