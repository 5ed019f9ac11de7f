"""What the tests share: the commands as a user meets them, each in an empty folder."""

from __future__ import annotations

import json
import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # xdist's workers share the cores; threads that wait would spin
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from bnexp import compare, evaluate, plan, resume, train

# What a shell starts in the background ignores Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


class Commands:
    """Runs bnexp and bnexp-eval in this process, in a folder that starts empty."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self._monkeypatch, self._capfd = folder, monkeypatch, capfd
        monkeypatch.chdir(folder)

    def bnexp(self, *words: str) -> Done:
        return self._run(train.main, "bnexp", words)

    def eval(self, *words: str) -> Done:
        return self._run(evaluate.main, "bnexp-eval", words)

    def compare(self, *words: str) -> Done:
        return self._run(compare.main, "bnexp-compare", words)

    def plan(self, *words: str) -> Done:
        return self._run(plan.main, "bnexp-plan", words)

    def resume(self, *words: str) -> Done:
        return self._run(resume.main, "bnexp-resume", words)

    def _run(self, main, name: str, words: tuple[str, ...]) -> Done:
        self._capfd.readouterr()
        HydraConfig.instance().cfg = None  # as in a fresh process: a sweep leaves its own behind
        OmegaConf.clear_resolver("hydra")
        self._monkeypatch.setattr(sys, "argv", [name, *words])
        with pytest.raises(SystemExit) as caught:
            main()
        for handler in list(logging.getLogger().handlers):
            if type(handler) in (logging.FileHandler, logging.StreamHandler):
                logging.getLogger().removeHandler(handler)
                handler.close()
        out, err = self._capfd.readouterr()
        return Done(caught.value.code or 0, out, err)

    def runs(self) -> list[Path]:
        """The folders of all runs so far, oldest first."""
        found = [path.parent for path in self.folder.rglob("summary.json")]
        return sorted(found, key=lambda path: path.stat().st_ctime)

    def summary(self) -> dict:
        """The newest run's."""
        return json.loads((self.runs()[-1] / "summary.json").read_text())


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> Commands:
    return Commands(tmp_path, monkeypatch, capfd)


@pytest.fixture
def shell(tmp_path: Path):
    """Runs ``python -m bnexp.train`` in a process of its own."""

    def run(*words: str, timeout: float = 240, **env: str) -> Done:
        environment = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"} | env
        command = [sys.executable, "-m", "bnexp.train", *words]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=timeout, env=environment
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def data_dir() -> str:
    """The folder of the real data sets; a test that needs it is skipped without."""
    folder = os.environ.get("BNEXP_DATA_DIR")
    if not folder:
        pytest.skip("BNEXP_DATA_DIR names no folder with the real data sets")
    return folder


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    """Puts torch's global switches back."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
