"""Which files of a data set's class folders are images, and a count of everything else.

A cached start reads no image, so the ending of a name decides. Pillow is imported only for endings that need
a decoder which not every Pillow has, and for names without an ending: such a file is an image if Pillow
recognises its first bytes.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from bnexp.data.cache import FileState, file_state
from bnexp.errors import UserError, bad_value
from bnexp.files import OUTPUT_MARKS

SUFFIXES = (
    ".apng", ".bmp", ".bw", ".dds", ".dib", ".gif", ".icb", ".icns", ".ico", ".im", ".j2c", ".j2k", ".jfif",
    ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pcx", ".pfm", ".pgm", ".png",
    ".pnm", ".ppm", ".psd", ".qoi", ".ras", ".rgb", ".rgba", ".sgi", ".tga", ".tif", ".tiff", ".vda", ".vst",
    ".webp", ".xbm", ".xpm",
)  # fmt: skip
# Read where this Pillow has a decoder for them.
OPTIONAL_SUFFIXES = (".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif", ".jxl")
# Formats that begin with a mark of their own. Others could take a text file for an image.
MARKED_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
REASONS_SHOWN = 8  # each ending that is not read is a reason
# Of macOS, Windows and network storage, in lower case: the systems write some of them in several forms.
SYSTEM_FOLDERS = {
    "__macosx", "__pycache__", "lost+found", "network trash folder", "recycler", "system volume information",
    "temporary items", "$recycle.bin", "#recycle", "#snapshot", "@eadir", "@recently-snapshot", "@recycle",
    "@tmp",
}  # fmt: skip

Identity = tuple[int, int]  # the device and the inode: the same for every path to a folder


class LeftOut:
    """What was not read: how often each reason applied, with the first path as an example."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, reason: str, path: str) -> None:
        self._counts[reason] += 1
        self._examples.setdefault(reason, path)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __str__(self) -> str:
        common = self._counts.most_common(REASONS_SHOWN)
        texts = [f"{count} {reason} ({self._examples[reason]})" for reason, count in common]
        if others := len(self._counts) - len(common):
            texts.append(f"and files with {others} other endings")
        return ", ".join(texts)


def is_hidden(name: str) -> bool:
    """Whether it belongs to the system or a program: their previews are images too, often of test images."""
    return name.startswith(".") or _is_system_folder(name)


def _is_system_folder(name: str) -> bool:
    return name.lower() in SYSTEM_FOLDERS


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one. A link that leads nowhere, or to itself, is none."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def find_images(root: Path, class_folders: Sequence[Path], left_out: LeftOut) -> list[list[str]]:
    """The images below each class folder, relative to ``root``, in the same order on every machine.

    Each real folder is read once, as part of the class that holds it without a link. A broken link with an
    image's ending counts as an image: reading it gives the error. Raises UserError, and OSError.
    """
    visited = _enclosing_folders(root, class_folders)
    _check_class_folders(root, class_folders, visited)
    images: list[list[str]] = [[] for _ in class_folders]
    queue = deque(zip(class_folders, images, strict=True))
    while queue:
        folder, paths = queue.popleft()
        identity = _identity(folder)
        if identity in visited:
            left_out.add("linked folder that is read elsewhere", _relative(folder, root))
            continue
        entries = _entries(folder)
        if not OUTPUT_MARKS.isdisjoint(entry.name for entry in entries):
            left_out.add("written by bnexp", _relative(folder, root))
            continue
        visited.add(identity)
        for entry in entries:
            path = _relative(entry.path, root)
            if is_hidden(entry.name):
                left_out.add("hidden or system", path)
            elif is_folder(entry):
                # Links come last: then they can take no folder from the class that holds it.
                (queue.append if entry.is_symlink() else queue.appendleft)((folder / entry.name, paths))
            elif reason := _reason_to_skip(entry):
                left_out.add(reason, path)
            else:
                paths.append(path)
    return [sorted(paths) for paths in images]


def state(root: Path, path: str) -> FileState:
    """The state of an image's file; raises UserError, naming the file, where it has none."""
    try:
        return file_state(root / path)
    except OSError as error:
        raise unreadable(root, path, error) from None


def count_unclassified(root: Path, folders: Iterable[Path], left_out: LeftOut) -> None:
    """Counts what lies beside the class folders and looks like part of the data set."""
    for folder in folders:
        for entry in _entries(folder):
            path = _relative(entry.path, root)
            if is_hidden(entry.name) and not _is_system_folder(entry.name):
                continue
            if _is_system_folder(entry.name):
                left_out.add("hidden or system", path)
            elif _is_broken_link(entry):
                left_out.add("link to nothing", path)
            elif _ending(entry.name) in SUFFIXES + OPTIONAL_SUFFIXES:
                left_out.add("beside the class folders", path)


def holds_output(folder: Path) -> bool:
    """Whether bnexp has written a run, a sweep or a comparison into it or a folder below."""
    return any(not OUTPUT_MARKS.isdisjoint(names + files) for _, names, files in os.walk(folder))


def unreadable(root: Path, path: str, error: Exception) -> UserError:
    """For an image file that cannot be read, or is damaged."""
    reason = getattr(error, "strerror", None) or str(error).replace(f" {str(root / path)!r}", "")
    reason = reason or type(error).__name__
    return bad_root(root, f"{path} can't be read as an image ({reason}); repair or delete it")


def bad_root(root: Path, problem: str) -> UserError:
    return bad_value("dataset.root", root, problem)


def _enclosing_folders(root: Path, class_folders: Sequence[Path]) -> set[Identity]:
    """The folders that hold the class folders: a link to one of them would read every image again."""
    parents = {root.resolve(), *(folder.parent.resolve() for folder in class_folders)}
    enclosing = parents.union(*(parent.parents for parent in parents))
    enclosing.update(*(folder.resolve().parents for folder in class_folders))
    return {_identity(folder) for folder in enclosing}


def _check_class_folders(root: Path, class_folders: Sequence[Path], enclosing: set[Identity]) -> None:
    """Raises UserError if links give the images of one class folder to another class or part too."""
    folders: dict[Identity, Path] = {}
    for folder in class_folders:
        identity = _identity(folder)
        name = _relative(folder, root)
        if identity in enclosing:
            raise bad_root(root, f"{name} holds the folder of another class")
        if identity in folders:
            other = _relative(folders[identity], root)
            raise bad_root(root, f"{name} and {other} are the same folder")
        folders[identity] = folder


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_broken_link(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _reason_to_skip(entry: os.DirEntry[str]) -> str | None:
    """Why a file is not read; None for an image."""
    is_file = os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file()
    if not is_file and not _is_broken_link(entry):
        return "not a regular file"  # opening a FIFO would wait for ever
    ending = _ending(entry.name)
    if ending in SUFFIXES:
        return None
    if ending in OPTIONAL_SUFFIXES:
        return None if _pillow_decodes(ending) else f"{ending} without a decoder in Pillow"
    if not ending:
        return None if _starts_like_an_image(entry.path) else "without an ending"
    return ending


def _pillow_decodes(ending: str) -> bool:
    from PIL import Image

    return ending in Image.registered_extensions()


def _starts_like_an_image(path: str) -> bool:
    from PIL import Image

    try:
        with Image.open(path, formats=MARKED_FORMATS):
            return True
    except Exception:  # PIL raises many types
        return False


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _identity(folder: Path) -> Identity:
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def _relative(path: str | Path, root: Path) -> str:
    # Ten times as fast as Path.relative_to, which would need most of the time of a start with many images.
    start = 0 if root == Path() else len(os.fspath(root))  # paths below the folder "." do not begin with it
    return os.fspath(path)[start:].replace(os.sep, "/").lstrip("/")
