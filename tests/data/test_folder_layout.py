"""Folders as they are on real disks: other spellings, links, missing rights, the outputs of bnexp."""

from __future__ import annotations

import logging
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bnexp.data import cache, datasets, folder_layout
from bnexp.data.fingerprint import folder_fingerprint
from bnexp.errors import UserError

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Bär") for form in ("NFC", "NFD"))


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home-cache"))
    caplog.set_level(logging.WARNING)  # whatever level an earlier test has left


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "pets"


def fill(root: Path, classes=("cat", "dog"), count: int = 5) -> None:
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = np.random.default_rng(100 * label + i).integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")


def error_message(root: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        datasets.load_dataset("image_folder", str(root), None)
    return str(caught.value)


def test_classes_and_counts_are_told(root, caplog):
    fill(root, [f"class {i}" for i in range(10)])
    with caplog.at_level(logging.INFO):
        datasets.load_dataset("image_folder", str(root), None)
    shown = ", ".join(f"class {i}" for i in range(8))
    assert f"{root}: 10 classes ({shown}, ...), 40 training and 10 test images" in caplog.messages


@pytest.mark.parametrize("base", ["", "train"])
def test_the_current_folder_can_be_the_root(root, monkeypatch, base):
    fill(root / base)
    monkeypatch.chdir(root)
    dataset = datasets.load_dataset("image_folder", ".", None)
    assert (len(dataset.train), len(dataset.test)) == (8, 2)
    assert folder_fingerprint(Path()) == folder_fingerprint(root)


def test_a_name_that_begins_with_a_tilde_is_no_home_folder(root, monkeypatch):
    fill(root.parent / "~nobody-of-this-name")
    monkeypatch.chdir(root.parent)
    assert len(datasets.load_dataset("image_folder", "~nobody-of-this-name", None).train) == 8


def test_a_root_whose_name_is_no_utf8_text_is_read_and_cached(tmp_path, caplog):
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xe4r"))
    fill(root)
    for _ in ("decoded", "from the cache"):
        cache._memory.clear()
        assert len(datasets.load_dataset("image_folder", str(root), None).train) == 8
    assert folder_fingerprint(root)
    assert not caplog.messages
    assert len(list((tmp_path / "home-cache/bnexp").glob("*.safetensors"))) == 1


def test_a_file_is_no_root(tmp_path):
    (tmp_path / "pets.zip").touch()
    assert error_message(tmp_path / "pets.zip").endswith("pets.zip: is a file, not a folder of class folders")


@pytest.mark.parametrize("name", ["", "train", "test", "train/cat"])
@pytest.mark.parametrize("function", ["scandir", "stat"])
def test_a_folder_without_the_right_to_read_it_is_named(root, monkeypatch, name, function):
    """The tests may run as root, who can read every folder."""
    fill(root / "train")
    fill(root / "test")
    original = getattr(os, function)

    def refuse(path, *args, **options):
        if not isinstance(path, int) and Path(path) == root / name:
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return original(path, *args, **options)

    monkeypatch.setattr(os, function, refuse)
    assert error_message(root) == f"dataset.root={root}: {name or '.'} can't be read (Permission denied)"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_test_folder_that_is_none_is_not_ignored(root, kind):
    """A fifth of the training images was tested on instead."""
    fill(root / "train")
    if kind == "file":
        (root / "test").write_text("/data/test")  # a link, as some archives store it
    else:
        (root / "test").symlink_to("nowhere")
    assert "test holds no class folders" in error_message(root)


@pytest.mark.parametrize("name", ["Test", "testing", "test_images"])
def test_a_part_for_testing_with_another_name_is_not_ignored(root, name):
    fill(root / "train")
    fill(root / name)
    assert error_message(root).endswith(f"{name} would not be read; name it test, or remove it")


def test_train_and_test_without_class_folders(root):
    fill(root, ("train", "test"))
    assert error_message(root).endswith("train holds no class folders; write its images to train/<class>")


@pytest.mark.parametrize("name", ["$Recycle.Bin", "@Recycle", "#snapshot", "RECYCLER", "__pycache__"])
def test_folders_of_systems_are_no_classes_and_hold_no_images(root, caplog, name):
    fill(root)
    fill(root, (name, f"cat/{name}"))
    dataset = datasets.load_dataset("image_folder", str(root), None)
    assert dataset.classes == ("cat", "dog")
    assert dataset.train.labels.bincount().tolist() == [4, 4]
    assert "left out: 2 hidden or system" in caplog.text


@pytest.mark.parametrize("in_train", [COMPOSED, DECOMPOSED])
def test_letters_may_be_written_in_two_forms(root, in_train):
    """macOS separates the dots from the letter: a copy of one part from there has other names."""
    fill(root / "train", (in_train, "dog"))
    fill(root / "test", (COMPOSED if in_train == DECOMPOSED else DECOMPOSED, "dog"))
    dataset = datasets.load_dataset("image_folder", str(root), None)
    assert dataset.test.labels.bincount().tolist() == [5, 5]


@pytest.mark.parametrize("names", [("Cat", "cat"), ("cat", "cat "), (COMPOSED, DECOMPOSED)])
def test_class_names_that_look_the_same_are_told(root, caplog, names):
    fill(root, (*names, "dog"))
    assert len(datasets.load_dataset("image_folder", str(root), None).classes) == 3
    shown = ", ".join(sorted(names))
    assert f"{shown} are several classes, but their names differ in case or spaces alone" in caplog.text


def test_a_class_that_is_a_link_to_nothing_is_told(root, caplog):
    fill(root)
    (root / "bird").symlink_to("nowhere")
    datasets.load_dataset("image_folder", str(root), None)
    assert "left out: 1 link to nothing (bird)" in caplog.text


@pytest.mark.parametrize("folder", ["outputs/2026-11-27/run", "outputs/multirun/sweep", "cat/outputs/run"])
@pytest.mark.parametrize("mark", [".hydra/config.yaml", "multirun.yaml", "comparison.json"])
def test_what_bnexp_wrote_is_no_class(root, caplog, folder, mark):
    """The pictures of a sweep were a class, or images of the class in whose folder it was started."""
    fill(root)
    before = folder_layout.list_images(root)
    fill(root / folder / "report", ("pictures",))
    (root / folder / mark).parent.mkdir(exist_ok=True)
    (root / folder / mark).touch()
    after = folder_layout.list_images(root)
    assert (after.classes, after.train, after.test) == (before.classes, before.train, before.test)
    assert after.notes == (f"left out: 1 written by bnexp ({folder})",)


def test_a_class_without_an_image_in_the_fifth_for_testing_is_told(root, caplog):
    fill(root)
    fill(root, ("cat", "dog", "bird"), count=1)
    datasets.load_dataset("image_folder", str(root), None)
    expected = (
        f"{root}: the fifth set apart for testing has no image of the class bird: nothing is measured on it"
    )
    assert caplog.messages == [expected]


@pytest.mark.parametrize("content", ['{"cat/0.png": 3}', "[1]", '{"cat/0.png": [1, 2]}', "{bad", ""])
def test_damaged_digests_are_computed_again(root, content):
    fill(root)
    expected = folder_fingerprint(root)
    folder_fingerprint.__globals__["_memory"].clear()
    (root / ".bnexp").mkdir(exist_ok=True)
    (root / ".bnexp" / "digests.json").write_text(content)
    assert folder_fingerprint(root) == expected
