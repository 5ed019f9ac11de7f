"""One sweep of four short runs, trained once for all tests of this folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bnexp.data.datasets import load_dataset

QUICK = ("epochs=2", "dataset.train_size=200", "dataset.test_size=100", "tracking.tensorboard=false")


def train(folder: Path, *arguments: str) -> None:
    """Runs ``bnexp`` in a process of its own."""
    command = [sys.executable, "-m", "bnexp.train", *QUICK, *arguments]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert process.returncode == 0, process.stderr


@pytest.fixture(scope="session")
def sweep(tmp_path_factory) -> Path:
    """Its mean and std are computed from the training images, and images are resized."""
    folder = tmp_path_factory.mktemp("trained")
    train(
        folder, "-m", "model.norm=none,batch", "seed=0,1", "dataset.mean=auto", "dataset.std=auto",
        "dataset.resize=20", "hydra.sweep.dir=norms",
    )  # fmt: skip
    return folder / "norms"


@pytest.fixture
def run_folder(sweep) -> Path:
    (folder,) = sweep.glob("model.norm=batch,seed=0-*")
    return folder


@pytest.fixture
def digits(tmp_path) -> list[Path]:
    """Eight test images as files."""
    paths = []
    for number, pixels in enumerate(load_dataset("digits", None, None).test.pixels[:8].numpy()):
        path = tmp_path / f"digit{number}.png"
        Image.fromarray(np.ascontiguousarray(pixels[0])).save(path)
        paths.append(path)
    return paths
