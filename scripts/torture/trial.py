"""One trial of a fault: a folder of its own, commands in fresh processes, and what must hold afterwards."""

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
PATIENCE = 240  # seconds that a command may take on a busy machine
# Short, and yet all that a run carries along: noise, augmentation, moments, a schedule, histograms.
RUN = (
    "model=mlp_bn", "model.hidden=[16]", "model.dropout=0.2", "dataset.augment=[crop]", "optimizer=adam",
    "scheduler=plateau", "scheduler.patience=0", "tracking.every=4", "tracking.histograms=true",
    "dataset.train_size=300", "dataset.test_size=100", "batch_size=50", "device.threads=1", "epochs=12",
)  # fmt: skip


class Lost(Exception):
    """What did not survive."""


class Skip(Exception):
    """Why this fault cannot be tried on this machine."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def one_line(self, *codes: int, naming: str = "") -> None:
        """Holds it to the promise: one of these exit codes, one line that names the fault, no traceback."""
        shown = f"exit {self.code}: {self.err[-800:]!r}"
        require(self.code in codes, f"exit {codes} expected, found {shown}")
        require(len(self.err.strip().splitlines()) == 1, f"one line expected, found {shown}")
        require("Traceback" not in self.out + self.err, f"a traceback: {shown}")
        require(naming in self.err, f"{naming!r} expected, found {shown}")


def require(holds: object, otherwise: str) -> None:
    if not holds:
        raise Lost(otherwise)


class Trial:
    """Commands run in ``folder``; ``random`` is a function of the fault and the trial's number."""

    def __init__(self, folder: Path, name: str, number: int) -> None:
        folder.mkdir(parents=True)
        self.folder, self.number, self.random = folder, number, random.Random(f"{name}/{number}")

    def start(self, *words: str, command: str = "bnexp", **keys: Any) -> subprocess.Popen[str]:
        """Begins a command in a process group of its own."""
        given = {"OMP_NUM_THREADS": "1"} | keys.pop("env", {})
        argv = keys.pop("argv", None) or ["-m", f"bnexp.{COMMANDS[command]}"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [sys.executable, *argv, *words], cwd=self.folder, env=os.environ | given, text=True,
            start_new_session=True, **(pipes | keys),
        )  # fmt: skip

    def end(self, process: subprocess.Popen[str], timeout: float = PATIENCE) -> Done:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise Lost(f"still there after {timeout} s") from None
        return Done(process.returncode, out or "", err or "")

    def run(self, *words: str, **keys: Any) -> Done:
        return self.end(self.start(*words, **keys))

    def well(self, *words: str, **keys: Any) -> Done:
        """Runs a command that must succeed."""
        done = self.run(*words, **keys)
        require(done.code == 0, f"{' '.join(words)}: exit {done.code}: {(done.err or done.out)[-800:]}")
        return done

    def wait(self, process: subprocess.Popen[str], sign: Callable[[], object]) -> bool:
        """Until ``sign`` is there; False where the process ended first."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if sign():
                return True
            if process.poll() is not None:
                return False
            time.sleep(0.002)
        raise Lost("it never came so far")

    def rows(self, run: str = "run", count: int = 1) -> Callable[[], bool]:
        """Whether any run there has recorded so many epochs."""

        def there() -> bool:
            files = self.folder.glob(f"{run}/metrics.csv")
            return any(len(file.read_text().splitlines()) > count for file in files if file.exists())

        return there

    def status(self, run: str = "run") -> str | None:
        try:
            return json.loads((self.folder / run / "summary.json").read_text())["status"]
        except (OSError, ValueError):
            return None

    def kill(self, process: subprocess.Popen[str]) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def readable(self, run: str = "run") -> None:
        """Whatever lies under a checkpoint's name is a whole checkpoint."""
        for path in (self.folder / run / "checkpoints").glob("[!.]*.pt"):
            load(path)

    def same(self, reference: Path, run: str = "run") -> None:
        """The run's record is the reference's, to the bit."""
        found, wanted = record(self.folder / run), record(reference)
        differing = [key for key in wanted if found[key] != wanted[key]]
        require(not differing, f"{run}: other {', '.join(differing)}")
