"""A run is identified by its images and by its own code, not by the words that name them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bnexp import data
from bnexp.data import decode, fingerprint
from bnexp.data.fingerprint import folder_fingerprint
from bnexp.errors import UserError

QUICK = ("epochs=1", "tracking.tensorboard=false", "model=mlp", "batch_size=8")
NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, in_channels, image_size, num_classes, width: int = 8):
        first = nn.Linear(in_channels * image_size**2, width)
        super().__init__(nn.Flatten(), first, nn.{activation}(), nn.Linear(width, num_classes))
"""


def write_images(root: Path, seed: int = 0, per_class: int = 10) -> Path:
    rng = np.random.default_rng(seed)
    for name, level in (("cat", 60), ("dog", 180)):
        folder = root / name
        folder.mkdir(parents=True)
        for i in range(per_class):
            pixels = np.clip(rng.normal(level, 40, (8, 8)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def folder_overrides(root: object) -> tuple[str, ...]:
    return ("dataset=image_folder", f"dataset.root={root}")


@pytest.fixture(autouse=True)
def no_remembered_digests():
    fingerprint._memory.clear()


# The fingerprint


def test_a_copy_has_the_same_fingerprint_and_any_change_another(tmp_path):
    root = write_images(tmp_path / "a")
    original = folder_fingerprint(root)
    shutil.copytree(root, tmp_path / "copy")
    assert folder_fingerprint(tmp_path / "copy") == original
    changes = {
        "content": lambda folder: (folder / "cat/0.png").write_bytes((folder / "cat/1.png").read_bytes()),
        "name": lambda folder: (folder / "cat/0.png").rename(folder / "cat/zero.png"),
        "class": lambda folder: (folder / "cat/0.png").rename(folder / "dog/zero.png"),
        "one more": lambda folder: shutil.copy(folder / "cat/0.png", folder / "cat/more.png"),
        "one less": lambda folder: (folder / "cat/0.png").unlink(),
    }
    for name, change in changes.items():
        shutil.copytree(root, tmp_path / name)
        change(tmp_path / name)
        assert folder_fingerprint(tmp_path / name) != original, name


def test_unchanged_files_are_not_read_again_but_changed_ones_are(tmp_path, monkeypatch):
    root = write_images(tmp_path / "a")
    paths, digest = [], fingerprint.file_digest
    monkeypatch.setattr(fingerprint, "file_digest", lambda path: paths.append(path) or digest(path))
    original = folder_fingerprint(root)
    assert len(paths) == 20
    fingerprint._memory.clear()  # another process
    assert folder_fingerprint(root) == original
    assert len(paths) == 20
    (root / "cat/0.png").write_bytes((root / "cat/1.png").read_bytes())
    assert folder_fingerprint(root) != original
    assert len(paths) == 21


def test_what_is_no_image_does_not_count(tmp_path):
    root = write_images(tmp_path / "a")
    original = folder_fingerprint(root)
    (root / "README.txt").write_text("about these images")
    (root / "cat/notes.txt").write_text("a note")
    assert folder_fingerprint(root) == original


# Images in runs


def test_two_roots_are_two_jobs(commands):
    for name, seed in (("A", 0), ("B", 1)):
        write_images(commands.folder / name, seed)
    result = commands.bnexp("-m", "dataset=image_folder", "dataset.root=A,B", *QUICK, "hydra.sweep.dir=sweep")
    assert result.code == 0, result.err
    assert len(commands.runs()) == 2
    hashes = {json.loads((run / "summary.json").read_text())["config_hash"] for run in commands.runs()}
    assert len(hashes) == 2
    assert "skipped" not in result.out


def test_a_sweep_trains_again_on_changed_images_and_skips_a_moved_folder(commands):
    root = write_images(commands.folder / "A")
    sweep = ("-m", "seed=0,1", *QUICK, "hydra.sweep.dir=sweep")
    commands.bnexp(*sweep, *folder_overrides("A"))
    root.rename(commands.folder / "moved")
    assert commands.bnexp(*sweep, *folder_overrides("moved")).out.startswith(
        "2 of 2 jobs ended before: skipped\n"
    )
    (commands.folder / "moved/cat/0.png").unlink()
    assert "skipped" not in commands.bnexp(*sweep, *folder_overrides("moved")).out
    assert len(commands.runs()) == 4


def test_images_that_have_moved_are_evaluated_where_they_are(commands):
    root = write_images(commands.folder / "A")
    commands.bnexp(*folder_overrides("A"), *QUICK, "hydra.run.dir=run")
    before = commands.eval("run")
    root.rename(commands.folder / "moved")
    result = commands.eval("run")
    assert result.code == 2
    assert result.err == "bnexp: dataset.root=A: there is no such folder; --root=DIR names its new place\n"
    assert commands.eval("run", "--root", "moved") == before
    (commands.folder / "moved/cat/0.png").unlink()
    assert "are no longer those of this run" in commands.eval("run", "--root", "moved").err
    assert commands.eval("run", "--root", "A").err == "bnexp: --root=A: there is no such folder\n"


def test_embedded_images_have_no_folder(commands):
    commands.bnexp(*QUICK, "hydra.run.dir=run")
    result = commands.eval("run", "--root", ".")
    assert result.code == 2
    assert result.err == "bnexp: --root=.: dataset=digits has no folder; leave it out\n"


def test_runs_on_different_images_are_not_compared(commands):
    root = write_images(commands.folder / "A", per_class=15)
    commands.bnexp(*folder_overrides("A"), *QUICK, "model.norm=none", "hydra.run.dir=one")
    (root / "cat/0.png").unlink()
    commands.bnexp(*folder_overrides("A"), *QUICK, "model.norm=batch", "hydra.run.dir=two")
    out = " ".join(commands.compare("one", "two").out.split())
    assert "no verdict" in out
    assert "Not compared" in out


def test_resume_refuses_changed_images(commands):
    root = write_images(commands.folder / "A")
    commands.bnexp(*folder_overrides("A"), *QUICK, "hydra.run.dir=run")
    old_summary = (commands.folder / "run/summary.json").read_bytes()
    shutil.copy(root / "cat/0.png", root / "cat/more.png")
    result = commands.resume("run", "epochs=2")
    assert result.code == 2
    assert "the images in" in result.err
    assert "are no longer those of this run" in result.err
    assert len(result.err.splitlines()) == 1
    assert (commands.folder / "run/summary.json").read_bytes() == old_summary


def test_resume_names_a_missing_folder_of_images(commands):
    root = write_images(commands.folder / "A")
    commands.bnexp(*folder_overrides("A"), *QUICK, "hydra.run.dir=run")
    shutil.move(root, commands.folder / "B")
    for arguments, name in (((), str(root)), (("dataset.root=C",), "C")):
        result = commands.resume("run", "epochs=2", *arguments)
        line = f"bnexp: dataset.root={name}: there is no such folder; dataset.root=DIR names its new place\n"
        assert (result.code, result.err) == (2, line)
    assert commands.resume("run", "epochs=2", "dataset.root=B").code == 0


def test_eval_says_that_the_images_have_changed(commands):
    root = write_images(commands.folder / "A")
    commands.bnexp(*folder_overrides("A"), *QUICK, "hydra.run.dir=run")
    assert "no longer" not in commands.eval("run").err
    shutil.copy(root / "cat/0.png", root / "cat/more.png")
    result = commands.eval("run")
    assert result.code == 0
    assert "are no longer those of this run" in result.err


@pytest.mark.parametrize("sweep", [(), ("-m", "seed=0,1", "hydra/launcher=basic", "hydra.sweep.dir=sweep")])
def test_a_job_whose_images_have_changed_since_its_command_began_fails(commands, monkeypatch, sweep):
    """Its record named the images of the beginning, and its seed was pooled with those of other images."""
    root = write_images(commands.folder / "A")
    load = data.load_dataset

    def change_and_load(*args):
        shutil.copy(root / "cat/0.png", root / "cat/more.png")
        return load(*args)

    monkeypatch.setattr(data, "load_dataset", change_and_load)
    result = commands.bnexp(*sweep, *folder_overrides("A"), *QUICK)
    assert result.code != 0
    assert "dataset.root=A: its images have changed since the command began" in result.err + result.out


def test_only_other_images_are_refused(tmp_path, monkeypatch):
    root = write_images(tmp_path / "A")
    original = folder_fingerprint(root)
    with pytest.raises(UserError, match="its images have changed since the command began"):
        data.load_dataset("image_folder", str(root), None, "0123456789abcdef")
    read_pixels = decode.read_pixels

    def change_and_read(path, *args):
        shutil.copy(root / "cat/0.png", root / "cat/more.png")
        return read_pixels(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(decode, "read_pixels", change_and_read)
        with pytest.raises(UserError, match="its images have changed since the command began"):
            data.load_dataset("image_folder", str(root), None, original)
    changed = folder_fingerprint(root)
    for expected in (changed, None):
        assert len(data.load_dataset("image_folder", str(root), None, expected).train) == 17


@pytest.mark.parametrize(("sweep", "listings"), [((), 2), (("-m", "seed=0,1,2", "hydra.launcher.fuse=1"), 4)])
def test_a_command_lists_a_folder_once_and_each_job_once_more(commands, monkeypatch, sweep, listings):
    """Each job of a sweep needed four listings: those of planning took minutes with many seeds and images."""
    root = write_images(commands.folder / "A")
    assert commands.bnexp(*folder_overrides("A"), *QUICK).code == 0  # decodes
    scandir, scanned = os.scandir, []

    def record_and_scan(path="."):
        scanned.append(os.path.abspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", record_and_scan)
    assert commands.bnexp(*sweep, *folder_overrides("A"), *QUICK, "model.norm=batch").code == 0
    assert scanned.count(str(root / "dog")) == listings


@pytest.mark.parametrize("change", ["renamed", "added"])
def test_eval_refuses_other_classes(commands, change):
    """The outputs of the network had the names of other classes, or no name."""
    root = write_images(commands.folder / "A")
    commands.bnexp(*folder_overrides("A"), *QUICK, "hydra.run.dir=run")
    (root / "cat").rename(root / "kitten") if change == "renamed" else shutil.copytree(
        root / "cat", root / "kitten"
    )
    result = commands.eval("run")
    names = "2 (dog, kitten)" if change == "renamed" else "3 (cat, dog, kitten)"
    assert result.code == 2
    assert f"run: its classes are 2 (cat, dog), but those of dataset.root={root} are {names}" in result.err


def test_a_relative_root_is_that_of_the_first_command(commands, monkeypatch):
    write_images(commands.folder / "A")
    commands.bnexp(*folder_overrides("A"), *QUICK, "hydra.run.dir=run")
    (commands.folder / "elsewhere").mkdir()
    monkeypatch.chdir(commands.folder / "elsewhere")
    result = commands.resume("../run", "epochs=2")
    assert result.code == 0, result.err
    assert json.loads((commands.folder / "run/summary.json").read_text())["epochs"] == 2


# The user's own code


@pytest.fixture
def write_net(commands, monkeypatch):
    """Writes mynets.py, and forgets the module that this process may have imported from it."""
    monkeypatch.syspath_prepend(str(commands.folder))

    def write(activation: str) -> None:
        (commands.folder / "mynets.py").write_text(NET.format(activation=activation))
        monkeypatch.delitem(sys.modules, "mynets", raising=False)

    return write


CUSTOM = ("model=custom", "model._target_=mynets.Net", *QUICK[:2], "batch_size=8", "dataset.train_size=50")


def test_an_edited_network_is_another_run(commands, write_net):
    write_net("ReLU")
    sweep = ("-m", "seed=0,1", *CUSTOM, "hydra.sweep.dir=sweep")
    first = commands.bnexp(*sweep)
    assert first.code == 0, first.err
    assert commands.bnexp(*sweep).out.startswith("2 of 2 jobs ended before: skipped\n")
    write_net("Tanh")
    assert "skipped" not in commands.bnexp(*sweep).out
    assert len(commands.runs()) == 4
    table = commands.compare("sweep").out
    assert "source" in table


@pytest.mark.parametrize(
    ("sweep", "code"),
    [((), 2), (("-m", "seed=0,1", "hydra/launcher=basic", "hydra.sweep.dir=sweep"), 1)],
    ids=["run", "sweep"],
)
@pytest.mark.parametrize("group", ["model", "optimizer"])
def test_a_job_whose_code_has_changed_since_its_command_began_fails(
    commands, write_net, monkeypatch, sweep, code, group
):
    """Its record named the code of the beginning, and its seed was pooled with those of other code."""
    write_net("ReLU")
    with Path("mynets.py").open("a") as file:
        file.write("\n\nimport torch\n\n\nclass Descent(torch.optim.SGD):\n    pass\n")
    load = data.load_dataset

    def edit_and_load(*args):
        with Path("mynets.py").open("a") as file:
            file.write("# edited\n")
        return load(*args)

    monkeypatch.setattr(data, "load_dataset", edit_and_load)
    own_parts = {"model": CUSTOM[:2], "optimizer": ("optimizer=custom", "optimizer._target_=mynets.Descent")}
    result = commands.bnexp(*sweep, *own_parts[group], *CUSTOM[2:])
    assert result.code == code
    target = own_parts[group][1]
    problem = f"the file of {target}, or one that it imports, has changed since the command began"
    assert problem in result.err + result.out
    if not sweep:
        assert result.err == f"bnexp: {problem}\n"


UNORDERED = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__()
        names = {"alpha", "beta", "gamma", "delta", "epsilon", "zeta"}  # in another order in each process
        size = in_channels * image_size**2
        self.branches = nn.ModuleDict({name: nn.Linear(size, 4) for name in names})
        self.head = nn.Linear(24, num_classes)

    def forward(self, images):
        parts = [branch(images.flatten(1)) for branch in self.branches.values()]
        return self.head(torch.cat(parts, 1).relu())
"""


def test_a_network_whose_layers_come_in_another_order_is_refused(commands, shell, monkeypatch):
    """bnexp-eval gave .15 where the run had .45: the weights of the head belonged to other branches."""
    (commands.folder / "mynets.py").write_text(UNORDERED, encoding="utf-8")
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    assert shell(*CUSTOM, "hydra.run.dir=run").code == 0
    assert shell(*CUSTOM, "epochs=2", "hydra.run.dir=run").code == 0
    monkeypatch.setenv("PYTHONHASHSEED", "2")
    result = shell(*CUSTOM, "epochs=3", "hydra.run.dir=run")
    assert result.code == 2
    assert (
        "model._target_=mynets.Net: its layers come in another order than in the run (branches." in result.err
    )
    command = [sys.executable, "-m", "bnexp.evaluate", "run", "--trust", "mynets.Net"]
    process = subprocess.run(command, cwd=commands.folder, capture_output=True, text=True, timeout=240)
    assert (process.returncode, process.stdout) == (2, "")
    assert "its layers come in another order than in the run" in process.stderr


def test_resume_refuses_an_edited_network(commands, write_net):
    write_net("ReLU")
    assert commands.bnexp(*CUSTOM, "hydra.run.dir=run").code == 0
    write_net("Tanh")
    result = commands.bnexp(*CUSTOM, "epochs=2", "hydra.run.dir=run")
    assert result.code == 2
    assert (
        "the file of model._target_=mynets.Net, or one that it imports, has changed since this run"
        in result.err
    )
    assert len(result.err.splitlines()) == 1
