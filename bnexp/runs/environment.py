"""The environment that a run records: versions, machine, git state, threads."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

ENVIRONMENT = "environment.json"
PACKAGES = ("bnexp", "torch", "torchvision", "numpy", "hydra-core", "omegaconf", "tensorboard")


def environment() -> dict[str, Any]:
    """Versions, machine, git state of the current folder, and the command."""
    return {
        "command": shlex.join(sys.argv),
        "folder": os.getcwd(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": platform.node(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "git": _git_state(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def read_environment(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / ENVIRONMENT).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def recorded_threads(path: Path) -> int | None:
    """The CPU threads that a run began with, as far as this machine has them: others change the last bits."""
    try:
        before = read_environment(path)
        threads = (before.get("earlier") or [before])[0].get("threads")
    except (AttributeError, TypeError, LookupError):  # not what bnexp writes
        return None
    return threads if isinstance(threads, int) and 1 <= threads <= (os.cpu_count() or 1) else None
