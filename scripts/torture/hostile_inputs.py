"""Folders, streams and images that a user really has: foreign files, closed pipes, links, changed data."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from limits import SMALL
from PIL import Image
from trial import Trial, require

IMAGES = (
    "dataset=image_folder",
    "dataset.root=images",
    "model=mlp",
    "epochs=2",
    "batch_size=8",
    "device.threads=1",
)
FOREIGN_FILES = (
    "metrics.csv", "checkpoints/last.pt", "report.html", "notes/thesis.tex", ".hydra/config.yaml",
    "summary.json", "steps.csv", "train.log", "environment.json", "comparison.csv",
)  # fmt: skip
NET = """
import random
import numpy as np
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__()
        self.linear = nn.Linear(in_channels * image_size**2, num_classes)

    def forward(self, images):
        scale = 1 + 0.1 * (random.random() + np.random.rand() + torch.rand(()))
        return self.linear(images.flatten(1)) * scale
"""


def foreign_folder(trial: Trial) -> None:
    """A folder with somebody else's files is refused, by a run and by a sweep, and stays as it is."""
    folder = trial.folder / "foreign"
    for name in trial.random.sample(FOREIGN_FILES, trial.random.randint(1, 5)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(trial.random.randbytes(trial.random.randint(1, 500)))
    contents = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    is_sweep = trial.number % 2
    args = ("-m", "seed=0,1", "hydra.sweep.dir=foreign") if is_sweep else ("hydra.run.dir=foreign",)
    if trial.number % 3 == 2:
        args = (*args, "epochs=0")  # a typo: what was created must go, and nothing else
    result = trial.run(*args, *(SMALL if "epochs=0" not in args else ()))
    require(result.code == 2, f"exit code {result.code}: {result.err[-500:]}")
    require("Traceback" not in result.err, result.err[-500:])
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    require(after == contents, f"changed: {set(after) ^ set(contents) or 'contents'}")


def closed_streams(trial: Trial) -> None:
    """A closed or full output and a locale without umlauts cost no result."""
    folder = trial.folder / "größe"
    folder.mkdir()
    command = "'{python}' -m bnexp.train -m model=mlp,mlp_bn seed=0,1 {args} hydra.sweep.dir=sweep"
    redirections = (" >&-", " 2>&-", " >/dev/full", " 2>/dev/full", " | head -n 1", " >&- 2>&-")
    shell = command + redirections[trial.number % len(redirections)]
    text = shell.format(python=sys.executable, args=" ".join(SMALL))
    env = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    start = "import os, sys; os.chdir(sys.argv[1]); os.execvp('sh', ['sh', '-c', sys.argv[2]])"
    trial.run("größe", text, python_args=["-c", start], env=env)
    statuses = [json.loads(path.read_text())["status"] for path in folder.glob("sweep/*/summary.json")]
    require(statuses == ["finished"] * 4, f"statuses {statuses}")
    require((folder / "sweep/report.html").exists(), "no report")
    require(json.loads((folder / "sweep/comparison.json").read_text())["comparisons"], "no comparison")


def write_images(trial: Trial, per_class: int = 12) -> Path:
    root = trial.folder / "images"
    rng = np.random.default_rng(trial.number)
    for name, level in (("cat", 60), ("dog", 180)):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = np.clip(rng.normal(level, 40, (8, 8)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def changed_data(trial: Trial) -> None:
    """After any change of the images a run is not resumed, and a sweep trains anew."""
    root = write_images(trial)
    trial.run_successfully(*IMAGES, "hydra.run.dir=run")
    sweep = ("-m", "seed=0,1", *IMAGES, "hydra.sweep.dir=sweep")
    trial.run_successfully(*sweep)
    first, second = root / "cat/0.png", root / "dog/1.png"
    changes: tuple[Callable[[], object], ...] = (
        lambda: shutil.copy(first, root / "cat/more.png"),
        first.unlink,
        lambda: first.write_bytes(second.read_bytes()),
        lambda: first.rename(root / "cat/other.png"),
        lambda: first.rename(root / "dog/0b.png"),
    )
    changes[trial.number % len(changes)]()
    trial.run("run", "epochs=4", command="bnexp-resume").require_one_line(2, "no longer those of this run")
    result = trial.run_successfully(*sweep)
    require("skipped" not in result.out, "a job on the old images counts as done")
    require(len(trial.sweep_runs()) == 4, f"runs: {trial.sweep_runs()}")


def strange_folders(trial: Trial) -> None:
    """Hidden and system folders, links to a parent, a FIFO: the images are those of the classes, once."""
    root = write_images(trial)
    places = [root / "cat", root / "dog", root / "cat/deep"]
    places[2].mkdir()
    for place in places:
        for name in trial.random.sample([".ipynb_checkpoints", ".thumbnails", "@eaDir", "__MACOSX"], 2):
            shutil.copytree(root / "cat", place / name, dirs_exist_ok=True, ignore=lambda _, names: [
                name for name in names if not name.endswith(".png")
            ])  # fmt: skip
    os.symlink(root, places[trial.random.randrange(3)] / "parent")
    os.symlink(root / "dog", root / "cat/loop")
    os.mkfifo(places[trial.random.randrange(3)] / "pipe.png")
    trial.run_successfully(*IMAGES, "hydra.run.dir=run")
    images = json.loads((trial.folder / "run/summary.json").read_text())["images"]
    require(sum(images.values()) == 24, f"images: {images}")


def other_generators(trial: Trial) -> None:
    """A network that draws from random and np.random gives the same numbers, also after a stop."""
    (trial.folder / "own.py").write_text(NET)
    args = (*SMALL, "model=custom", "model._target_=own.Net", "epochs=6", "tracking.every=2", "batch_size=10")
    for name in ("first", "second"):
        trial.run_successfully(*args, f"hydra.run.dir={name}")
    trial.require_same_record(trial.folder / "first", "second")
    process = trial.start(*args, "hydra.run.dir=run")
    if trial.wait_until(trial.has_epoch, process):
        process.terminate()
    trial.finish(process)
    result = trial.run(
        "run", "--trust", "model._target_=own.Net", "--trust", "own.Net", command="bnexp-resume"
    )
    require(result.code == 0, result.err[-500:])
    trial.require_same_record(trial.folder / "first")
