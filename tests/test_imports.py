"""A room stands above all that it imports, and rooms on one floor don't know each other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "bnexp"
FLOORS = [
    ["errors", "files", "seeding", "eager", "stop", "progress", "conf"],
    ["checks", "runs", "helptext", "events", "trust", "launchers", "torchrun"],
    ["workers", "config", "checkpoint", "processes", "losses", "tracking", "report", "cli"],
    ["device", "data", "norms", "parts"],
    ["steps", "sweep"],
    ["graphs"],
    ["engine", "models"],
    ["build"],
    ["train", "evaluate", "compare", "plan"],
    ["resume", "door"],
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
HYDRA = {"cli", "launchers", "train", "evaluate", "sweep", "plan", "resume"}
LATE = {"torch", "torchvision", "scipy", "matplotlib", "jinja2"}


def modules():
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported(path: Path):
    """Every module a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module == "bnexp":
                yield from (f"bnexp.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    here = room(path)
    assert here in FLOOR, f"give {here} a floor"
    for name in imported(path):
        there = name.split(".")[1] if name.startswith("bnexp.") else None
        if there in FLOOR and there != here:
            assert FLOOR[there] < FLOOR[here], f"{here} (floor {FLOOR[here]}) imports {there}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_hydra_stays_at_the_door(path):
    if room(path) not in HYDRA:
        assert not {name.split(".")[0] for name in imported(path)} & {"hydra", "omegaconf"}


@pytest.mark.parametrize(
    "names",
    [
        "bnexp.train",
        "bnexp.evaluate",
        "bnexp.plan,bnexp.resume",
        "bnexp.sweep,bnexp.config,bnexp.runs",
        "bnexp.compare",
    ],
)
def test_the_door_opens_without_torch(names):
    code = f"import sys, {names}; print({LATE} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("path", sorted((ROOT / "report").glob("*.py")), ids=lambda path: path.stem)
def test_the_report_needs_no_torch(path):
    assert not {name.split(".")[0] for name in imported(path)} & {"torch", "torchvision", "pandas"}
