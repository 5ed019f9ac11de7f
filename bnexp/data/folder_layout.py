"""Which folders below a data set's root are its classes and parts, and which images each of them holds.

The layout is ``root/train/<class>/...`` with or without ``root/test/<class>/...``. Without a train folder,
the folders in the root are the classes.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bnexp.data import cache, image_files, splits
from bnexp.errors import name_list, nearest_match

TEST_SHARE = 0.2
CLASSES_SHOWN = 3  # in a line about the folders inside of class folders
# Names of parts in other layouts. A folder with no other names holds no classes.
TRAIN_PARTS = {"train", "training"}
TEST_PARTS = {"test", "tests", "testing"}
PARTS = TRAIN_PARTS | TEST_PARTS | {"val", "valid", "validation", "dev", "eval", "evaluation"}
PIXELS = 4  # changes with the way in which files become pixels: older caches are built again

Rows = list[tuple[str, int]]  # (path below the root, class)


@dataclass(frozen=True)
class Listing:
    """The images of a folder, in the order in which they are stored in memory."""

    root: Path
    classes: tuple[str, ...]
    train: Rows
    test: Rows
    states: Mapping[str, cache.FileState]  # of each image's file, by its path
    notes: tuple[str, ...] = ()  # what is not read, and why

    def __str__(self) -> str:
        counts = f"{len(self.train)} training and {len(self.test)} test images"
        return f"{len(self.classes)} classes ({name_list(self.classes)}), {counts}"

    def cache_key(self, resize: int | None) -> str:
        """Changes with ``resize``, and when an image is added, removed, changed or replaced."""
        digest = hashlib.sha256(f"{PIXELS} {resize}".encode())
        for part in (self.train, self.test):
            for path, label in part:
                text = f"\0{path}\0{label}\0{self.states[path]}"
                digest.update(text.encode(errors="surrogateescape"))
            digest.update(b"\1")
        return digest.hexdigest()


def list_images(root: Path) -> Listing:
    """The images below ``root``; raises UserError if they are not laid out by class, or cannot be listed."""
    try:
        return _list_images(root)
    except OSError as error:
        path = os.path.relpath(error.filename or root, root)
        raise image_files.bad_root(root, f"{path} can't be read ({error.strerror or error})") from None


def _list_images(root: Path) -> Listing:
    if not root.exists():
        raise image_files.bad_root(root, "there is no such folder")
    if not root.is_dir():
        raise image_files.bad_root(root, "is a file, not a folder of class folders")
    base, classes, test_folders = _folders_by_part(root)
    notes = _notes_of_names(root, base, classes, bool(test_folders))
    train, test, left_out = _list_parts(root, base, classes, test_folders)
    classes, train, test = _without_outputs(root, base, classes, train, test, left_out)
    notes += _notes_of_inner_folders(root, base, classes, train)
    if left_out:
        notes.append(f"left out: {left_out}")
    if test_folders and not test:
        raise image_files.bad_root(root, f"{root / 'test'} holds no image")
    if not test_folders:
        train, test = _split_off_test(root, classes, train)
    test_labels = {label for _, label in test}
    if untested := [name for label, name in enumerate(classes) if label not in test_labels]:
        part = "test" if test_folders else "the fifth set apart for testing"
        noun = "class" if len(untested) == 1 else f"{len(untested)} classes:"
        notes.append(f"{part} has no image of the {noun} {name_list(untested)}: nothing is measured on it")
    states = {path: image_files.state(root, path) for path, _ in train + test}
    return Listing(root, tuple(classes), train, test, states, tuple(notes))


def _folders_by_part(root: Path) -> tuple[Path, list[str], dict[str, int]]:
    """(the folder of the class folders, the classes, each folder in test with the number of its class)."""
    in_test = _folders(root / "test")
    has_train = bool(_folders(root / "train"))
    if in_test and not has_train:
        raise image_files.bad_root(root, "it has test/<class> folders but no train/<class> folders")
    base = root / "train" if has_train else root
    classes = _folders(base)
    _check_number(root, base, classes)
    if not has_train and _are_parts(classes):
        if "train" in classes:
            raise image_files.bad_root(
                root, "train holds no class folders; write its images to train/<class>"
            )
        raise image_files.bad_root(
            root, f"{', '.join(classes)} look like parts, not classes; name them train and test"
        )
    if has_train and not in_test:
        _check_no_other_test(root)
    test_folders = {}
    for name in in_test:
        # A copy made by macOS may write the letters of a name in another form.
        same = [other for other in classes if _composed(other) == _composed(name)]
        if not same:
            near = nearest_match(name, classes)
            hint = f"; did you mean {near}?" if near else ""
            raise image_files.bad_root(root, f"the class test/{name} is not in train{hint}")
        test_folders[name] = classes.index(name if name in same else same[0])
    return base, classes, test_folders


def _check_number(root: Path, base: Path, classes: Sequence[str]) -> None:
    if len(classes) < 2:
        number = f"one, {classes[0]}" if classes else "none"
        raise image_files.bad_root(root, f"{base} must hold at least two class folders, but holds {number}")


def _check_no_other_test(root: Path) -> None:
    """Raises UserError where a part for testing would be ignored, and a fifth of train tested on instead."""
    if os.path.lexists(root / "test"):
        raise image_files.bad_root(
            root, "test holds no class folders; write its images to test/<class>, or remove it"
        )
    for name in _folders(root):
        if _letters(name) & TEST_PARTS:
            raise image_files.bad_root(root, f"{name} would not be read; name it test, or remove it")


def _notes_of_names(root: Path, base: Path, classes: Sequence[str], has_test: bool) -> list[str]:
    notes = []
    if base != root and (unused := sorted(set(_folders(root)) - {"train", "test"})):
        parts = "train and test are" if has_test else "train is"
        notes.append(f"only {parts} read, not {', '.join(unused)}")
    by_letters = defaultdict(list)
    for name in classes:
        by_letters[" ".join(_composed(name).casefold().split())].append(name)
    if alike := [name for group in by_letters.values() if len(group) > 1 for name in group]:
        names = name_list(alike)
        notes.append(f"{names} are several classes, but their names differ in case or spaces alone")
    return notes


def _are_parts(names: Sequence[str]) -> bool:
    """Whether these are names of parts, not of classes: Train and Test, or seg_train and seg_test."""
    in_name = [_letters(name) & PARTS for name in names]
    if all(name.lower() in PARTS for name in names):
        return True
    return any(part & TRAIN_PARTS for part in in_name) and any(part - TRAIN_PARTS for part in in_name)


def _letters(name: str) -> set[str]:
    return set(re.split(r"[^a-z]+", name.lower()))


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _notes_of_inner_folders(root: Path, base: Path, classes: Sequence[str], train: Rows) -> list[str]:
    """One line where the folders inside the class folders may have been meant as the classes, or as parts."""
    depth = len(base.relative_to(root).parts) + 1  # of a class folder
    inner: list[dict[str, None]] = [{} for _ in classes]  # the folders of each class, in their order
    for path, label in train:
        if folders := path.split("/")[depth:-1]:
            inner[label].setdefault(folders[0])
    several = [(name, list(names)) for name, names in zip(classes, inner, strict=True) if len(names) > 1]
    if not several:
        return []
    if len(several) == len(classes) and all(names == several[0][1] for _, names in several):
        return [
            f"{name_list(classes)} are read as the classes, but each of them holds folders of the same"
            f" names: {name_list(several[0][1])}"
        ]
    texts = [f"{name} holds {name_list(names)}" for name, names in several[:CLASSES_SHOWN]]
    more = "; ..." * (len(several) > CLASSES_SHOWN)
    return [f"the images in all folders of a class are read as this one class: {'; '.join(texts)}{more}"]


def _list_parts(
    root: Path, base: Path, classes: Sequence[str], test_folders: dict[str, int]
) -> tuple[Rows, Rows, image_files.LeftOut]:
    """(train, test): the images of each class in both parts, and what is left out."""
    left_out = image_files.LeftOut()
    folders = [base / name for name in classes] + [root / "test" / name for name in test_folders]
    image_files.count_unclassified(root, sorted({root, *(f.parent for f in folders)}), left_out)
    images = image_files.find_images(root, folders, left_out)
    train = [(path, label) for label, paths in enumerate(images[: len(classes)]) for path in paths]
    pairs = zip(test_folders.values(), images[len(classes) :], strict=True)
    return train, [(path, label) for label, paths in pairs for path in paths], left_out


def _without_outputs(
    root: Path, base: Path, classes: list[str], train: Rows, test: Rows, left_out: image_files.LeftOut
) -> tuple[list[str], Rows, Rows]:
    """Without the folders to which bnexp itself writes. Raises UserError for a class without images."""
    labels = {label for _, label in train}
    remaining = list(classes)
    for label, name in enumerate(classes):
        if label not in labels:
            if not image_files.holds_output(base / name):
                raise image_files.bad_root(root, f"{base / name} holds no image")
            remaining.remove(name)
    _check_number(root, base, remaining)
    numbers = {label: remaining.index(name) for label, name in enumerate(classes) if name in remaining}
    train, test = ([(path, numbers[label]) for path, label in part] for part in (train, test))
    return remaining, train, test


def _split_off_test(root: Path, classes: Sequence[str], rows: Rows) -> tuple[Rows, Rows]:
    """(train, test) of a folder that has no test images of its own."""
    labels = torch.tensor([label for _, label in rows])
    train, test = splits.holdout(labels, TEST_SHARE, splits.fixed_stream())
    for label, name in enumerate(classes):
        if not (labels[train] == label).any():
            raise image_files.bad_root(
                root, f"class {name} has too few images to use a fifth of all images for testing"
            )
    if not len(test):
        raise image_files.bad_root(root, "there are too few images to use a fifth of them for testing")
    return [rows[i] for i in train.tolist()], [rows[i] for i in test.tolist()]


def _folders(folder: Path) -> list[str]:
    """The names of the folders in it, except hidden ones such as the cache's; raises OSError."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        folders = [entry.name for entry in entries if image_files.is_folder(entry)]
    return sorted(name for name in folders if not image_files.is_hidden(name))
