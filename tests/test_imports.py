"""The folders of the package are floors of a house: a folder imports only from floors below its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "bnexp"
FLOORS = [
    ["errors", "seeding", "conf"],
    ["files", "signals"],
    ["runs"],
    ["config"],
    ["compute", "report"],
    ["cli", "data"],
    ["models"],
    ["training"],
    ["sweeps"],
    ["train", "evaluate", "compare", "plan"],
    ["resume"],
]
FLOOR = {folder: number for number, folders in enumerate(FLOORS) for folder in folders}
USES_HYDRA = {"cli", "sweeps", "train", "evaluate", "plan", "resume"}
IMPORTED_LATE = {"torch", "torchvision", "scipy", "matplotlib", "jinja2"}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def folder_of(path: Path) -> str:
    """The folder directly below the package, or the name of a file that lies there."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(path: Path):
    """Every module a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_files(path: Path) -> set[Path]:
    """The files of the package that a file imports."""
    names = (name for name in imported_modules(path) if name.startswith("bnexp."))
    candidates = {PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in names}
    return candidates & set(FILES)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_folder_imports_only_from_lower_floors(path):
    own = folder_of(path)
    assert own in FLOOR, f"give {own} a floor"
    for name in imported_modules(path):
        other = name.split(".")[1] if name.startswith("bnexp.") else None
        if other in FLOOR and other != own:
            assert FLOOR[other] < FLOOR[own], f"{own} (floor {FLOOR[own]}) imports {other}"


def test_no_two_files_import_each_other_even_through_others():
    order: list[Path] = []

    def visit(path: Path, above: tuple[Path, ...]) -> None:
        assert path not in above, " -> ".join(map(name_of, (*above, path)))
        if path not in order:
            for other in sorted(imported_files(path)):
                visit(other, (*above, path))
            order.append(path)

    for path in FILES:
        visit(path, ())
    assert len(order) == len(FILES)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_hydra_is_imported_by_the_command_line_alone(path):
    if folder_of(path) not in USES_HYDRA:
        assert not {name.split(".")[0] for name in imported_modules(path)} & {"hydra", "omegaconf"}


@pytest.mark.parametrize(
    "names",
    [
        "bnexp.train",
        "bnexp.evaluate",
        "bnexp.plan,bnexp.resume",
        "bnexp.sweeps.sweep,bnexp.config.schema,bnexp.runs.folder",
        "bnexp.compare",
    ],
)
def test_commands_start_without_torch(names):
    code = f"import sys, {names}; print({IMPORTED_LATE} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("path", [path for path in FILES if folder_of(path) == "report"], ids=name_of)
def test_the_report_needs_no_torch(path):
    assert not {name.split(".")[0] for name in imported_modules(path)} & {"torch", "torchvision", "pandas"}
