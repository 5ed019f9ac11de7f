"""The wheel as users install it: built, installed in a fresh environment, run outside of the checkout."""

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

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
QUICK = ("epochs=1", "dataset.train_size=100", "dataset.test_size=50")

# Python runs this at every start in the fresh environment: it records each file that is opened.
RECORD_OPENED_FILES = """
import os, sys
def record(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        print(os.path.abspath(arguments[0]), file=opened)
opened = open(os.environ["OPENED"], "a", buffering=1)
sys.addaudithook(record)
"""


@dataclass(frozen=True)
class Installation:
    """A fresh environment with bnexp in it."""

    python: Path
    packages: Path  # its site-packages folder

    def run(self, folder: Path, *command: str) -> tuple[str, set[Path]]:
        """Runs a console script in ``folder``; returns what it printed and the files that it opened."""
        opened = folder.parent / f"{folder.name}-opened.txt"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {
            "OPENED": str(opened)
        }
        script = self.python.with_name(command[0])
        process = subprocess.run(
            [script, *command[1:]], cwd=folder, env=environment, capture_output=True, text=True, timeout=240
        )
        assert (process.returncode, process.stderr) == (0, "")
        return process.stdout, {Path(line) for line in opened.read_text().splitlines()}


def pip(*arguments: object) -> str:
    """Runs pip and returns what it printed."""
    process = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stdout + process.stderr


@dataclass(frozen=True)
class Build:
    """A wheel, and what its build printed."""

    wheel: Path
    output: str


@pytest.fixture(scope="module")
def build(tmp_path_factory) -> Build:
    """Built from a copy, so that the build leaves nothing in the checkout."""
    pytest.importorskip("pip", reason="needs pip to build the wheel")
    if int(importlib.metadata.version("setuptools").partition(".")[0]) < 77:
        pytest.skip("pyproject.toml needs setuptools 77 to build, and a test downloads nothing")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("bnexp", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--verbose")
    output = pip("wheel", *options, "--wheel-dir", folder, source)
    (wheel_file,) = folder.glob("*.whl")
    return Build(wheel_file, output)


@pytest.fixture(scope="module")
def wheel(build) -> Path:
    return build.wheel


def test_the_build_prints_no_warning(build):
    assert "copying bnexp/train.py" in build.output  # the output of setuptools is in it
    assert [line for line in build.output.splitlines() if "Warning:" in line] == []


@pytest.fixture(scope="module")
def installation(wheel, tmp_path_factory) -> Installation:
    """The wheel in an environment that sees all packages of this one except its editable install of bnexp."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(folder, with_pip=False)
    (python,) = folder.glob("bin/python") or folder.glob("Scripts/python.exe")
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    (packages,) = folder.glob("[Ll]ib/**/site-packages")
    # Python searches the folders in a .pth file last, and does not read the .pth files in them.
    (packages / "parent.pth").write_text("\n".join(site.getsitepackages()))
    # Not sitecustomize.py: Debian's Python has one of its own, which comes first.
    (packages / "record_opened_files.py").write_text(RECORD_OPENED_FILES)
    (packages / "record_opened_files.pth").write_text("import record_opened_files\n")
    return Installation(python, packages)


def test_every_module_and_yaml_is_in_the_wheel_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    packages = (ROOT / "bnexp", ROOT / "hydra_plugins")
    modules = {str(path.relative_to(ROOT)) for folder in packages for path in folder.rglob("*.py")}
    presets = {f"bnexp/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert len(presets) > 30
    others = {"bnexp/conf/__init__.py", "bnexp/conf/descent/__init__.py", "bnexp/report/render/page.html.j2"}
    assert files == modules | presets | others


def assert_opened(installation: Installation, opened: set[Path], *names: str) -> None:
    """The command opened these files of the installed package, and no file of the checkout."""
    for name in names:
        path = installation.packages / "bnexp" / name
        compiled = importlib.util.cache_from_source(str(path)) if path.suffix == ".py" else path
        assert {path, Path(compiled)} & opened, name
    environment = Path(sys.prefix)  # the environment of the tests may be inside the checkout
    assert not [path for path in opened if path.is_relative_to(ROOT) and not path.is_relative_to(environment)]


@pytest.fixture
def folder(tmp_path) -> Path:
    """An empty folder to run commands in."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def test_a_run_and_its_evaluation_work(installation, folder):
    out, opened = installation.run(folder, "bnexp", *QUICK)
    assert_opened(
        installation, opened, "train.py", "training/trainer.py", "conf/config.yaml", "conf/model/mlp.yaml"
    )
    (path,) = folder.glob("outputs/*/*/summary.json")
    final = json.loads(path.read_text())["final"]
    assert f"test accuracy {final['test/accuracy']:.4f}" in out
    other_folder = folder.with_name("elsewhere")
    other_folder.mkdir()
    files = ("--export", "weights.safetensors", "--predictions", "p.csv")
    out, opened = installation.run(other_folder, "bnexp-eval", str(path.parent), *files)
    assert_opened(installation, opened, "evaluate.py", "training/trainer.py")
    assert f"accuracy {final['test/accuracy']:.4f}, loss {final['test/loss']:.4f}" in out
    assert "tensors in weights.safetensors" in out
    assert {file.name for file in other_folder.iterdir()} == {"weights.safetensors", "p.csv"}


def test_help_and_the_configuration_are_printed(installation, folder):
    out, opened = installation.run(folder, "bnexp", "--help")
    assert_opened(installation, opened, "cli/help.py", "conf/config.yaml", "conf/dataset/cifar10.yaml")
    assert "model: conv, conv_bn, custom, densenet" in out
    out, opened = installation.run(folder, "bnexp", "--cfg", "job", "model=resnet")
    assert_opened(installation, opened, "cli/launch.py", "conf/model/resnet.yaml", "conf/dataset/digits.yaml")
    assert re.search(r"^  block: basic$", out, re.MULTILINE)
    scripts = {path.name for path in installation.python.parent.glob("bnexp*")}
    assert {"bnexp", "bnexp-compare", "bnexp-eval"} <= scripts
    for name in scripts - {"bnexp", "bnexp-descend"}:
        out, _ = installation.run(folder, name, "--help")
        assert out.startswith(f"usage: {name} ")
    assert not list(folder.iterdir())


def test_a_descent_runs(installation, folder):
    out, opened = installation.run(folder, "bnexp-descend", "optimizer=newton")
    assert_opened(installation, opened, "descent/newton.py", "conf/descent/optimizer/newton.yaml")
    assert "converged to a minimum" in out
    assert len(list(folder.glob("outputs/*/*/path.png"))) >= 1


READ_SWEEP = """
import bnexp, onnxruntime, torch
sweep = bnexp.open_sweep("sweep")
print(len(sweep.runs["final test/accuracy"]), sweep.curves.rows > 0, sweep.verdict().answer)
run = sweep.run(0)
images = run.preprocess("image.png")
session = onnxruntime.InferenceSession("network.onnx", providers=["CPUExecutionProvider"])
logits = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
print(torch.allclose(logits, run.model()(images), atol=1e-4), run.predict("image.png")[0].name)
"""


def test_a_sweep_leads_to_its_report_the_notebook_and_the_paper(installation, folder):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the export to ONNX is a part of this test")
    arguments = ("-m", "seed=0,1", *QUICK, "tracking.tensorboard=false", "hydra.sweep.dir=sweep")
    _, opened = installation.run(folder, "bnexp", *arguments, "loss.weight=balanced")
    assert_opened(
        installation, opened, "sweeps/sweep.py", "report/render/html.py", "report/render/page.html.j2"
    )
    run, _ = sorted(path.parent.name for path in folder.glob("sweep/*/summary.json"))
    assert "</html>" in (folder / "sweep" / "report.html").read_text()
    for name, part in {
        "comparison.csv": "group", "runs.csv": "final test/accuracy", "curves.csv": "epoch,metric,value",
        "comparison.tex": r"\toprule", "methods.txt": "Each group has 2 seeds",
    }.items():  # fmt: skip
        text = (folder / "sweep" / name).read_text()
        assert part in text, name
    pictures = {path.stem for path in (folder / "sweep").glob("*.pdf")}
    assert {"curves", "confusion"} <= pictures

    Image.fromarray(np.full((28, 28), 90, np.uint8)).save(folder / "image.png")
    arguments = (f"sweep/{run}", "--image", "image.png", "--export", "network.onnx")
    out, opened = installation.run(folder, "bnexp-eval", *arguments)
    assert_opened(installation, opened, "results/predict.py", "results/export.py")
    predicted = re.search(r"^image\.png: (\d) 0\.\d{4}, ", out, re.MULTILINE)[1]
    assert "the network as ONNX in network.onnx" in out
    out, opened = installation.run(folder, "python", "-c", READ_SWEEP)
    modules = ("saved_run.py", "saved_sweep.py", "network.py", "predict.py")
    assert_opened(
        installation, opened, *(f"results/{name}" for name in modules), "report/analysis/verdict.py"
    )
    first, second = out.splitlines()
    assert first.startswith("2 True ")
    assert second == f"True {predicted}"


def test_a_users_preset_composes_with_those_of_the_wheel(installation, folder):
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
    _, opened = installation.run(
        folder, "bnexp", "--config-dir", str(presets.parent), "experiment=quick", "batch_size=32"
    )
    assert_opened(installation, opened, "conf/model/mlp_bn.yaml")
    assert presets / "quick.yaml" in opened
    (path,) = folder.glob("outputs/*/*-mlp_bn-digits-*/metrics.csv")
    assert len(path.read_text().splitlines()) == 2
    assert len((path.parent / "steps.csv").read_text().splitlines()) == 1 + 4
