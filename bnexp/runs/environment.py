"""environment.json: the versions, the machine, the git state and the command of a run."""

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


def describe_environment() -> dict[str, Any]:
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
    """None outside of a git checkout, and where git is not installed."""

    def git(*arguments: str) -> str:
        output = subprocess.run(["git", *arguments], capture_output=True, timeout=10, check=True).stdout
        return output.decode("utf-8", "replace").strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def read_environment(path: Path) -> dict[str, Any]:
    """The environment.json of the run in folder ``path``; empty where it is missing or damaged."""
    try:
        environment = json.loads((path / ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return environment if isinstance(environment, dict) else {}


def recorded_threads(path: Path) -> int | None:
    """The CPU threads with which the run in folder ``path`` began; None if this machine has fewer.

    Another number of threads would change the last bits of the run's results.
    """
    try:
        environment = read_environment(path)
        first_environment = (environment.get("earlier") or [environment])[0]
        threads = first_environment.get("threads")
    except (AttributeError, TypeError, LookupError):  # a file that bnexp did not write
        return None
    return threads if isinstance(threads, int) and 1 <= threads <= (os.cpu_count() or 1) else None
