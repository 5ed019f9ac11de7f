"""From an image file of any mode and size to uint8 pixels of a square."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image, ImageFile

GRAY = ("1", "L", "LA", "I;16", "I;16B", "I;16L")
ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")  # a LAB image has a band A that is no alpha
UNBOUNDED = ("I", "F")  # 32 bits per pixel; nothing says which value is white
# Of colours with 16 bits a channel, Pillow decodes the upper 8. Told that the bytes have the other order, it
# decodes the lower 8. A pixel of gray and alpha with 16 bits each is four bytes, as one of RGBA is.
LOWER_BYTES = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
} | {"LA;16B": "RGBA"}
TIFF_BITS, TIFF_PLANES = 258, 284  # tags: bits a channel; 2 where each channel has a plane of its own


class Header(NamedTuple):
    mode: str
    size: tuple[int, int]  # width, height
    has_alpha: bool
    has_frames: bool  # more than one, as an animation or a TIFF of several pages
    raw_mode: str  # of colours with 16 bits a channel, else empty
    problem: str  # why its values cannot be read as they are, else empty

    @property
    def has_16_bits(self) -> bool:
        return self.mode.startswith("I;16") or self.raw_mode in LOWER_BYTES


def read_header(path: Path) -> Header:
    """Mode, size and transparency without decoding the pixels. Raises what PIL raises for a broken file."""
    from PIL import Image

    with Image.open(path) as image:
        mode = image.mode
        if mode == "I" and image.format == "PPM":  # at most 16 bits, which Pillow reads as 32
            mode = "I;16"
        has_alpha = image.mode in ALPHA or "transparency" in image.info
        raw_mode = "" if mode.startswith("I") else _raw_mode(image)
        problem = "has 32 bits per pixel, or a sign; save it with 8" if mode in UNBOUNDED else ""
        tags = getattr(image, "tag_v2", {})
        has_planes = 16 in (tags.get(TIFF_BITS) or ()) and tags.get(TIFF_PLANES) == 2
        if has_planes or (raw_mode and raw_mode not in LOWER_BYTES):
            problem = "has 16 bits a channel in a form that cannot be read; save it with 8"
        has_frames = getattr(image, "is_animated", False)
        return Header(mode, image.size, has_alpha, has_frames, raw_mode, problem)


def greatest_value(path: Path, header: Header) -> int:
    """The greatest value in an image file. Transparent pixels do not count. Files with 8 bits give 255."""
    if not header.has_16_bits:
        return 255
    values, alpha = _read_16_bits(path, header)
    return int(values.max(initial=0, where=alpha[..., None] > 0))


def white_level(maximum: int) -> int:
    """The value of white in files with 16 bits: the largest number with as many bits as their ``maximum``.

    12-bit values are often saved with 16 bits. Scaled by 65535, they would become 17 of 256 levels.
    """
    return (1 << max(maximum, 255).bit_length()) - 1


def read_pixels(path: Path, header: Header, gray: bool, side: int, white: int) -> np.ndarray:
    """The largest centred square of an image, scaled: uint8 (1 or 3, side, side).

    ``white`` is the value of white in a file with 16 bits. Raises what PIL raises for a broken file.
    """
    from PIL import Image

    file = _eight_bits(*_read_16_bits(path, header), white) if header.has_16_bits else _read_upright(path)
    image = _on_white(file).convert("L" if gray else "RGB")
    if image.size != (side, side):
        width, height = image.size
        square = min(width, height)
        left, top = (width - square) / 2, (height - square) / 2
        box = (left, top, left + square, top + square)
        image = image.resize((side, side), Image.Resampling.BILINEAR, box)
    array = np.asarray(image)
    return array[None] if gray else array.transpose(2, 0, 1)


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """How the file stores colours with 16 bits a channel, in Pillow's words; empty for other files."""
    for tile in image.tile:
        name = str(tile[3] if isinstance(tile[3], str) else (tile[3] or ("",))[0])
        if ";16" in name:
            return name
    return ""


def _read_upright(path: Path, raw_mode: str = "") -> Image.Image:
    """The image, rotated as its camera says; with ``raw_mode``, its bytes are decoded as such."""
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        if raw_mode:
            image.tile = [
                tile._replace(args=raw_mode if isinstance(tile.args, str) else (raw_mode, *tile.args[1:]))
                for tile in image.tile
            ]
        return ImageOps.exif_transpose(image)


def _read_16_bits(path: Path, header: Header) -> tuple[np.ndarray, np.ndarray]:
    """(values, alpha) of a file with 16 bits a channel: uint16 (H, W, 1 or 3) and (H, W)."""
    image = _read_upright(path)
    values: np.ndarray = np.asarray(image).astype(np.uint16)
    transparent = image.info.get("transparency")  # the one value that a PNG file may declare so
    if header.raw_mode:
        lower = np.asarray(_read_upright(path, LOWER_BYTES[header.raw_mode])).astype(np.uint16)
        if header.raw_mode.startswith("LA"):  # bytes of gray, gray, alpha, alpha
            values = (lower[..., ::2] << 8 | lower[..., 1::2])[..., [0, 0, 0, 1]]
        else:
            values = values << 8 | lower
    values = values.reshape(*values.shape[:2], -1)
    if values.shape[2] == 4:
        return values[..., :3], values[..., 3]
    is_opaque = np.ones(values.shape[:2], bool)
    if isinstance(transparent, int | tuple):
        is_opaque = (values != np.asarray(transparent)).any(2)
    return values, is_opaque * np.uint16(65535)


def _eight_bits(values: np.ndarray, alpha: np.ndarray, white: int) -> Image.Image:
    """Scaled and rounded. Pillow would clip gray values above 255, and cut off the lower bits of colours."""
    from PIL import Image

    values = np.minimum(values, white).astype(np.uint32)
    pixels = (values * 510 + white) // (2 * white)
    channels = pixels if pixels.shape[2] == 3 else pixels.repeat(3, 2)
    opacity = (alpha.astype(np.uint32) * 510 + 65535) // (2 * 65535)
    return Image.fromarray(np.dstack([channels, opacity]).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    """Transparent pixels on white: PIL's own conversion shows the colour below them, which nobody sees."""
    from PIL import Image

    if image.mode not in ALPHA and "transparency" not in image.info:
        return image
    overlay = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", overlay.size, "white"), overlay).convert("RGB")
