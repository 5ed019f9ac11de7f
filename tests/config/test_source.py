"""The fingerprint of a custom target covers the user's files that it imports, and executes none of them."""

from __future__ import annotations

import sys

import pytest

from bnexp.config.source import source_fingerprint

FILES = {
    "mynets.py": "import torch\nfrom mylayers import Block\nimport zoo.heads as heads\n",
    "mylayers.py": "import myinit\nfrom json import loads\n",
    "myinit.py": "import mylayers\n",  # a circle
    "zoo/__init__.py": "raise SystemExit('executed')\n",
    "zoo/heads.py": "from . import tails\nfrom .deep.norms import *\n",
    "zoo/tails.py": "",
    "zoo/deep/norms.py": "from ..parent import x\n",
    "zoo/parent.py": "",
    "lazy.py": "",
    "other.py": "",
    "notes.txt": "",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.mark.parametrize("target", ["mynets.Net", "zoo.heads.Head"])
def test_an_edit_of_an_imported_file_changes_the_fingerprint(folder, target):
    imported = {name for name in FILES if name.startswith("zoo")}
    if target == "mynets.Net":
        imported |= {"mynets.py", "mylayers.py", "myinit.py"}
    original = source_fingerprint(target)
    assert original is not None
    for name, text in FILES.items():
        (folder / name).write_text(text + "\n# edited")
        assert (source_fingerprint(target) != original) == (name in imported), name
        (folder / name).write_text(text)
    assert source_fingerprint(target) == original
    assert not {"mynets", "mylayers", "zoo", "zoo.heads"} & set(sys.modules)


DYNAMIC = {
    "in a text": ("import importlib\nx = importlib.import_module('lazy')\n", {}),
    "by a registry": ("from importlib import import_module as load\nBLOCKS = {'lazy': 'lazy.Block'}\n", {}),
    "by a key": ("import importlib\nx = importlib.import_module\n", {"block": {"name": ["lazy.Block"]}}),
    "by a file": ("import runpy\nx = runpy.run_path('lazy.py')\n", {}),
}


@pytest.mark.parametrize("case", DYNAMIC)
def test_a_module_that_a_text_names_counts_where_the_code_imports_by_texts(folder, case):
    text, values = DYNAMIC[case]
    (folder / "mynets.py").write_text(text)
    original = source_fingerprint("mynets.Net", values)
    (folder / "other.py").write_text("x = 1\n")
    assert source_fingerprint("mynets.Net", values) == original
    (folder / "lazy.py").write_text("x = 1\n")
    assert source_fingerprint("mynets.Net", values) != original


def test_each_module_of_a_package_that_a_text_names_counts(folder):
    (folder / "mynets.py").write_text("import importlib\nx = importlib.import_module(f'zoo.{1}')\n")
    original = source_fingerprint("mynets.Net")
    (folder / "zoo/tails.py").write_text("x = 1\n")
    assert source_fingerprint("mynets.Net") != original


def test_a_text_alone_imports_nothing(folder):
    original = source_fingerprint("mynets.Net", {"block": "lazy.Block"})
    (folder / "lazy.py").write_text("x = 1\n")
    assert source_fingerprint("mynets.Net", {"block": "lazy.Block"}) == original


def test_a_relative_import_of_a_target_is_followed(folder):
    (folder / "zoo/__init__.py").write_text("from .heads import Head\n")
    original = source_fingerprint("zoo.Head")
    (folder / "zoo/parent.py").write_text("x = 1\n")
    assert source_fingerprint("zoo.Head") != original


def test_installed_packages_and_what_cannot_be_read(folder):
    assert source_fingerprint("torch.nn.Linear") is None
    assert source_fingerprint("nowhere.Net") is None
    assert source_fingerprint("PIL.Image.Image") is not None
    (folder / "mylayers.py").write_text("def broken(:\n")
    assert source_fingerprint("mynets.Net") is None
