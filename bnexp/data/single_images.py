"""Images that belong to no data set, read as a trained network reads its own."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bnexp.data import decode
from bnexp.data.network_input import NetworkInput
from bnexp.errors import UserError, bad_value, one_line

log = logging.getLogger(__name__)


def read_images(paths: Sequence[Path], data: NetworkInput) -> Tensor:
    """uint8 (N, C, stored_size, stored_size) of image files, as ``dataset=image_folder`` reads them.

    Of an image with another size, the largest centred square is scaled; a line of the log says so. Raises
    UserError for a file that is no image.
    """
    side = data.stored_size
    pixels = np.empty((len(paths), data.channels, side, side), np.uint8)
    if data.channels not in (1, 3):
        raise UserError(f"this network reads {data.channels} channels, and an image file has 1 or 3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns about unusual metadata
        headers = [_read_header(path) for path in paths]
        for row, (path, header) in enumerate(zip(paths, headers, strict=True)):
            if header.size != (side, side):
                log.warning("%s: %dx%d pixels, scaled to %dx%d", path, *header.size, side, side)
            try:
                white = data.white
                if white == 255:  # the data set had no files with 16 bits
                    white = decode.white_level(decode.greatest_value(path, header))
                if white > data.white:
                    log.warning("%s: 16 bits, %d is taken as white", path, white)
                pixels[row] = decode.read_pixels(path, header, data.channels == 1, side, white)
            except Exception as error:  # PIL raises many types for a broken file
                raise _unreadable(path, error) from None
    return torch.from_numpy(pixels)


def check_pixels(images: Tensor, data: NetworkInput) -> Tensor:
    """``images`` as uint8 (N, C, stored_size, stored_size); (C, S, S) is one image.

    Raises UserError for another type, number of channels or size.
    """
    images = images.unsqueeze(0) if images.dim() == 3 else images
    shape = (data.channels, data.stored_size, data.stored_size)
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != shape:
        allowed = f"must be uint8 (N, {', '.join(map(str, shape))}), values 0 to 255, or image files"
        raise bad_value(
            "images", f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}", allowed
        )
    return images


def _read_header(path: Path) -> decode.Header:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{path}: is not a regular file")  # opening a pipe would wait for ever
    try:
        header = decode.read_header(path)
    except Exception as error:
        raise _unreadable(path, error) from None
    if header.problem:
        raise UserError(f"{path}: {header.problem}")
    return header


def _unreadable(path: Path, error: Exception) -> UserError:
    if isinstance(error, OSError) and error.strerror:
        return UserError(one_line(f"{path}: cannot be read ({error.strerror})"))
    reason = str(error).replace(repr(str(path)), "").replace(str(path), "file").strip()
    return UserError(one_line(f"{path}: cannot be read as an image ({reason or type(error).__name__})"))
