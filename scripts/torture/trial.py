"""One trial of a fault: a folder of its own, commands in new processes, and checks of what they leave."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnexp.training.checkpoint import load
from helpers.records import record

COMMANDS = {"bnexp": "train", "bnexp-resume": "resume", "bnexp-eval": "evaluate"}
TIMEOUT = 240  # seconds for one command, on a busy machine
# A short run with everything that a run saves: noise, augmentation, moments, a schedule, histograms.
RUN = (
    "model=mlp_bn", "model.hidden=[16]", "model.dropout=0.2", "dataset.augment=[crop]", "optimizer=adam",
    "scheduler=plateau", "scheduler.patience=0", "tracking.every=4", "tracking.histograms=true",
    "dataset.train_size=300", "dataset.test_size=100", "batch_size=50", "device.threads=1", "epochs=12",
)  # fmt: skip
RUN_EPOCHS = 12


class TrialFailed(Exception):
    """What did not survive the fault; ``cases`` is how many of the trial's cases failed."""

    def __init__(self, message: str, cases: int = 1) -> None:
        super().__init__(message)
        self.cases = cases


class TrialSkipped(Exception):
    """Why this fault cannot be tried on this machine."""


def require(condition: object, message: str) -> None:
    if not condition:
        raise TrialFailed(message)


@dataclass(frozen=True)
class CommandResult:
    code: int
    out: str
    err: str

    def require_one_line(self, code: int, text: str) -> None:
        """Requires this exit code, and one line on standard error with this text; no traceback anywhere."""
        actual = f"exit code {self.code}: {self.err[-800:]!r}"
        require(self.code == code, f"expected exit code {code}, got {actual}")
        require(len(self.err.strip().splitlines()) == 1, f"expected one line, got {actual}")
        require("Traceback" not in self.out + self.err, f"a traceback: {actual}")
        require(text in self.err, f"expected {text!r}, got {actual}")


class Trial:
    """Runs commands in ``folder``. ``random`` depends on the fault's name and the trial's number alone."""

    def __init__(self, folder: Path, name: str, number: int) -> None:
        folder.mkdir(parents=True)
        self.folder, self.number, self.random = folder, number, random.Random(f"{name}/{number}")

    def start(
        self,
        *args: str,
        command: str = "bnexp",
        python_args: list[str] | None = None,
        env: dict[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Starts a command in a process group of its own. ``python_args`` replaces ``-m MODULE``."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [sys.executable, *(python_args or ["-m", f"bnexp.{COMMANDS[command]}"]), *args],
            cwd=self.folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | (env or {}),
            text=True,
            start_new_session=True,
            **(pipes | options),
        )

    def finish(self, process: subprocess.Popen[str], timeout: float = TIMEOUT) -> CommandResult:
        """Waits for the end of the process."""
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise TrialFailed(f"the process did not end within {timeout} s") from None
        return CommandResult(process.returncode, out or "", err or "")

    def run(self, *args: str, **options: Any) -> CommandResult:
        return self.finish(self.start(*args, **options))

    def run_successfully(self, *args: str, **options: Any) -> CommandResult:
        result = self.run(*args, **options)
        output = (result.err or result.out)[-800:]
        require(result.code == 0, f"{' '.join(args)}: exit code {result.code}: {output}")
        return result

    def wait_until(self, condition: Callable[[], object], process: subprocess.Popen[str]) -> bool:
        """Waits for the condition; False if the process ended first."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            if condition():
                return True
            if process.poll() is not None:
                return False
            time.sleep(0.002)
        raise TrialFailed(f"the process did not come far enough within {TIMEOUT} s")

    def kill(self, process: subprocess.Popen[str]) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def has_epoch(self, run: str = "run") -> bool:
        """Whether a run in a folder that matches this pattern has recorded an epoch."""
        files = self.folder.glob(f"{run}/metrics.csv")
        return any(len(file.read_text().splitlines()) > 1 for file in files if file.exists())

    def read_status(self, run: str = "run") -> str | None:
        try:
            return json.loads((self.folder / run / "summary.json").read_text())["status"]
        except (OSError, ValueError):
            return None

    def sweep_runs(self) -> list[str]:
        """The folders of the sweep's runs, relative to the trial's folder."""
        paths = self.folder.glob("sweep/*/summary.json")
        return sorted(str(path.parent.relative_to(self.folder)) for path in paths)

    def require_whole_checkpoints(self, run: str = "run") -> None:
        """Loads every file with the name of a checkpoint; temporary files begin with a dot."""
        for path in (self.folder / run / "checkpoints").glob("[!.]*.pt"):
            load(path)

    def require_same_record(self, reference: Path, run: str = "run") -> None:
        """Requires that the run has the reference's record, bit for bit."""
        actual, expected = record(self.folder / run), record(reference)
        different = [key for key in expected if actual[key] != expected[key]]
        require(not different, f"{run}: other {', '.join(different)}")
