"""The folders of the package form layers: a folder imports only from lower layers."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "bnexp"
LAYERS = [
    ["errors", "seeding", "conf"],
    ["files", "signals"],
    ["runs"],
    ["config"],
    ["compute", "report"],
    ["data"],
    ["cli"],
    ["models"],
    ["probes"],
    ["training"],
    ["sweeps", "descent", "results"],
    ["hydra_entry"],
    ["train", "evaluate", "compare", "plan", "watch", "list_results", "descend"],
    ["resume"],
    ["__main__"],
]
LAYER = {folder: number for number, folders in enumerate(LAYERS) for folder in folders}
USES_HYDRA = {"cli", "sweeps", "hydra_entry", "evaluate", "plan", "resume", "descend", "results"}
IMPORTED_LATE = {"torch", "torchvision", "scipy", "matplotlib", "jinja2"}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def folder_of(path: Path) -> str:
    """The folder directly below the package, or the name of a file directly below it."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(path: Path):
    """Every module that a file imports, also inside of functions."""
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
def test_a_folder_imports_only_from_lower_layers(path):
    folder = folder_of(path)
    assert folder in LAYER, f"{folder} needs a layer in LAYERS"
    for name in imported_modules(path):
        imported = name.split(".")[1] if name.startswith("bnexp.") else None
        if imported in LAYER and imported != folder:
            assert LAYER[imported] < LAYER[folder], f"{folder} (layer {LAYER[folder]}) imports {imported}"


def test_imports_have_no_cycle():
    visited: list[Path] = []

    def visit(path: Path, importers: tuple[Path, ...]) -> None:
        assert path not in importers, " -> ".join(map(name_of, (*importers, path)))
        if path not in visited:
            for imported in sorted(imported_files(path)):
                visit(imported, (*importers, path))
            visited.append(path)

    for path in FILES:
        visit(path, ())
    assert len(visited) == len(FILES)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_command_line_imports_hydra(path):
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
        "bnexp.watch,bnexp.list_results",
        "bnexp.descend",
    ],
)
def test_commands_start_without_torch(names):
    code = f"import sys, {names}; print({IMPORTED_LATE} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "set()"


@pytest.mark.parametrize("path", [path for path in FILES if folder_of(path) == "report"], ids=name_of)
def test_the_report_needs_no_torch(path):
    assert not {name.split(".")[0] for name in imported_modules(path)} & {"torch", "torchvision", "pandas"}


RENDERERS = {path for path in FILES if path.parent == PACKAGE / "report" / "render"}


@pytest.mark.parametrize("path", sorted(RENDERERS), ids=name_of)
def test_renderers_of_the_report_import_nothing_from_each_other(path):
    """Content that two renderers need belongs in report/content."""
    assert not imported_files(path) & RENDERERS


def test_every_folder_is_a_package_of_the_wheel():
    """A folder that is missing there works in a clone and fails for everybody who installs bnexp."""
    root = PACKAGE.parent
    listed = re.search(r"^packages = \[\n(.*?)\n\]", (root / "pyproject.toml").read_text(), re.S | re.M)[1]
    folders = {path.parent.relative_to(root) for path in PACKAGE.rglob("*.py")}
    folders |= {"bnexp" / path.parent.relative_to(root) for path in (root / "conf").rglob("*.yaml")}
    names = {".".join(folder.parts) for folder in folders}
    assert set(re.findall(r'"([\w.]+)"', listed)) == names | {"hydra_plugins.bnexp"}
