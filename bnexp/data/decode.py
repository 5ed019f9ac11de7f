"""From an image file of any mode and size to uint8 pixels of a square."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

GRAY = ("1", "L", "LA", "I;16", "I;16B", "I;16L")
ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")  # a LAB image has a band A that is no alpha
UNBOUNDED = ("I", "F")  # 32 bits per pixel; nothing says which value is white


class Header(NamedTuple):
    mode: str
    size: tuple[int, int]  # width, height
    has_alpha: bool
    has_frames: bool  # more than one, as an animation or a TIFF of several pages
    has_deep_colour: bool  # 16 bits a channel, of which Pillow decodes the upper 8


def read_header(path: Path) -> Header:
    """Mode, size and transparency without decoding the pixels. Raises what PIL raises for a broken file."""
    from PIL import Image

    with Image.open(path) as image:
        mode = image.mode
        if mode == "I" and image.format == "PPM":  # at most 16 bits, which Pillow reads as 32
            mode = "I;16"
        has_alpha = image.mode in ALPHA or "transparency" in image.info
        has_deep_colour = not mode.startswith("I") and any(";16" in str(tile[3]) for tile in image.tile)
        return Header(mode, image.size, has_alpha, getattr(image, "is_animated", False), has_deep_colour)


def white_level(paths: Sequence[Path], headers: Sequence[Header]) -> int:
    """The value of white in the files with 16 bits: the largest number of as many bits as the data set uses.

    12-bit values are often saved with 16 bits. Scaled by 65535, they would become 17 of 256 levels.
    """
    from PIL import Image

    maximum = 255
    for path, header in zip(paths, headers, strict=True):
        if header.mode.startswith("I;16"):
            with Image.open(path) as image:
                values = np.asarray(image)
                maximum = max(maximum, int(values.max(initial=0, where=values != _transparent_value(image))))
    return int((1 << maximum.bit_length()) - 1)


def read_pixels(path: Path, gray: bool, side: int, white: int) -> np.ndarray:
    """The largest centred square of an image, scaled: uint8 (1 or 3, side, side).

    ``white`` is the value of white in a file with 16 bits. Raises what PIL raises for a broken file.
    """
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        image = _eight_bits(_on_white(ImageOps.exif_transpose(file)), white)
        image = image.convert("L" if gray else "RGB")
    if image.size != (side, side):
        width, height = image.size
        square = min(width, height)
        left, top = (width - square) / 2, (height - square) / 2
        box = (left, top, left + square, top + square)
        image = image.resize((side, side), Image.Resampling.BILINEAR, box)
    array = np.asarray(image)
    return array[None] if gray else array.transpose(2, 0, 1)


def _on_white(image: Image.Image) -> Image.Image:
    """Transparent pixels on white: PIL's own conversion shows the colour below them, which nobody sees."""
    from PIL import Image

    if image.mode.startswith("I") or (image.mode not in ALPHA and "transparency" not in image.info):
        return image  # PIL cannot convert 16 bits without clipping them: _eight_bits does it
    overlay = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", overlay.size, "white"), overlay).convert("RGB")


def _eight_bits(image: Image.Image, white: int) -> Image.Image:
    """Scales 16-bit gray to 8 bits; PIL's own conversion would turn every value above 255 into 255."""
    from PIL import Image

    if not image.mode.startswith("I"):  # I: of a PGM file, because other files of this mode are refused
        return image
    values = np.asarray(image).astype(np.uint32)
    pixels = (values * 510 + white) // (2 * white)  # rounded
    pixels[values == _transparent_value(image)] = 255
    return Image.fromarray(pixels.astype(np.uint8))


def _transparent_value(image: Image.Image) -> int:
    """The one gray value that a PNG file may declare transparent; -1, which no pixel has, without one."""
    value = image.info.get("transparency")
    return value if isinstance(value, int) else -1
