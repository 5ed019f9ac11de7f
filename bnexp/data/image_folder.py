"""A user's own images: one folder for each class.

The layout is ``root/train/<class>/...`` with or without ``root/test/<class>/...``. Without a train folder,
the folders in the root are the classes. The images are decoded once. Then they are read from the cache until
a file is added, removed or changed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bnexp.data import cache, decode, image_files, splits
from bnexp.data.images import ImageDataset, Images
from bnexp.errors import UserError, bad_value, nearest_match

log = logging.getLogger(__name__)

TEST_SHARE = 0.2
# Names of parts in other layouts. A folder with no other names holds no classes.
PARTS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval", "evaluation"}
TRAIN_PARTS = {"train", "training"}
PIXELS = 3  # changes with the way in which files become pixels: older caches are built again

Rows = list[tuple[str, int]]  # (path below the root, class)


@dataclass(frozen=True)
class Listing:
    """The images of a folder, in the order in which they are stored in memory."""

    root: Path
    classes: tuple[str, ...]
    train: Rows
    test: Rows
    notes: tuple[str, ...] = ()  # what is not read, and why

    def fingerprint(self, resize: int | None) -> str:
        """Changes with ``resize``, and when an image is added, removed, changed or replaced."""
        digest = hashlib.sha256(f"{PIXELS} {resize}".encode())
        for part in (self.train, self.test):
            for path, label in part:
                try:
                    state = cache.file_state(self.root / path)
                except OSError as error:
                    raise _unreadable(self.root, path, error) from None
                text = f"\0{path}\0{label}\0{state}"
                digest.update(text.encode(errors="surrogateescape"))
            digest.update(b"\1")
        return digest.hexdigest()


def load(root: Path, resize: int | None) -> ImageDataset:
    """The images below ``root``: RGB, or one channel if all of them are grayscale; raises UserError.

    With ``resize``, the largest centred square of each image is scaled to that side. Without it, all images
    must be squares of one size. Without a test folder, a fixed fifth of each class becomes the test set.
    """
    listing = list_images(root)
    for note in listing.notes:
        log.warning("%s: %s", root, note)
    name = f"image_folder-{resize}" if resize else "image_folder"
    key = listing.fingerprint(resize)
    return cache.load(root, name, lambda: key, lambda: _decode(listing, resize))


def list_images(root: Path) -> Listing:
    """The images below ``root``; raises UserError if they are not laid out by class."""
    if not root.is_dir():
        raise _bad_root(root, "there is no such folder")
    has_train, has_test = (bool(_folders(root / part)) for part in ("train", "test"))
    if has_train and not has_test and (root / "test").is_dir():
        raise _bad_root(root, "test holds no class folders; write its images to test/<class>, or remove it")
    if has_test and not has_train:
        raise _bad_root(root, "it has test/<class> folders but no train/<class> folders")
    base = root / "train" if has_train else root
    classes = tuple(_folders(base))
    if len(classes) < 2:
        number = f"one, {classes[0]}" if classes else "none"
        raise _bad_root(root, f"{base} must hold at least two class folders, but holds {number}")
    if not has_train and _are_parts(classes):
        raise _bad_root(root, f"{', '.join(classes)} look like parts, not classes; name them train and test")
    notes = []
    if has_train and (unused := set(_folders(root)) - {"train", "test"}):
        notes.append(f"only train and test are read, not {', '.join(sorted(unused))}")
    test_classes = _folders(root / "test") if has_test else []
    for name in test_classes:
        if name not in classes:
            near = nearest_match(name, classes)
            hint = f"; did you mean {near}?" if near else ""
            raise _bad_root(root, f"the class test/{name} is not in train{hint}")
    if common := _common_folders([base / name for name in classes]):
        notes.append(
            f"{', '.join(classes[:4])} are read as the classes, but each of them holds folders of the same"
            f" names: {', '.join(common[:4])}"
        )
    train, test, left_out = _list_parts(root, base, classes, test_classes)
    if left_out:
        notes.append(f"left out: {left_out}")
    labels = {label for _, label in train}
    for label, name in enumerate(classes):
        if label not in labels:
            raise _bad_root(root, f"{base / name} holds no image")
    if not has_test:
        return Listing(root, classes, *_split_off_test(root, classes, train), tuple(notes))
    if not test:
        raise _bad_root(root, f"{root / 'test'} holds no image")
    test_labels = {label for _, label in test}
    if untested := [name for label, name in enumerate(classes) if label not in test_labels]:
        notes.append(f"test has no image of the class {', '.join(untested)}: nothing is measured on it")
    return Listing(root, classes, train, test, tuple(notes))


def _are_parts(names: tuple[str, ...]) -> bool:
    """Whether folders are parts by their names, as Train and Test, or seg_train, seg_test and seg_pred."""
    in_name = [set(re.split(r"[^a-z]+", name.lower())) & PARTS for name in names]
    if all(name.lower() in PARTS for name in names):
        return True
    return any(part & TRAIN_PARTS for part in in_name) and any(part - TRAIN_PARTS for part in in_name)


def _common_folders(folders: list[Path]) -> list[str]:
    """The names of the folders that each of ``folders`` holds, if these are several and the same in each."""
    names = _folders(folders[0])
    same = len(names) > 1 and all(_folders(folder) == names for folder in folders[1:])
    return names if same else []


def _list_parts(
    root: Path, base: Path, classes: tuple[str, ...], test_classes: list[str]
) -> tuple[Rows, Rows, image_files.LeftOut]:
    """(train, test): the images of each class in both parts, and what is left out."""
    left_out = image_files.LeftOut()
    folders = [base / name for name in classes] + [root / "test" / name for name in test_classes]
    image_files.count_unclassified(root, sorted({root, *(f.parent for f in folders)}), left_out)
    images = image_files.find_images(root, folders, left_out)
    train: Rows = []
    test: Rows = []
    for folder, paths in zip(folders, images, strict=True):
        part = train if folder.parent == base else test
        part += [(path, classes.index(folder.name)) for path in paths]
    return train, test, left_out


def _split_off_test(root: Path, classes: tuple[str, ...], rows: Rows) -> tuple[Rows, Rows]:
    """(train, test) of a folder that has no test images of its own."""
    labels = torch.tensor([label for _, label in rows])
    train, test = splits.holdout(labels, TEST_SHARE, splits.fixed_stream())
    for label, name in enumerate(classes):
        if not (labels[train] == label).any():
            raise _bad_root(root, f"class {name} has too few images to use a fifth of all images for testing")
    if not len(test):
        raise _bad_root(root, "there are too few images to use a fifth of them for testing")
    return [rows[i] for i in train.tolist()], [rows[i] for i in test.tolist()]


def _folders(folder: Path) -> list[str]:
    """The names of the folders in it, except hidden ones such as the cache's."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        folders = [entry.name for entry in entries if image_files.is_folder(entry)]
    return sorted(name for name in folders if not image_files.is_hidden(name))


def _decode(listing: Listing, resize: int | None) -> ImageDataset:
    from tqdm import tqdm

    paths = [path for part in (listing.train, listing.test) for path, _ in part]
    log.info("%s: decoding %d images", listing.root, len(paths))
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:  # PIL decodes without holding the GIL
        warnings.simplefilter("ignore")  # PIL warns about unusual metadata
        headers = list(pool.map(lambda path: _read_header(listing.root, path), paths))
        gray = all(header.mode in decode.GRAY for header in headers)
        side = resize or _common_side(paths, [header.size for header in headers])
        white = _white(listing.root, paths, headers)
        if transparent := sum(header.has_alpha for header in headers):
            log.info("%s: %d images have transparent pixels: read on white", listing.root, transparent)
        if several := [path for path, header in zip(paths, headers, strict=True) if header.has_frames]:
            example = f"{len(several)} files hold several images, and only the first is read: {several[0]}"
            log.warning("%s: %s", listing.root, example)
        pixels = np.empty((len(paths), 1 if gray else 3, side, side), np.uint8)

        def decode_row(row: int) -> None:  # with NumPy: each of these threads would start torch's own threads
            pixels[row] = _read_pixels(listing.root, paths[row], gray, side, white)

        for _ in tqdm(pool.map(decode_row, range(len(paths))), total=len(paths), disable=None, leave=False):
            pass
    _warn_of_lost_levels(listing.root, paths, headers, pixels)
    _warn_of_test_images_in_train(listing)
    train, test = torch.from_numpy(pixels).split([len(listing.train), len(listing.test)])
    return ImageDataset(
        Images(train, torch.tensor([label for _, label in listing.train])),
        Images(test, torch.tensor([label for _, label in listing.test])),
        listing.classes,
    )


def _warn_of_lost_levels(
    root: Path, paths: list[str], headers: list[decode.Header], pixels: np.ndarray
) -> None:
    """One line if there are colour images with 16 bits a channel: 12-bit values keep 16 of 256 levels."""
    rows = [row for row, header in enumerate(headers) if header.has_deep_colour]
    if rows:
        levels = max(int(pixels[row].max()) for row in rows) + 1
        log.warning(
            f"{root}: {len(rows)} images have 16 bits a channel, of which the upper 8 are read: {levels} of"
            f" 256 levels are in use; save them with 8 bits if that is too few: {paths[rows[0]]}"
        )


def _warn_of_test_images_in_train(listing: Listing) -> None:
    """One line if files are equal. It comes when images are decoded: a cached start reads no image."""
    parts = ([path for path, _ in part] for part in (listing.train, listing.test))
    pairs = image_files.equal_files(listing.root, *parts)
    if pairs:
        count, total, (train_path, test_path) = len(pairs), len(listing.test), pairs[0]
        example = f"{test_path} equals {train_path}"
        log.warning("%s: %d of %d test images are training images: %s", listing.root, count, total, example)


def _common_side(paths: list[str], sizes: list[tuple[int, int]]) -> int:
    """The side of the images, if all are squares of one size; otherwise raises UserError."""
    width, height = sizes[0]
    for path, size in zip(paths, sizes, strict=True):
        if size != (width, width):
            example = f"{path} is {size[0]}x{size[1]}"
            if size != (width, height):
                example += f", {paths[0]} is {width}x{height}"
            problem = "set dataset.resize=N, because the images are not all squares of one size"
            raise bad_value("dataset.resize", None, f"{problem}: {example}")
    return width


def _white(root: Path, paths: list[str], headers: list[decode.Header]) -> int:
    white = decode.white_level([root / path for path in paths], headers)
    if white not in (255, 65535):
        log.info("%s: 16-bit images: %d is white", root, white)
    return white


def _read_header(root: Path, path: str) -> decode.Header:
    try:
        header = decode.read_header(root / path)
    except Exception as error:  # PIL raises many types for a broken file
        raise _unreadable(root, path, error) from None
    if header.mode in decode.UNBOUNDED:
        raise _bad_root(root, f"{path} has 32 bits per pixel; save it with 8")
    return header


def _read_pixels(root: Path, path: str, gray: bool, side: int, white: int) -> np.ndarray:
    try:
        return decode.read_pixels(root / path, gray, side, white)
    except Exception as error:
        raise _unreadable(root, path, error) from None


def _unreadable(root: Path, path: str, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or str(error).replace(f" {str(root / path)!r}", "")
    reason = reason or type(error).__name__
    return _bad_root(root, f"{path} can't be read as an image ({reason}); repair or delete it")


def _bad_root(root: Path, problem: str) -> UserError:
    return bad_value("dataset.root", root, problem)
