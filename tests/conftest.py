"""Fixtures of all tests: the commands as a user runs them, each test in an empty folder."""

from __future__ import annotations

import json
import logging
import os

# The workers of pytest-xdist share the cores, and idle OpenMP threads spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")
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

from bnexp import compare, descend, evaluate, list_results, plan, resume, train, watch
from bnexp.cli import composed_config
from bnexp.sweeps.launchers import local

# A process that a shell starts in the background ignores Ctrl-C, and its child processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it


@dataclass(frozen=True)
class CommandResult:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


class Commands:
    """Runs the commands of bnexp in this process, in a folder that is empty at first."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self._monkeypatch, self._capfd = folder, monkeypatch, capfd
        monkeypatch.chdir(folder)

    def bnexp(self, *arguments: str) -> CommandResult:
        return self._run(train.main, "bnexp", arguments)

    def eval(self, *arguments: str) -> CommandResult:
        return self._run(evaluate.main, "bnexp-eval", arguments)

    def compare(self, *arguments: str) -> CommandResult:
        return self._run(compare.main, "bnexp-compare", arguments)

    def plan(self, *arguments: str) -> CommandResult:
        return self._run(plan.main, "bnexp-plan", arguments)

    def resume(self, *arguments: str) -> CommandResult:
        return self._run(resume.main, "bnexp-resume", arguments)

    def descend(self, *arguments: str) -> CommandResult:
        return self._run(descend.main, "bnexp-descend", arguments)

    def watch(self, *arguments: str) -> CommandResult:
        return self._run(watch.main, "bnexp-watch", arguments)

    def list(self, *arguments: str) -> CommandResult:
        return self._run(list_results.main, "bnexp-list", arguments)

    def _run(self, main, name: str, arguments: tuple[str, ...]) -> CommandResult:
        self._capfd.readouterr()
        HydraConfig.instance().cfg = None  # as in a new process: a sweep leaves its configuration there
        OmegaConf.clear_resolver("hydra")
        composed_config.images_at_start.cache_clear()
        self._monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as exit_info:
            main()
        for handler in list(logging.getLogger().handlers):
            if type(handler) in (logging.FileHandler, logging.StreamHandler):
                logging.getLogger().removeHandler(handler)
                handler.close()
        out, err = self._capfd.readouterr()
        return CommandResult(exit_info.value.code or 0, out, err)

    def runs(self) -> list[Path]:
        """The folders of all runs so far, oldest first."""
        runs = [path.parent for path in self.folder.rglob("summary.json")]
        return sorted(runs, key=lambda path: path.stat().st_ctime)

    def summary(self) -> dict:
        """The summary of the newest run."""
        return json.loads((self.runs()[-1] / "summary.json").read_text())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Captured names of files that are no UTF-8 text: xdist cannot send them to its main process."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without pictures: drawing takes more time than the training of most tests."""
    monkeypatch.setattr("bnexp.report.plots.pictures.draw_pictures", lambda verdict: [])


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps train in this process, unless hydra.launcher.jobs says otherwise."""
    monkeypatch.setattr(local, "cores", lambda: 1)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd, no_workers, request) -> Commands:
    """Sweeps start no workers. Only tests marked ``pictures`` draw the pictures of reports."""
    if request.node.get_closest_marker("pictures") is None:
        request.getfixturevalue("no_pictures")
    return Commands(tmp_path, monkeypatch, capfd)


@pytest.fixture
def shell(tmp_path: Path):
    """Runs ``python -m bnexp.train`` in a process of its own."""

    def run(*arguments: str, timeout: float = 240, **env: str) -> CommandResult:
        environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"} | env
        command = [sys.executable, "-m", "bnexp.train", *arguments]
        process = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=timeout, env=environment
        )
        return CommandResult(process.returncode, process.stdout, process.stderr)

    return run


@pytest.fixture
def data_dir() -> str:
    """The folder of the real data sets. Without it, a test that uses this fixture is skipped."""
    folder = os.environ.get("BNEXP_DATA_DIR")
    if not folder:
        pytest.skip("BNEXP_DATA_DIR names no folder with the real data sets")
    return folder


@pytest.fixture(autouse=True)
def restore_torch_settings() -> Iterator[None]:
    """Restores torch's global settings after each test."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(autouse=True)
def remove_modules_of_the_test(tmp_path_factory) -> Iterator[None]:
    """Removes the modules that a test imported from its folder, as a later test may write others."""
    names_before = set(sys.modules)
    yield
    for name in sys.modules.keys() - names_before:
        file = vars(sys.modules[name]).get("__file__") or ""
        if file.startswith(str(tmp_path_factory.getbasetemp())):
            del sys.modules[name]
