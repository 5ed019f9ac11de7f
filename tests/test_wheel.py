"""The wheel as a user gets it: built, installed in a fresh environment, run far from the checkout."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
QUICK = ("epochs=1", "dataset.train_size=100", "dataset.test_size=50")

# Run by Python at every start in the fresh environment: notes each file that is opened.
WATCH = """
import os, sys
def note(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        print(os.path.abspath(arguments[0]), file=opened)
opened = open(os.environ["OPENED"], "a", buffering=1)
sys.addaudithook(note)
"""


@dataclass(frozen=True)
class Installed:
    """A fresh environment with bnexp in it."""

    python: Path
    packages: Path  # where its packages lie

    def run(self, folder: Path, *words: str) -> tuple[str, set[Path]]:
        """Runs a console script in ``folder``; what it printed and the files it opened."""
        opened = folder.parent / f"{folder.name}-opened.txt"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {
            "OPENED": str(opened)
        }
        script = self.python.with_name(words[0])
        done = subprocess.run(
            [script, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True, timeout=240
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout, {Path(line) for line in opened.read_text().splitlines()}


def pip(*words: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that the build leaves nothing in the checkout."""
    pytest.importorskip("pip", reason="builds with pip")
    if int(importlib.metadata.version("setuptools").partition(".")[0]) < 77:
        pytest.skip("pyproject.toml asks for setuptools 77 to build, and nothing is fetched in a test")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("bnexp", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Installed:
    """The wheel in an environment that sees this one's other packages, though not its editable install."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(folder, with_pip=False)
    (python,) = folder.glob("bin/python") or folder.glob("Scripts/python.exe")
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    (packages,) = folder.glob("[Ll]ib/**/site-packages")
    # A folder named in a .pth file is searched last, and the .pth files in it are not read.
    (packages / "parent.pth").write_text("\n".join(site.getsitepackages()))
    (packages / "sitecustomize.py").write_text(WATCH)
    return Installed(python, packages)


def test_every_module_and_yaml_is_in_the_wheel_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "bnexp").rglob("*.py")}
    presets = {f"bnexp/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert len(presets) > 30
    assert files == modules | presets | {"bnexp/conf/__init__.py", "bnexp/report/render/page.html.j2"}


def hold(installed: Installed, opened: set[Path], *names: str) -> None:
    """Holds the files a command opened: these of the installed package, and none of the checkout."""
    for name in names:
        path = installed.packages / "bnexp" / name
        compiled = importlib.util.cache_from_source(str(path)) if path.suffix == ".py" else path
        assert {path, Path(compiled)} & opened, name
    ours = Path(sys.prefix)  # the tests' own environment may lie inside the checkout
    assert not [path for path in opened if path.is_relative_to(ROOT) and not path.is_relative_to(ours)]


@pytest.fixture
def folder(tmp_path) -> Path:
    """An empty folder to work in."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def test_a_run_and_its_evaluation(installed, folder):
    out, opened = installed.run(folder, "bnexp", *QUICK)
    hold(installed, opened, "train.py", "engine.py", "conf/config.yaml", "conf/model/mlp.yaml")
    (path,) = folder.glob("outputs/*/*/summary.json")
    final = json.loads(path.read_text())["final"]
    assert f"test accuracy {final['test/accuracy']:.4f}" in out
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir()
    out, opened = installed.run(elsewhere, "bnexp-eval", str(path.parent))
    hold(installed, opened, "evaluate.py", "engine.py")
    assert f"accuracy {final['test/accuracy']:.4f}, loss {final['test/loss']:.4f}" in out
    assert not list(elsewhere.iterdir())


def test_help_and_the_configuration(installed, folder):
    out, opened = installed.run(folder, "bnexp", "--help")
    hold(installed, opened, "helptext.py", "conf/config.yaml", "conf/dataset/cifar10.yaml")
    assert "model: conv, conv_bn, custom, densenet" in out
    out, opened = installed.run(folder, "bnexp", "--cfg", "job", "model=resnet")
    hold(installed, opened, "cli.py", "conf/model/resnet.yaml", "conf/dataset/digits.yaml")
    assert re.search(r"^  block: basic$", out, re.MULTILINE)
    scripts = {path.name for path in installed.python.parent.glob("bnexp*")}
    assert {"bnexp", "bnexp-compare", "bnexp-eval"} <= scripts
    for name in scripts - {"bnexp"}:
        out, _ = installed.run(folder, name, "--help")
        assert out.startswith(f"usage: {name} ")
    assert not list(folder.iterdir())


def test_a_sweep_ends_in_its_report(installed, folder):
    words = ("-m", "seed=0,1", *QUICK, "tracking.tensorboard=false", "hydra.sweep.dir=sweep")
    _, opened = installed.run(folder, "bnexp", *words)
    hold(installed, opened, "sweep.py", "report/page.py", "report/page.html.j2")
    assert len(list(folder.glob("sweep/*/summary.json"))) == 2
    assert "</html>" in (folder / "sweep" / "report.html").read_text()


def test_a_users_own_presets_from_an_empty_folder(installed, folder):
    """A YAML of theirs composes with the wheel's."""
    presets = folder.with_name("presets") / "experiment"
    presets.mkdir(parents=True)
    (presets / "quick.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n"
        "  - override /model: mlp_bn\n"
        "epochs: 1\n"
        "dataset: {train_size: 100, test_size: 50}\n"
        "tracking: {tensorboard: false}\n"
    )
    _, opened = installed.run(
        folder, "bnexp", "--config-dir", str(presets.parent), "experiment=quick", "batch_size=32"
    )
    hold(installed, opened, "conf/model/mlp_bn.yaml")
    assert presets / "quick.yaml" in opened
    (path,) = folder.glob("outputs/*/*-mlp_bn-digits-*/metrics.csv")
    assert len(path.read_text().splitlines()) == 2
    assert len((path.parent / "steps.csv").read_text().splitlines()) == 1 + 4
