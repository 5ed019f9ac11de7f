"""Which files of an image folder are read: hidden folders, links, files that are no images, equal files."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from bnexp.data import cache, datasets, folder_layout, image_files
from bnexp.errors import UserError

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")


@pytest.fixture(autouse=True)
def only_warnings(caplog):
    """Whatever level an earlier test has left: the log of a test holds warnings only."""
    caplog.set_level(logging.WARNING)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """cat and dog with four images each."""
    for label, name in enumerate(("cat", "dog")):
        for i in range(4):
            save(tmp_path / "pets" / name / f"{i}.png", 10 * label + i)
    return tmp_path / "pets"


def save(path: Path, seed: int, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def images_by_class(root: Path) -> dict[str, list[str]]:
    listing = folder_layout.list_images(root)
    for note in listing.notes:
        logging.getLogger("bnexp").warning("%s: %s", root, note)
    rows = sorted(listing.train + listing.test)
    return {name: [path for path, row in rows if row == i] for i, name in enumerate(listing.classes)}


def four(name: str) -> list[str]:
    return [f"{name}/{i}.png" for i in range(4)]


def error_message(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        folder_layout.list_images(root)
    return str(caught.value)


@pytest.mark.parametrize(
    "name", [".ipynb_checkpoints", ".thumbnails", "@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN"]
)
@pytest.mark.parametrize("place", [".", "cat", "cat/young/blue"])
def test_hidden_and_system_folders_are_skipped_at_every_depth(root, caplog, name, place):
    shutil.copytree(root / "cat", root / place / name / "cat")
    assert images_by_class(root) == {"cat": four("cat"), "dog": four("dog")}
    path = os.path.normpath(f"{place}/{name}")
    expected = f"{root}: left out: 1 hidden or system ({path})"
    assert caplog.messages == ([] if path.startswith(".") else [expected])


def test_hidden_files_are_skipped(root, caplog):
    shutil.copy(root / "cat" / "0.png", root / "cat" / "._0.png")
    assert images_by_class(root)["cat"] == four("cat")
    assert caplog.messages == [f"{root}: left out: 1 hidden or system (cat/._0.png)"]


@pytest.mark.parametrize("target", ["..", ".", "../dog", "../../.."])
def test_a_link_to_a_folder_that_is_read_elsewhere_adds_no_image(root, caplog, target):
    (root / "cat" / "more").symlink_to(target)
    assert images_by_class(root) == {"cat": four("cat"), "dog": four("dog")}
    assert caplog.messages == [f"{root}: left out: 1 linked folder that is read elsewhere (cat/more)"]


def test_a_folder_belongs_to_the_class_that_holds_it_without_a_link(root):
    save(root / "dog" / "old" / "9.png", 9)
    (root / "cat" / "more").symlink_to("../dog/old")
    assert images_by_class(root) == {"cat": four("cat"), "dog": [*four("dog"), "dog/old/9.png"]}


def test_links_to_other_places_are_followed_once(root, tmp_path):
    save(tmp_path / "pool" / "7.png", 7)
    save(tmp_path / "birds" / "8.png", 8)
    (root / "cat" / "a").symlink_to(tmp_path / "pool")
    (root / "cat" / "b").symlink_to(tmp_path / "pool")
    (root / "bird").symlink_to(tmp_path / "birds")
    (tmp_path / "birds" / "up").symlink_to(tmp_path)
    expected = {"bird": ["bird/8.png"], "cat": [*four("cat"), "cat/a/7.png"], "dog": four("dog")}
    names = ["bird", "cat", "dog"]
    paths = image_files.find_images(root, [root / name for name in names], image_files.LeftOut())
    assert dict(zip(names, paths, strict=True)) == expected


@pytest.mark.parametrize(
    ("link", "target", "problem"),
    [
        ("kitten", "cat", "kitten and cat are the same folder"),
        ("all", ".", "all holds the folder of another class"),
        ("young", "cat/young", "cat holds the folder of another class"),
    ],
)
def test_links_cannot_give_an_image_two_classes(root, link, target, problem):
    save(root / "cat" / "young" / "9.png", 9)
    (root / link).symlink_to(target)
    assert error_message(root) == f"dataset.root={root}: {problem}"


def test_a_link_cannot_make_the_training_images_the_test_images(root):
    (root / "train").mkdir()
    for name in ("cat", "dog"):
        (root / name).rename(root / "train" / name)
    (root / "test").symlink_to("train")
    assert error_message(root) == f"dataset.root={root}: test/cat and train/cat are the same folder"


def test_a_link_to_itself_is_no_folder(root):
    (root / "loop").symlink_to("loop")
    (root / "cat" / "loop").symlink_to("loop")
    assert images_by_class(root) == {"cat": four("cat"), "dog": four("dog")}


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("photo.jfif", "JPEG"),
        ("photo.JPE", "JPEG"),
        ("photo.jp2", "JPEG2000"),
        ("photo.tga", "TGA"),
        ("photo", "PNG"),
        ("photo", "JPEG"),
        ("photo", "WEBP"),
        pytest.param("photo.avif", "AVIF", marks=needs_avif),
        pytest.param("photo", "AVIF", marks=needs_avif),
    ],
)
def test_what_pillow_decodes_is_read(root, caplog, name, format):
    save(root / "cat" / name, 5, format=format)
    dataset = datasets.load_dataset("image_folder", str(root), None)
    assert len(dataset.train) + len(dataset.test) == 9
    assert images_by_class(root)["cat"] == [*four("cat"), f"cat/{name}"]
    assert not caplog.messages


def test_every_ending_is_one_of_pillows():
    assert set(image_files.SUFFIXES) <= set(Image.registered_extensions())


def test_files_that_are_not_read_are_counted_by_ending(root, caplog):
    for name in ("a.txt", "b.TXT", "Thumbs.db", "README", "c.heic", "d.mpg"):
        (root / "dog" / name).write_text("no image")
    save(root / "sheet.png", 5)
    (root / "labels.csv").write_text("beside the class folders only images are counted")
    assert images_by_class(root) == {"cat": four("cat"), "dog": four("dog")}
    assert caplog.messages == [
        f"{root}: left out: 2 .txt (dog/a.txt), 1 beside the class folders (sheet.png),"
        " 1 without an ending (dog/README), 1 .db (dog/Thumbs.db),"
        " 1 .heic without a decoder in Pillow (dog/c.heic), 1 .mpg (dog/d.mpg)"
    ]


def test_a_heic_file_is_read_where_pillow_has_a_decoder(root, monkeypatch):
    monkeypatch.setitem(Image.registered_extensions(), ".heic", "HEIF")
    (root / "dog" / "c.heic").write_text("content")
    assert images_by_class(root)["dog"] == [*four("dog"), "dog/c.heic"]


def test_many_endings_make_one_short_line(root, caplog):
    for i in range(100):
        (root / "dog" / f"x.{i:03}").touch()
    images_by_class(root)
    assert caplog.messages[0].endswith(", 1 .007 (dog/x.007), and files with 92 other endings")


def test_a_cached_start_imports_no_decoder(root):
    (root / "dog" / "notes.txt").touch()
    code = (
        "import sys; from bnexp.data import load_dataset; load_dataset('image_folder', sys.argv[1], None);"
        "print('PIL' in sys.modules)"
    )
    run = [subprocess.run([sys.executable, "-c", code, root], capture_output=True, text=True) for _ in "12"]
    assert [process.stdout for process in run] == ["True\n", "False\n"]


@pytest.mark.parametrize("through_link", [False, True])
def test_a_fifo_is_not_opened(root, caplog, through_link):
    for name in ("pipe.png", "pipe"):
        os.mkfifo(root.parent / name)
        if through_link:
            (root / "cat" / name).symlink_to(root.parent / name)
        else:
            (root.parent / name).rename(root / "cat" / name)
    datasets.load_dataset("image_folder", str(root), None)
    assert caplog.messages[0] == f"{root}: left out: 2 not a regular file (cat/pipe)"


def test_a_folder_that_cannot_be_read_is_named(root, monkeypatch):
    """The tests may run as root, who can read every folder."""
    (root / "cat" / "private").mkdir()
    scandir = os.scandir

    def refuse(folder):
        if Path(folder).name == "private":
            raise PermissionError(13, "Permission denied", os.fspath(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert error_message(root) == f"dataset.root={root}: cat/private can't be read (Permission denied)"


def test_equal_images_are_told_at_each_start(root, caplog):
    """Copies, and the same pixels in a file of another format: in training and test, or in two classes."""
    for name in ("cat", "dog"):
        (root / name).rename(root / f"{name}-train")
        shutil.copytree(root / f"{name}-train", root / "train" / name)
        shutil.rmtree(root / f"{name}-train")
        save(root / "test" / name / "new.png", 77 + len(name) * (name == "cat"))
    save(root / "test" / "dog" / "new.png", 78)
    shutil.copy(root / "train" / "cat" / "2.png", root / "test" / "cat" / "copy.png")
    save(root / "train" / "dog" / "saved again.bmp", 1)  # the pixels of cat/1.png
    expected = (
        f"{root}: equal pixels: 1 of 3 test images are training images (test/cat/copy.png equals"
        " train/cat/2.png), 1 of 12 images are in another class too (train/dog/saved again.bmp equals"
        " train/cat/1.png), 1 of 9 training images are copies of others, which may be validation images"
        " (train/dog/saved again.bmp equals train/cat/1.png)"
    )
    for _ in ("decoded", "from the cache"):
        caplog.clear()
        cache._memory.clear()
        datasets.load_dataset("image_folder", str(root), None)
        assert caplog.messages == [expected]


def test_different_images_are_not_told(root, caplog):
    datasets.load_dataset("image_folder", str(root), None)
    assert not caplog.messages
