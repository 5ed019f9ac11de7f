"""What the tests share: the command line as a user meets it, in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


class Shell:
    """Runs the commands in an empty folder, in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: str, env: dict[str, str] | None = None, timeout: float = 240):
        environment = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}
        command = [sys.executable, "-m", "bnexp.train", *words]
        return subprocess.run(
            command,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment | (env or {}),
        )

    def run_folder(self) -> Path:
        (summary,) = self.folder.glob("outputs/*/*/summary.json")
        return summary.parent

    def summary(self) -> dict:
        return json.loads((self.run_folder() / "summary.json").read_text())


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def data_dir() -> str:
    """The folder of the real data sets; a test that needs it is skipped without."""
    folder = os.environ.get("BNEXP_DATA_DIR")
    if not folder:
        pytest.skip("BNEXP_DATA_DIR names no folder with the real data sets")
    return folder
