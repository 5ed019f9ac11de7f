"""Flips and crops, compared with the same operations done one image at a time."""

from __future__ import annotations

import pytest
import torch

from bnexp.data import augment
from bnexp.seeding import generator

CPU = torch.device("cpu")


def random_images(dtype=torch.uint8, shape=(40, 3, 7, 7)) -> torch.Tensor:
    return torch.randint(1, 256, shape, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("padding", [1, 4, 9])
def test_crop_equals_cropping_one_image_at_a_time(dtype, padding):
    images = random_images(dtype)
    top, left = torch.randint(2 * padding + 1, (2, len(images)), generator=torch.Generator().manual_seed(2))
    expected = torch.zeros_like(images)
    for image, out, y, x in zip(images, expected, top.tolist(), left.tolist(), strict=True):
        for row in range(7):
            for column in range(7):
                r, c = row + y - padding, column + x - padding
                if 0 <= r < 7 and 0 <= c < 7:
                    out[:, row, column] = image[:, r, c]
    cropped = augment.crop(images, top, left, padding)
    assert cropped.dtype == dtype
    assert torch.equal(cropped, expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_flip_equals_flipping_one_image_at_a_time(dtype):
    images = random_images(dtype, (9, 2, 5, 6))
    flips = torch.tensor([1, 0, 0, 1, 1, 0, 1, 0, 1]).bool()
    outputs = augment.flip(images, flips)
    for image, output, is_flip in zip(images, outputs, flips.tolist(), strict=True):
        assert torch.equal(output, image.flip(2) if is_flip else image)


def test_draws_are_uniform_over_all_flips_and_offsets():
    draws = augment.draw(("flip", "crop"), 20_000, 2, generator(3, "augment", 0), CPU)
    assert abs(draws.flips.double().mean() - 0.5) < 0.02
    counts = torch.bincount(draws.top * 5 + draws.left, minlength=25)
    assert len(counts) == 25
    assert counts.min() > 650  # the expected count is 800, its standard deviation 28
    assert counts.max() < 950


def test_draws_depend_on_the_stream_alone():
    def draw_epoch(epoch: int, names=("flip", "crop")) -> augment.Draws:
        return augment.draw(names, 50, 4, generator(7, "augment", epoch), CPU)

    first, repeated, next_epoch = draw_epoch(0), draw_epoch(0), draw_epoch(1)
    for field in ("flips", "top", "left"):
        assert torch.equal(getattr(first, field), getattr(repeated, field))
        assert not torch.equal(getattr(first, field), getattr(next_epoch, field))
    assert torch.equal(draw_epoch(0, ("flip",)).flips, first.flips), "crops must not change the flips"


def test_apply_uses_the_draws_of_the_given_positions():
    images = random_images()
    draws = augment.draw(("flip", "crop"), len(images), 3, generator(0, "augment", 0), CPU)
    all_at_once = draws.apply(images, slice(None))
    positions = (slice(0, 16), slice(16, 32), torch.arange(32, len(images)))
    in_parts = torch.cat([draws.apply(images[part], part) for part in positions])
    assert torch.equal(all_at_once, in_parts)
    crops = augment.crop(images, draws.top, draws.left, 3)
    assert torch.equal(all_at_once, augment.flip(crops, draws.flips))


@pytest.mark.parametrize("names", [("flip",), ("crop",)])
def test_only_the_named_augmentations_are_applied(names):
    images = random_images()
    draws = augment.draw(names, len(images), 3, generator(0, "augment", 0), CPU)
    if names == ("flip",):
        expected = augment.flip(images, draws.flips)
    else:
        expected = augment.crop(images, draws.top, draws.left, 3)
    assert torch.equal(draws.apply(images, slice(None)), expected)
    assert not torch.equal(expected, images)
