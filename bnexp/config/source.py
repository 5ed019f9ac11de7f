"""Which code a custom ``_target_`` stands for: a fingerprint of its source files."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from bnexp.errors import UserError

DIGITS = 16  # hexadecimal, of the fingerprint
VERSIONED_PACKAGES = ("bnexp", "torch", "torchvision")  # their versions are in environment.json
INSTALLED = ("site-packages", "dist-packages")
# Functions that import a module by a text. A file with one of them may import each module that a text names.
IMPORTERS = {
    "__import__", "get_class", "get_object", "import_module", "instantiate", "locate", "run_path",
    "spec_from_file_location",
}  # fmt: skip


def source_fingerprint(target: str | None, values: object = None) -> str | None:
    """16 hexadecimal digits of the file that defines ``mynets.Net`` and of the user's files that it imports.

    These lie below the same top folder as the target's file; what they import counts too, as far as an import
    statement names it, or a text in a file that calls ``import_module`` or the like. There the texts
    in ``values``, the keys beside the target, may name modules too. Of an installed package only the target's
    own file counts. None for a target of bnexp or torch, and where the file cannot be found. No file is
    executed.
    """
    files = source_files(target, values)
    try:
        digests = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}
    except OSError:  # the run itself says what is wrong with the target
        return None
    if len(digests) < 2:
        return next((digest[:DIGITS] for digest in digests.values()), None)
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:DIGITS]


def check_code(values: Mapping[str, Any], fingerprints: Mapping[str, str]) -> None:
    """Raises UserError where the code of a target in ``values`` is no longer that of ``fingerprints``.

    Both are by group. Files that cannot be read now have no fingerprint, and are not compared.
    """
    for group, expected in fingerprints.items():
        keys = values[group]
        target = keys.get("_target_")  # images have none
        if source_fingerprint(target, keys) not in (None, expected):
            raise UserError(
                f"the file of {group}._target_={target}, or one that it imports, has changed since the"
                " command began"
            )


def is_own_target(target: str | None) -> bool:
    """Whether a target is in a module other than those of bnexp and torch."""
    module = (target or "").rpartition(".")[0]
    return bool(module) and module.partition(".")[0] not in VERSIONED_PACKAGES


def source_files(target: str | None, values: object = None) -> dict[str, Path]:
    """The files of ``source_fingerprint`` by the names of their modules; empty where it is None."""
    if not is_own_target(target):
        return {}
    module = str(target).rpartition(".")[0]
    search_current_folder()
    try:
        top = _top_folder(module)
        path = _module_file(top, module)
        if path is None:
            return {}
        is_installed = any(part in INSTALLED for part in top.parts)
        return {module: path} if is_installed else _with_imports(top, module, list(_texts_in(values)))
    except Exception:  # the run itself says what is wrong with the target
        return {}


def _top_folder(module: str) -> Path:
    """The folder of Python's search path that holds a module's outermost package, or the module itself."""
    spec = importlib.util.find_spec(module.partition(".")[0])  # of an outermost name: it executes nothing
    assert spec is not None
    if spec.submodule_search_locations is not None:
        return Path(next(iter(spec.submodule_search_locations))).parent
    assert spec.origin is not None
    return Path(spec.origin).parent


def _module_file(top: Path, module: str) -> Path | None:
    """The source file of a module below ``top``; None if it is not there."""
    path = top.joinpath(*module.split("."))
    candidates = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _with_imports(top: Path, module: str, values: list[str]) -> dict[str, Path]:
    """The files below ``top`` that run when ``module`` is imported or used, by the names of their modules."""
    files: dict[str, Path] = {}
    queue = [module]
    while queue:
        # An import of a.b.c runs a and a.b first.
        for name in accumulate(queue.pop().split("."), lambda parent, child: f"{parent}.{child}"):
            path = None if name in files else _module_file(top, name)
            if path is not None and name.partition(".")[0] not in VERSIONED_PACKAGES:
                files[name] = path
                tree = ast.parse(path.read_bytes())
                queue += _imported_names(name, path, tree)
                queue += _names_in_texts(top, name, path, tree, values)
    return files


def _names_in_texts(top: Path, module: str, path: Path, tree: ast.Module, values: list[str]) -> list[str]:
    """The modules below ``top`` that a file names in its texts, if it calls a function of ``IMPORTERS``.

    A text that names a package, as ``f"zoo.{name}"`` does, may mean each module in it.
    """
    nodes = list(ast.walk(tree))
    identifiers = {node.id for node in nodes if isinstance(node, ast.Name)}
    identifiers |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    identifiers |= {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    if IMPORTERS.isdisjoint(identifiers):
        return []
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = []
    for text in {*texts, *values}:
        name = text.removesuffix(".py").replace("/", ".").strip(".")
        for candidate in (name, f"{package}.{name}"):
            folder = top.joinpath(*candidate.split("."))
            if not all(part.isidentifier() for part in candidate.split(".")):
                continue
            names.append(candidate)
            if folder.is_dir():
                names += [f"{candidate}.{file.stem}" for file in sorted(folder.glob("*.py"))]
    return names


def _texts_in(values: object) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _texts_in(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts_in(value)


def _imported_names(module: str, path: Path, tree: ast.Module) -> Iterator[str]:
    """The modules that a file's import statements name. ``from a import b`` names a and perhaps a.b."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" if alias.name != "*" else base for alias in node.names)


def search_current_folder() -> None:
    """Lets an import search the current folder, last: it must not hide a package.

    A console script does not search it.
    """
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)
