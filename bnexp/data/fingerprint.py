"""What the images of a folder are: a fingerprint of their names, classes and contents.

A folder's path says little about what is in it. Runs whose fingerprints differ were trained on other data.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from bnexp.data import cache
from bnexp.data.folder_layout import Listing, list_images
from bnexp.data.image_files import unreadable
from bnexp.files import file_digest, write_json

DIGITS = 16  # hexadecimal, of the fingerprint
DIGESTS_FILE = "digests.json"

Digests = dict[str, list[object]]  # path below the root -> state and content digest of its file


def folder_fingerprint(folder: str | Path) -> str:
    """16 hexadecimal digits that change when an image is added, removed, renamed or changed.

    A copy of the folder has the same fingerprint. Raises UserError where the folder or an image cannot be
    read.
    """
    return images_fingerprint(list_images(Path(os.path.expanduser(folder))))


def images_fingerprint(listing: Listing) -> str:
    """``folder_fingerprint`` of a listing. The digests of unchanged files come from memory or from a file."""
    root = listing.root
    old_digests = _memory.get(os.path.abspath(root)) or _load(root)
    digests: Digests = {}
    fingerprint = hashlib.sha256()
    for part in (listing.train, listing.test):
        for path, label in part:
            state = list(listing.states[path])
            known = old_digests.get(path)
            digest = known[1] if known and known[0] == state else _digest(root, path)
            digests[path] = [state, digest]
            fingerprint.update(f"\0{path}\0{label}\0{digest}".encode(errors="surrogateescape"))
        fingerprint.update(b"\1")
    _memory[os.path.abspath(root)] = digests
    if digests != old_digests:
        _save(root, digests)
    return fingerprint.hexdigest()[:DIGITS]


_memory: dict[str, Digests] = {}


def _digest(root: Path, path: str) -> str:
    try:
        return file_digest(root / path).hex()
    except OSError as error:
        raise unreadable(root, path, error) from None


def _load(root: Path) -> Digests:
    for path in cache.candidate_paths(root, DIGESTS_FILE):
        with suppress(OSError, ValueError, TypeError, AttributeError):  # of another version, or damaged
            return {
                name: [list(state), str(digest)]
                for name, (state, digest) in json.loads(path.read_bytes()).items()
            }
    return {}


def _save(root: Path, digests: Digests) -> None:
    """Writes the digests to the first place that can be written; a folder that was not there stays away."""
    for path in cache.candidate_paths(root, DIGESTS_FILE):
        with suppress(OSError), cache.no_empty_folders(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, digests)
            return
