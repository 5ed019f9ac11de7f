"""A user's own images: one folder for each class.

``root/train/<class>/...`` and, if there is one, ``root/test/<class>/...``; without train the root's own
folders are the classes. Decoded once, then read from the cache until a file comes, goes or changes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from bnexp.data import cache, splits
from bnexp.data.images import ImageDataset, Images
from bnexp.errors import UserError, bad_value, nearest_match

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
TEST_SHARE = 0.2
GRAY = ("1", "L", "LA", "I;16", "I;16B", "I;16L")
UNBOUNDED = ("I", "F")  # 32 bits a pixel, with no word on what is black and what is white

Rows = list[tuple[str, int]]  # (path below the root, class)


@dataclass(frozen=True)
class Listing:
    """What lies in the folder, in the order it is stored."""

    root: Path
    classes: tuple[str, ...]
    train: Rows
    test: Rows

    def fingerprint(self, resize: int | None) -> str:
        """Changes when an image comes, goes, or changes its size or time, and with ``resize``."""
        digest = hashlib.sha256(f"{resize}".encode())
        for part in (self.train, self.test):
            for path, label in part:
                try:
                    stat = os.stat(self.root / path)
                except OSError as error:
                    raise _unreadable(self.root, path, error) from None
                text = f"\0{path}\0{label}\0{stat.st_size}\0{stat.st_mtime_ns}"
                digest.update(text.encode(errors="surrogateescape"))
            digest.update(b"\1")
        return digest.hexdigest()


def load(root: Path, resize: int | None) -> ImageDataset:
    """The images below ``root`` as RGB, or as one channel where all of them are grayscale; raises UserError.

    With ``resize`` the largest centred square of each is brought to that side; without, all must be of one
    square size already. Without a test folder a fixed fifth of each class is set apart.
    """
    listing = find(root)
    name = f"image_folder-{resize}" if resize else "image_folder"
    key = listing.fingerprint(resize)
    return cache.load(root, name, lambda: key, lambda: _decode(listing, resize))


def find(root: Path) -> Listing:
    """The images below ``root``; raises UserError where they are not laid out by class."""
    if not root.is_dir():
        raise _bad(root, "there is no such folder")
    has_train, has_test = (bool(_folders(root / part)) for part in ("train", "test"))
    if has_test and not has_train:
        raise _bad(root, "it has test/<class> folders and no train/<class> folders")
    base = root / "train" if has_train else root
    classes = tuple(_folders(base))
    if len(classes) < 2:
        found = f"only {classes[0]}" if classes else "none"
        raise _bad(root, f"two class folders or more are needed in {base}, and there is {found}")
    if has_train and (unused := set(_folders(root)) - {"train", "test"}):
        log.warning("%s: only train and test are read, not %s", root, ", ".join(sorted(unused)))
    labels = {name: label for label, name in enumerate(classes)}
    train = [(path, labels[name]) for name in classes for path in _images(root, base / name)]
    for name, label in labels.items():
        if not any(known == label for _, known in train):
            raise _bad(root, f"{base / name} holds no image ({', '.join(SUFFIXES)})")
    if not has_test:
        return Listing(root, classes, *_set_apart(root, classes, train))
    for name in _folders(root / "test"):
        if name not in labels:
            near = nearest_match(name, classes)
            hint = f"; did you mean {near}?" if near else ""
            raise _bad(root, f"the class test/{name} is not in train{hint}")
    test = [(path, label) for name, label in labels.items() for path in _images(root, root / "test" / name)]
    if not test:
        raise _bad(root, f"{root / 'test'} holds no image ({', '.join(SUFFIXES)})")
    return Listing(root, classes, train, test)


def _set_apart(root: Path, classes: tuple[str, ...], images: Rows) -> tuple[Rows, Rows]:
    """(train, test) of images that come in one part."""
    labels = torch.tensor([label for _, label in images])
    rest, held = splits.holdout(labels, TEST_SHARE, splits.fixed_stream())
    for label, name in enumerate(classes):
        if not (labels[rest] == label).any():
            raise _bad(root, f"class {name} has too few images to set a fifth of all apart for testing")
    if not len(held):
        raise _bad(root, "there are too few images to set a fifth of them apart for testing")
    return [images[i] for i in rest.tolist()], [images[i] for i in held.tolist()]


def _folders(folder: Path) -> list[str]:
    """The names of the folders in it; hidden ones, ours among them, don't count."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _images(root: Path, folder: Path) -> Iterator[str]:
    """The images in a class's folder and those below it, in one order everywhere."""
    paths = []
    for place, _, names in os.walk(folder, followlinks=True):
        paths += [Path(place, n) for n in names if n.lower().endswith(SUFFIXES) and not n.startswith(".")]
    return iter(sorted(path.relative_to(root).as_posix() for path in paths))


def _decode(listing: Listing, resize: int | None) -> ImageDataset:
    from tqdm import tqdm

    paths = [path for part in (listing.train, listing.test) for path, _ in part]
    log.info("%s: decoding %d images", listing.root, len(paths))
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:  # decoding leaves Python's lock
        warnings.simplefilter("ignore")  # PIL's, about odd metadata
        heads = list(pool.map(lambda path: _head(listing.root, path), paths))
        gray = all(mode in GRAY for mode, _ in heads)
        side = resize or _common_side(listing.root, paths, [size for _, size in heads])
        pixels = np.empty((len(paths), 1 if gray else 3, side, side), np.uint8)

        def work(row: int) -> None:  # NumPy alone: torch would start threads of its own in each of these
            pixels[row] = _pixels(listing.root, paths[row], gray, side)

        for _ in tqdm(pool.map(work, range(len(paths))), total=len(paths), disable=None, leave=False):
            pass
    train, test = torch.from_numpy(pixels).split([len(listing.train), len(listing.test)])
    return ImageDataset(
        Images(train, torch.tensor([label for _, label in listing.train])),
        Images(test, torch.tensor([label for _, label in listing.test])),
        listing.classes,
    )


def _common_side(root: Path, paths: list[str], sizes: list[tuple[int, int]]) -> int:
    width, height = sizes[0]
    for path, size in zip(paths, sizes, strict=True):
        if size != (width, width):
            shown = f"{path} is {size[0]}x{size[1]}"
            if size != (width, height):
                shown += f" and {paths[0]} {width}x{height}"
            allowed = "set dataset.resize=N, as the images are not all of one square size"
            raise bad_value("dataset.resize", None, f"{allowed}: {shown}")
    return width


def _head(root: Path, path: str) -> tuple[str, tuple[int, int]]:
    """(mode, (width, height)) without decoding the pixels."""
    from PIL import Image

    try:
        with Image.open(root / path) as image:
            mode, size = image.mode, image.size
    except Exception as error:  # a broken file makes PIL raise almost anything
        raise _unreadable(root, path, error) from None
    if mode in UNBOUNDED:
        raise _bad(root, f"{path} has 32 bits a pixel; save it with 8")
    return mode, size


def _pixels(root: Path, path: str, gray: bool, side: int) -> np.ndarray:
    """uint8 (1 or 3, side, side)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(root / path) as file:
            image = _eight_bits(ImageOps.exif_transpose(file)).convert("L" if gray else "RGB")
    except Exception as error:
        raise _unreadable(root, path, error) from None
    if image.size != (side, side):
        width, height = image.size
        square = min(width, height)
        left, top = (width - square) / 2, (height - square) / 2
        box = (left, top, left + square, top + square)
        image = image.resize((side, side), Image.Resampling.BILINEAR, box)
    array = np.asarray(image)
    return array[None] if gray else array.transpose(2, 0, 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scales 16-bit gray; PIL's own conversion cuts everything above 255 off."""
    from PIL import Image

    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))


def _unreadable(root: Path, path: str, error: Exception) -> UserError:
    reason = str(error).replace(str(root / path), "file") or type(error).__name__
    return _bad(root, f"{path} can't be read as an image ({reason}); mend or delete it")


def _bad(root: Path, what: str) -> UserError:
    return bad_value("dataset.root", root, what)
