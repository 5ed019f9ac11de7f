"""image_folder: a user's own images, from files of every kind to tensors."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bnexp.data import datasets, image_folder
from bnexp.errors import UserError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch) -> Path:
    there = tmp_path / "home-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(there))
    return there


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "pets"


def colours(seed: int, height: int = 6, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray | Image.Image, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)


def fill(root: Path, count: int = 5, **options) -> None:
    for number, name in enumerate(("cat", "dog")):
        for i in range(count):
            save(root / name / f"{i}.png", colours(100 * number + i, **options))


def load(root: Path, resize: int | None = None) -> datasets.Source:
    return datasets.load_dataset("image_folder", str(root), resize)


def failing(root: Path, resize: int | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load(root, resize)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_train_and_test_folders(root):
    fill(root / "train", 3)
    save(root / "test" / "dog" / "deep" / "x.bmp", colours(7))
    source = load(root)
    assert source.classes == ("cat", "dog")
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.test.labels.tolist() == [1]
    expected = [colours(seed).transpose(2, 0, 1) for seed in (0, 1, 2, 100, 101, 102)]
    assert np.array_equal(source.train.pixels.numpy(), np.stack(expected))
    assert np.array_equal(source.test.pixels[0].numpy(), colours(7).transpose(2, 0, 1))
    assert source.train.pixels.is_contiguous()


@pytest.mark.parametrize("base", ["", "train"])
def test_a_fifth_is_set_apart_where_there_is_no_test_folder(root, base):
    fill(root / base, 10)
    torch.manual_seed(1)
    first = load(root)
    assert first.test.labels.tolist() == [0, 0, 1, 1]
    assert first.train.labels.tolist() == [0] * 8 + [1] * 8
    found = {image.numpy().tobytes() for image in (*first.train.pixels, *first.test.pixels)}
    assert len(found) == 20, "each image is in one part"
    (root / ".bnexp" / "image_folder.cache").unlink()
    torch.manual_seed(2)
    assert torch.equal(load(root).test.pixels, first.test.pixels)


def test_formats_and_gray_among_colours(root):
    gray = np.arange(36, dtype=np.uint8).reshape(6, 6) * 7
    flat = np.full((6, 6, 3), (10, 200, 90), np.uint8)
    save(root / "a" / "1.jpg", flat, quality=100)
    save(root / "a" / "2.webp", flat, lossless=True)
    save(root / "a" / "3.gif", flat)
    save(root / "a" / "4.PNG", np.dstack([flat, np.full((6, 6), 128, np.uint8)]))  # with transparency
    save(root / "b" / "5.png", gray)
    save(root / "b" / "6.png", gray)
    (root / "b" / "notes.txt").write_text("no image")
    (root / "b" / ".hidden.png").write_text("no image")
    source = load(root)
    pixels = torch.cat([source.train.pixels, source.test.pixels]).short()
    labels = torch.cat([source.train.labels, source.test.labels])
    assert labels.sort().values.tolist() == [0] * 4 + [1] * 2
    want = torch.tensor([10, 200, 90]).view(3, 1, 1)
    assert (pixels[labels == 0] - want).abs().max() <= 2  # JPEG is the one that loses
    assert (pixels[labels == 1] == torch.from_numpy(gray).short()).all()


def test_gray_alone_has_one_channel(root):
    eight = np.arange(36, dtype=np.uint8).reshape(6, 6) * 7
    sixteen = eight.astype(np.uint16) * 257
    for name in ("a", "b"):
        save(root / "train" / name / "8.png", eight)
        save(root / "train" / name / "16.png", Image.fromarray(sixteen))
        save(root / "train" / name / "1.png", Image.fromarray(eight > 100))
    save(root / "test" / "a" / "x.png", eight)
    source = load(root)
    assert source.train.pixels.shape == (6, 1, 6, 6)
    one, both, other = source.train.pixels[:3, 0]
    assert torch.equal(one, torch.from_numpy(eight > 100).to(torch.uint8) * 255)  # "1.png", "16.png", "8.png"
    assert torch.equal(both, torch.from_numpy(eight))
    assert torch.equal(other, torch.from_numpy(eight))


def test_resize_takes_the_centred_square(root):
    wide = np.zeros((8, 20, 3), np.uint8)
    wide[:, 6:14] = colours(1, 8, 8)
    tall = wide.transpose(1, 0, 2)
    for name in ("a", "b"):
        save(root / "train" / name / "1.png", wide)
        save(root / "train" / name / "2.png", tall)
    save(root / "test" / "a" / "x.png", colours(1, 8, 8))
    source = load(root, 8)
    square = torch.from_numpy(colours(1, 8, 8)).permute(2, 0, 1)
    assert torch.equal(source.train.pixels[0], square)
    assert torch.equal(source.train.pixels[1], square.transpose(1, 2))
    small = load(root, 4).train.pixels
    assert small.shape == (4, 3, 4, 4)
    means = source.train.pixels.double().mean((2, 3)), small.double().mean((2, 3))
    assert (means[0] - means[1]).abs().max() < 12  # shrunk, not cut out of or picked from


def test_a_turned_photo_stands_upright(root):
    upright = colours(3)
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be shown turned clockwise by a quarter
    for name in ("a", "b"):
        save(root / "train" / name / "1.png", turned, exif=exif)
    save(root / "test" / "a" / "1.png", upright)
    source = load(root)
    assert torch.equal(source.train.pixels[0], source.test.pixels[0])


def test_decoded_once_until_something_changes(root, monkeypatch):
    fill(root, 10)
    decoded = []
    true_decode = image_folder._decode
    monkeypatch.setattr(image_folder, "_decode", lambda *a: decoded.append(a[1]) or true_decode(*a))
    first = load(root)
    assert torch.equal(load(root).train.pixels, first.train.pixels)
    assert decoded == [None]
    load(root, 3)
    load(root)
    load(root, 3)
    assert decoded == [None, 3], "sizes are kept side by side"
    save(root / "cat" / "0.png", colours(55))
    os.utime(root / "cat" / "0.png", ns=(1, 1))  # as files that changed within a clock's tick differ in size
    changed = load(root)
    assert not torch.equal(
        torch.cat([changed.train.pixels, changed.test.pixels]),
        torch.cat([first.train.pixels, first.test.pixels]),
    )
    (root / "dog" / "9.png").unlink()
    assert len(load(root).train) + len(load(root).test) == 19
    (root / "dog" / "8.png").rename(root / "cat" / "8b.png")
    assert load(root).train.labels.bincount().tolist() != first.train.labels.bincount().tolist()
    assert decoded == [None, 3, None, None, None]


def test_a_set_that_cannot_be_written_to(root, home):
    fill(root)
    (root / ".bnexp").write_text("in the way")
    assert torch.equal(load(root).train.pixels, load(root).train.pixels)
    assert len(list((home / "bnexp").glob("image_folder-*.cache"))) == 1


def test_missing_root(root):
    assert failing(root) == f"dataset.root={root}: there is no such folder"


@pytest.mark.parametrize(("classes", "found"), [((), "none"), (("cat",), "only cat")])
def test_too_few_classes(root, classes, found):
    (root / ".hidden").mkdir(parents=True)
    for name in classes:
        save(root / name / "1.png", colours(1))
    want = f"dataset.root={root}: two class folders or more are needed in {root}, and there is {found}"
    assert failing(root) == want


def test_an_empty_class(root):
    fill(root)
    (root / "bird").mkdir()
    assert f"{root / 'bird'} holds no image" in failing(root)


def test_a_test_class_that_training_lacks(root):
    fill(root / "train")
    save(root / "test" / "cats" / "1.png", colours(1))
    assert failing(root).endswith("the class test/cats is not in train; did you mean cat?")


def test_test_without_train(root):
    fill(root / "test")
    assert failing(root).endswith("it has test/<class> folders and no train/<class> folders")


def test_a_class_may_be_called_train(root):
    for name in ("bus", "train"):
        for i in range(5):
            save(root / name / f"{i}.png", colours(i))
    assert load(root).classes == ("bus", "train")


def test_folders_beside_train_and_test_are_named(root, caplog):
    fill(root / "train")
    fill(root / "val")
    load(root)
    assert "only train and test are read, not val" in caplog.text


def test_too_few_images_to_test_with(root):
    for name in ("a", "b"):
        save(root / name / "1.png", colours(1))
    assert "too few images" in failing(root)


@pytest.mark.parametrize("content", [b"", b"no image", "half"])
@pytest.mark.parametrize("resize", [None, 4])
def test_an_image_that_cannot_be_read_is_named(root, content, resize):
    fill(root)
    path = root / "dog" / "3.png"
    path.write_bytes(path.read_bytes()[:90] if content == "half" else content)
    message = failing(root, resize)
    assert message.startswith(f"dataset.root={root}: dog/3.png can't be read as an image (")
    assert not (root / ".bnexp").exists()


def test_a_link_to_nowhere_is_named(root):
    fill(root)
    (root / "dog" / "gone.png").symlink_to(root / "nowhere.png")
    assert "dog/gone.png can't be read" in failing(root)


def test_32_bits_are_refused(root):
    fill(root)
    save(root / "cat" / "9.tif", Image.fromarray(np.zeros((6, 6), np.float32)))
    assert failing(root).endswith("cat/9.tif has 32 bits a pixel; save it with 8")


@pytest.mark.parametrize(("odd", "shown"), [((6, 8), "dog/9.png is 8x6"), ((8, 8), "dog/9.png is 8x8")])
def test_sizes_that_differ_need_resize(root, odd, shown):
    fill(root)
    save(root / "dog" / "9.png", colours(9, *odd))
    message = failing(root)
    assert message.startswith("dataset.resize=null: set dataset.resize=N")
    assert shown in message
    assert load(root, 4).train.pixels.shape[2:] == (4, 4)


def test_one_size_that_is_no_square_needs_resize(root):
    fill(root, height=4, width=6)
    message = failing(root)
    assert message.startswith("dataset.resize=null: set dataset.resize=N")
    assert message.endswith("is 6x4")
