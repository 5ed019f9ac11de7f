"""The folders of the package form layers: a folder imports only from lower layers."""

import ast
import re
import subprocess
import sys
from functools import cache
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


@cache
def imported_modules(path: Path) -> list[str]:
    """Every module that a file imports, also inside of functions."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def imported_packages(path: Path) -> set[str]:
    """The outermost names of these modules."""
    return {name.partition(".")[0] for name in imported_modules(path)}


def imported_files(path: Path) -> set[Path]:
    """The files of the package that a file imports."""
    names = (name for name in imported_modules(path) if name.startswith("bnexp."))
    candidates = {PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in names}
    return candidates & set(FILES)


def test_a_folder_imports_only_from_lower_layers():
    assert {folder_of(path) for path in FILES} <= LAYER.keys(), "a folder needs a layer in LAYERS"
    wrong_imports = [
        f"{name_of(path)} (layer {LAYER[folder_of(path)]}) imports {name} (layer {LAYER[imported]})"
        for path in FILES
        for name in imported_modules(path)
        if name.startswith("bnexp.")
        and (imported := name.split(".")[1]) in LAYER
        and imported != folder_of(path)
        and LAYER[imported] >= LAYER[folder_of(path)]
    ]
    assert wrong_imports == []


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


def test_only_the_command_line_imports_hydra():
    others = [path for path in FILES if folder_of(path) not in USES_HYDRA]
    assert [name_of(path) for path in others if imported_packages(path) & {"hydra", "omegaconf"}] == []


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


def test_the_report_needs_no_torch():
    report = [path for path in FILES if folder_of(path) == "report"]
    slow_packages = {"torch", "torchvision", "pandas"}
    assert [name_of(path) for path in report if imported_packages(path) & slow_packages] == []


def test_renderers_of_the_report_import_nothing_from_each_other():
    """Content that two renderers need belongs in report/content."""
    renderers = {path for path in FILES if path.parent == PACKAGE / "report" / "render"}
    assert len(renderers) > 1
    assert [name_of(path) for path in renderers if imported_files(path) & renderers] == []


def test_every_folder_is_a_package_of_the_wheel():
    """A folder that is missing there works in a clone and fails for everybody who installs bnexp."""
    root = PACKAGE.parent
    listed = re.search(r"^packages = \[\n(.*?)\n\]", (root / "pyproject.toml").read_text(), re.S | re.M)[1]
    folders = {path.parent.relative_to(root) for path in PACKAGE.rglob("*.py")}
    folders |= {"bnexp" / path.parent.relative_to(root) for path in (root / "conf").rglob("*.yaml")}
    names = {".".join(folder.parts) for folder in folders}
    assert set(re.findall(r'"([\w.]+)"', listed)) == names | {"hydra_plugins.bnexp"}
