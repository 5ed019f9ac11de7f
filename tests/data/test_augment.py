"""Flips and crops against the same done one image at a time."""

from __future__ import annotations

import pytest
import torch

from bnexp.data import augment
from bnexp.seeding import generator

CPU = torch.device("cpu")


def images(dtype=torch.uint8, shape=(40, 3, 7, 7)) -> torch.Tensor:
    return torch.randint(1, 256, shape, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("padding", [1, 4, 9])
def test_crop_against_one_at_a_time(dtype, padding):
    given = images(dtype)
    top, left = torch.randint(2 * padding + 1, (2, len(given)), generator=torch.Generator().manual_seed(2))
    expected = torch.zeros_like(given)
    for image, out, y, x in zip(given, expected, top.tolist(), left.tolist(), strict=True):
        for row in range(7):
            for column in range(7):
                r, c = row + y - padding, column + x - padding
                if 0 <= r < 7 and 0 <= c < 7:
                    out[:, row, column] = image[:, r, c]
    found = augment.crop(given, top, left, padding)
    assert found.dtype == dtype
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_flip_against_one_at_a_time(dtype):
    given = images(dtype, (9, 2, 5, 6))
    mirrored = torch.tensor([1, 0, 0, 1, 1, 0, 1, 0, 1]).bool()
    found = augment.flip(given, mirrored)
    for image, out, turn in zip(given, found, mirrored.tolist(), strict=True):
        assert torch.equal(out, image.flip(2) if turn else image)


def test_draws_reach_every_place_evenly():
    draws = augment.draw(("flip", "crop"), 20_000, 2, generator(3, "augment", 0), CPU)
    assert abs(draws.mirrored.double().mean() - 0.5) < 0.02
    cells = torch.bincount(draws.top * 5 + draws.left, minlength=25)
    assert len(cells) == 25
    assert cells.min() > 650  # 800 expected, 28 the standard deviation
    assert cells.max() < 950


def test_draws_are_a_function_of_the_stream():
    def drawn(position: int, names=("flip", "crop")) -> augment.Draws:
        return augment.draw(names, 50, 4, generator(7, "augment", position), CPU)

    first, again, next_epoch = drawn(0), drawn(0), drawn(1)
    for field in ("mirrored", "top", "left"):
        assert torch.equal(getattr(first, field), getattr(again, field))
        assert not torch.equal(getattr(first, field), getattr(next_epoch, field))
    assert torch.equal(drawn(0, ("flip",)).mirrored, first.mirrored), "crops must not move the flips"


def test_apply_takes_the_draws_of_its_own_places():
    given = images()
    draws = augment.draw(("flip", "crop"), len(given), 3, generator(0, "augment", 0), CPU)
    whole = draws.apply(given, slice(None))
    places = (slice(0, 16), slice(16, 32), torch.arange(32, len(given)))
    parts = torch.cat([draws.apply(given[part], part) for part in places])
    assert torch.equal(whole, parts)
    assert torch.equal(whole, augment.flip(augment.crop(given, draws.top, draws.left, 3), draws.mirrored))


@pytest.mark.parametrize("names", [("flip",), ("crop",)])
def test_only_what_is_named_is_applied(names):
    given = images()
    draws = augment.draw(names, len(given), 3, generator(0, "augment", 0), CPU)
    if names == ("flip",):
        expected = augment.flip(given, draws.mirrored)
    else:
        expected = augment.crop(given, draws.top, draws.left, 3)
    assert torch.equal(draws.apply(given, slice(None)), expected)
    assert not torch.equal(expected, given)
