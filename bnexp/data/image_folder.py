"""A user's own images: decoded once, then read from the cache until a file is added, removed or changed."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from bnexp.data import cache, decode
from bnexp.data.fingerprint import images_fingerprint
from bnexp.data.folder_layout import Listing, list_images
from bnexp.data.image_files import bad_root, unreadable
from bnexp.data.images import ImageDataset, Images
from bnexp.errors import bad_value

log = logging.getLogger(__name__)

T = TypeVar("T")


def load(root: Path, resize: int | None, fingerprint: str | None = None) -> ImageDataset:
    """The images below ``root``: RGB, or one channel if all of them are grayscale; raises UserError.

    So it does where ``fingerprint`` is given and the images have another one, now or after they were decoded.

    With ``resize``, the largest centred square of each image is scaled to that side. Without it, all images
    must be squares of one size. Without a test folder, a fixed fifth of each class becomes the test set.
    """
    listing = list_images(root)
    _check_unchanged(listing, fingerprint)
    log.info("%s: %s", root, listing)
    for note in listing.notes:
        log.warning("%s: %s", root, note)
    name = f"image_folder-{resize}" if resize else "image_folder"
    key = listing.cache_key(resize)

    def decode_unchanged() -> ImageDataset:
        dataset = _decode(listing, resize)
        if fingerprint is not None:
            _check_unchanged(list_images(root), fingerprint)
        return dataset

    dataset = cache.load(root, name, lambda: key, decode_unchanged)
    for note in dataset.notes:
        log.warning("%s: %s", root, note)
    return dataset


def _check_unchanged(listing: Listing, fingerprint: str | None) -> None:
    """Raises UserError where the images have another fingerprint than that which the job records."""
    if fingerprint is not None and images_fingerprint(listing) != fingerprint:
        raise bad_root(listing.root, "its images have changed since the command began")


def _decode(listing: Listing, resize: int | None) -> ImageDataset:
    from tqdm import tqdm

    paths = [path for part in (listing.train, listing.test) for path, _ in part]
    log.info("%s: decoding %d images", listing.root, len(paths))
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:  # PIL decodes without holding the GIL
        warnings.simplefilter("ignore")  # PIL warns about unusual metadata
        headers = list(pool.map(lambda path: _read(decode.read_header, listing.root, path), paths))
        for path, header in zip(paths, headers, strict=True):
            if header.problem:
                raise bad_root(listing.root, f"{path} {header.problem}")
        gray = all(header.mode in decode.GRAY for header in headers)
        side = resize or _common_side(paths, [header.size for header in headers])
        maxima = pool.map(lambda *file: _read(decode.greatest_value, listing.root, *file), paths, headers)
        white = decode.white_level(max(maxima))
        pixels = np.empty((len(paths), 1 if gray else 3, side, side), np.uint8)

        def decode_row(row: int) -> None:  # with NumPy: each of these threads would start torch's own threads
            path, header = paths[row], headers[row]
            pixels[row] = _read(decode.read_pixels, listing.root, path, header, gray, side, white)

        for _ in tqdm(pool.map(decode_row, range(len(paths))), total=len(paths), disable=None, leave=False):
            pass
    notes = [*_notes_of_headers(paths, headers, white), *_notes_of_equal_images(listing, pixels)]
    train, test = torch.from_numpy(pixels).split([len(listing.train), len(listing.test)])
    return ImageDataset(
        Images(train, torch.tensor([label for _, label in listing.train])),
        Images(test, torch.tensor([label for _, label in listing.test])),
        listing.classes,
        white,
        tuple(notes),
    )


def _notes_of_headers(paths: list[str], headers: list[decode.Header], white: int) -> list[str]:
    notes = []
    if white > 255:
        notes.append(f"images with 16 bits a channel: {white} is white")
    if transparent := sum(header.has_alpha for header in headers):
        notes.append(f"{transparent} images have an alpha channel: transparent pixels are read as white")
    if several := [path for path, header in zip(paths, headers, strict=True) if header.has_frames]:
        notes.append(f"{len(several)} files hold several images, and only the first is read: {several[0]}")
    return notes


def _notes_of_equal_images(listing: Listing, pixels: np.ndarray) -> list[str]:
    """One line if images have equal pixels, as copies have, and the same image saved as another file."""
    rows = listing.train + listing.test
    groups = defaultdict(list)  # by pixels, the training images first
    for row, image in enumerate(pixels):
        groups[hashlib.blake2b(image.data, digest_size=16).digest()].append(row)
    leaks: list[tuple[str, str]] = []  # (path, the equal one)
    conflicts: list[tuple[str, str]] = []
    copies: list[tuple[str, str]] = []
    count = len(listing.train)
    for first, *others in groups.values():
        for row in others:
            pair = (rows[row][0], rows[first][0])
            if first < count:
                (copies if row < count else leaks).append(pair)
            if rows[row][1] != rows[first][1]:
                conflicts.append(pair)
    texts = [
        f"{len(pairs)} of {total} {text} ({' equals '.join(pairs[0])})"
        for pairs, total, text in (
            (leaks, len(listing.test), "test images are training images"),
            (conflicts, len(rows), "images are in another class too"),
            (copies, count, "training images are copies of others, which may be validation images"),
        )
        if pairs
    ]
    return [f"equal pixels: {', '.join(texts)}"] if texts else []


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


def _read(function: Callable[..., T], root: Path, path: str, *arguments: Any) -> T:
    """What ``function`` reads from an image file. Raises UserError, naming the file, where it cannot."""
    try:
        return function(root / path, *arguments)
    except Exception as error:  # PIL raises many types for a broken file
        raise unreadable(root, path, error) from None
