"""A user's own images: file formats, folder layouts, and the messages for what cannot be read."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bnexp.data import ImageDataset, datasets, image_folder
from bnexp.data.network_input import NetworkInput
from bnexp.data.single_images import read_images
from bnexp.errors import UserError


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "home-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "pets"


def random_pixels(seed: int, height: int = 6, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray | Image.Image, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)


def fill(root: Path, count: int = 5, **size) -> None:
    """Writes ``count`` different images for each of the classes cat and dog."""
    for label, name in enumerate(("cat", "dog")):
        for i in range(count):
            save(root / name / f"{i}.png", random_pixels(100 * label + i, **size))


def load(root: Path, resize: int | None = None) -> ImageDataset:
    return datasets.load_dataset("image_folder", str(root), resize)


def error_message(root: Path, resize: int | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load(root, resize)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_train_and_test_folders_are_read(root):
    fill(root / "train", 3)
    save(root / "test" / "dog" / "deep" / "x.bmp", random_pixels(7))
    dataset = load(root)
    assert dataset.classes == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test.labels.tolist() == [1]
    expected = [random_pixels(seed).transpose(2, 0, 1) for seed in (0, 1, 2, 100, 101, 102)]
    assert np.array_equal(dataset.train.pixels.numpy(), np.stack(expected))
    assert np.array_equal(dataset.test.pixels[0].numpy(), random_pixels(7).transpose(2, 0, 1))
    assert dataset.train.pixels.is_contiguous()


@pytest.mark.parametrize("base", ["", "train"])
def test_a_fifth_becomes_the_test_set_without_a_test_folder(root, base):
    fill(root / base, 10)
    torch.manual_seed(1)
    first = load(root)
    assert first.test.labels.tolist() == [0, 0, 1, 1]
    assert first.train.labels.tolist() == [0] * 8 + [1] * 8
    contents = {image.numpy().tobytes() for image in (*first.train.pixels, *first.test.pixels)}
    assert len(contents) == 20, "each image must be in one part"
    (root / ".bnexp" / "image_folder.safetensors").unlink()
    torch.manual_seed(2)
    assert torch.equal(load(root).test.pixels, first.test.pixels)


def test_all_formats_are_read_and_gray_images_among_colours_become_rgb(root):
    gray = np.arange(36, dtype=np.uint8).reshape(6, 6) * 7
    flat = np.full((6, 6, 3), (10, 200, 90), np.uint8)
    save(root / "a" / "1.jpg", flat, quality=100)
    save(root / "a" / "2.webp", flat, lossless=True)
    save(root / "a" / "3.gif", flat)
    save(root / "a" / "4.PNG", np.dstack([flat, np.full((6, 6), 255, np.uint8)]))  # opaque
    save(root / "b" / "5.png", gray)
    save(root / "b" / "6.png", gray)
    (root / "b" / "notes.txt").write_text("no image")
    (root / "b" / ".hidden.png").write_text("no image")
    dataset = load(root)
    pixels = torch.cat([dataset.train.pixels, dataset.test.pixels]).short()
    labels = torch.cat([dataset.train.labels, dataset.test.labels])
    assert labels.sort().values.tolist() == [0] * 4 + [1] * 2
    expected = torch.tensor([10, 200, 90]).view(3, 1, 1)
    assert (pixels[labels == 0] - expected).abs().max() <= 2  # JPEG is lossy
    assert (pixels[labels == 1] == torch.from_numpy(gray).short()).all()


def test_only_gray_images_have_one_channel(root):
    gray8 = np.arange(36, dtype=np.uint8).reshape(6, 6) * 7
    gray16 = gray8.astype(np.uint16) * 257
    for name in ("a", "b"):
        save(root / "train" / name / "8.png", gray8)
        save(root / "train" / name / "16.png", Image.fromarray(gray16))
        save(root / "train" / name / "1.png", Image.fromarray(gray8 > 100))
    save(root / "test" / "a" / "x.png", gray8)
    dataset = load(root)
    assert dataset.train.pixels.shape == (6, 1, 6, 6)
    from1, from16, from8 = dataset.train.pixels[:3, 0]  # in the order of the files' names
    assert torch.equal(from1, torch.from_numpy(gray8 > 100).to(torch.uint8) * 255)
    assert torch.equal(from16, torch.from_numpy(gray8))
    assert torch.equal(from8, torch.from_numpy(gray8))


def test_resize_scales_the_centred_square(root):
    wide = np.zeros((8, 20, 3), np.uint8)
    wide[:, 6:14] = random_pixels(1, 8, 8)
    tall = wide.transpose(1, 0, 2)
    for name in ("a", "b"):
        save(root / "train" / name / "1.png", wide)
        save(root / "train" / name / "2.png", tall)
    save(root / "test" / "a" / "x.png", random_pixels(1, 8, 8))
    dataset = load(root, 8)
    square = torch.from_numpy(random_pixels(1, 8, 8)).permute(2, 0, 1)
    assert torch.equal(dataset.train.pixels[0], square)
    assert torch.equal(dataset.train.pixels[1], square.transpose(1, 2))
    small = load(root, 4).train.pixels
    assert small.shape == (4, 3, 4, 4)
    means = dataset.train.pixels.double().mean((2, 3)), small.double().mean((2, 3))
    assert (means[0] - means[1]).abs().max() < 12  # scaled: a cut or single pixels would change the mean


def test_a_photo_is_rotated_as_its_exif_data_say(root):
    upright = random_pixels(3)
    rotated = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    exif = rotated.getexif()
    exif[0x0112] = 6  # orientation: rotate clockwise by 90 degrees
    for name in ("a", "b"):
        save(root / "train" / name / "1.png", rotated, exif=exif)
    save(root / "test" / "a" / "1.png", upright)
    dataset = load(root)
    assert torch.equal(dataset.train.pixels[0], dataset.test.pixels[0])


def test_images_are_decoded_once_until_a_file_or_the_size_changes(root, monkeypatch):
    fill(root, 10)
    sizes = []
    decode = image_folder._decode
    monkeypatch.setattr(image_folder, "_decode", lambda *args: sizes.append(args[1]) or decode(*args))
    first = load(root)
    assert torch.equal(load(root).train.pixels, first.train.pixels)
    assert sizes == [None]
    load(root, 3)
    load(root)
    load(root, 3)
    assert sizes == [None, 3], "each size must have its own cache file"
    save(root / "cat" / "0.png", random_pixels(55))
    os.utime(
        root / "cat" / "0.png", ns=(1, 1)
    )  # without it the file could keep its size and, within a clock tick, its time
    changed = load(root)
    assert not torch.equal(
        torch.cat([changed.train.pixels, changed.test.pixels]),
        torch.cat([first.train.pixels, first.test.pixels]),
    )
    (root / "dog" / "9.png").unlink()
    assert len(load(root).train) + len(load(root).test) == 19
    (root / "dog" / "8.png").rename(root / "cat" / "8b.png")
    assert load(root).train.labels.bincount().tolist() != first.train.labels.bincount().tolist()
    assert sizes == [None, 3, None, None, None]


def swap_files(a: Path, b: Path) -> None:
    temporary = a.with_name("temporary")
    a.rename(temporary)
    b.rename(a)
    temporary.rename(b)


def write_in_place(a: Path, b: Path) -> None:
    a_content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(a_content)


@pytest.mark.parametrize("exchange", [swap_files, write_in_place])
def test_files_of_one_size_and_time_that_change_places_are_decoded_again(root, exchange):
    time = 10**18
    paths = []
    for label, name in enumerate(("cat", "dog")):
        for i in range(5):
            paths.append(root / name / f"{i}.bmp")
            save(paths[-1], random_pixels(100 * label + i))
            os.utime(paths[-1], ns=(time, time))
    assert len({path.stat().st_size for path in paths}) == 1

    def class_means(dataset: ImageDataset) -> list[float]:
        pixels = torch.cat([dataset.train.pixels, dataset.test.pixels]).double()
        labels = torch.cat([dataset.train.labels, dataset.test.labels])
        return [pixels[labels == label].mean().item() for label in (0, 1)]

    before = class_means(load(root))
    for i in range(5):
        exchange(root / "cat" / f"{i}.bmp", root / "dog" / f"{i}.bmp")
    for path in paths:
        os.utime(path, ns=(time, time))
    assert class_means(load(root)) == pytest.approx(before[::-1], rel=1e-12)


def test_the_cache_of_a_read_only_folder_lies_in_the_users_cache_folder(root, user_cache):
    fill(root)
    (root / ".bnexp").write_text("a file at this path stops even the superuser")
    assert torch.equal(load(root).train.pixels, load(root).train.pixels)
    assert len(list((user_cache / "bnexp").glob("image_folder-*.safetensors"))) == 1


def test_a_missing_root_is_named(root):
    assert error_message(root) == f"dataset.root={root}: there is no such folder"


@pytest.mark.parametrize(("classes", "number"), [((), "none"), (("cat",), "one, cat")])
def test_two_classes_are_required(root, classes, number):
    (root / ".hidden").mkdir(parents=True)
    for name in classes:
        save(root / name / "1.png", random_pixels(1))
    message = f"dataset.root={root}: {root} must hold at least two class folders, but holds {number}"
    assert error_message(root) == message


def test_a_class_without_images_is_named(root):
    fill(root)
    (root / "bird").mkdir()
    assert f"{root / 'bird'} holds no image" in error_message(root)


def test_a_test_class_without_training_images_is_named(root):
    fill(root / "train")
    save(root / "test" / "cats" / "1.png", random_pixels(1))
    assert error_message(root).endswith("the class test/cats is not in train; did you mean cat?")


def test_a_test_folder_requires_a_train_folder(root):
    fill(root / "test")
    assert error_message(root).endswith("it has test/<class> folders but no train/<class> folders")


def test_a_class_may_be_called_train(root):
    for name in ("bus", "train"):
        for i in range(5):
            save(root / name / f"{i}.png", random_pixels(i))
    assert load(root).classes == ("bus", "train")


def test_unused_folders_beside_train_and_test_are_named(root, caplog):
    fill(root / "train")
    fill(root / "val")
    load(root)
    assert "only train is read, not val" in caplog.text
    fill(root / "test")
    load(root)
    assert "only train and test are read, not val" in caplog.text


def test_too_few_images_for_a_test_set(root):
    for name in ("a", "b"):
        save(root / name / "1.png", random_pixels(1))
    assert "too few images" in error_message(root)


@pytest.mark.parametrize("content", [b"", b"no image", "half"])
@pytest.mark.parametrize("resize", [None, 4])
def test_an_image_that_cannot_be_read_is_named(root, content, resize):
    fill(root)
    path = root / "dog" / "3.png"
    path.write_bytes(path.read_bytes()[:90] if content == "half" else content)
    message = error_message(root, resize)
    assert message.startswith(f"dataset.root={root}: dog/3.png can't be read as an image (")
    assert not (root / ".bnexp").exists()


def test_a_broken_link_is_named(root):
    fill(root)
    (root / "dog" / "link.png").symlink_to(root / "nowhere.png")
    assert "dog/link.png can't be read" in error_message(root)


def test_32_bits_per_pixel_are_refused(root):
    fill(root)
    save(root / "cat" / "9.tif", Image.fromarray(np.zeros((6, 6), np.float32)))
    assert error_message(root).endswith("cat/9.tif has 32 bits per pixel, or a sign; save it with 8")


@pytest.mark.parametrize(("size", "example"), [((6, 8), "dog/9.png is 8x6"), ((8, 8), "dog/9.png is 8x8")])
def test_different_sizes_require_resize(root, size, example):
    fill(root)
    save(root / "dog" / "9.png", random_pixels(9, *size))
    message = error_message(root)
    assert message.startswith("dataset.resize=null: set dataset.resize=N")
    assert example in message
    assert load(root, 4).train.pixels.shape[2:] == (4, 4)


def test_one_size_that_is_not_square_requires_resize(root):
    fill(root, height=4, width=6)
    message = error_message(root)
    assert message.startswith("dataset.resize=null: set dataset.resize=N")
    assert message.endswith("is 6x4")


@pytest.mark.parametrize(("bits", "maximum"), [(12, 4095), (10, 1000), (16, 60_000), (8, 255)])
def test_the_range_of_16_bit_files_is_that_of_the_data_set(root, bits, maximum):
    """12-bit values saved with 16 bits were 17 of 256 levels: networks saw next to nothing."""
    ramp = np.linspace(0, maximum, 64).round().astype(np.uint16).reshape(8, 8)
    for name in ("cat", "dog"):
        for i in range(5):
            save(root / "train" / name / f"{i}.png", Image.fromarray(ramp if i == 0 else ramp // 2))
        save(root / "test" / name / "0.png", Image.fromarray(ramp // 2))
    pixels = load(root).train.pixels[0, 0]
    expected = np.rint(ramp.astype(float) * 255 / (2**bits - 1)).astype(int)
    assert np.abs(pixels.numpy().astype(int) - expected).max() <= 1
    assert len(pixels.unique()) > 60


def test_a_truncated_file_with_16_bits_is_named(root):
    fill(root)
    path = root / "cat" / "9.png"
    save(path, Image.fromarray(np.arange(3600, dtype=np.uint16).reshape(60, 60)))
    path.write_bytes(path.read_bytes()[:200])
    assert "cat/9.png can't be read as an image" in error_message(root, 6)


def test_transparent_pixels_are_read_on_white(root):
    """Icons whose shape is in their transparency: without it all of them were black."""
    for name, column in (("cat", 1), ("dog", 5)):
        pixels = np.zeros((8, 8, 4), np.uint8)
        pixels[:, column, 3] = 255  # an opaque black bar, and transparent black around it
        for part in ("train", "test"):
            for i in range(3):
                save(root / part / name / f"{i}.png", Image.fromarray(pixels))
    images = load(root).train
    for image, label in zip(images.pixels, images.labels.tolist(), strict=True):
        bar = (1, 5)[label]
        assert (image[:, :, bar] == 0).all()
        assert (image == 255).sum() == 3 * 8 * 7


def test_opaque_pixels_are_unchanged_by_the_way_to_white(root):
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    opaque = np.concatenate([colours, np.full((8, 8, 1), 255, np.uint8)], 2)
    for name in ("cat", "dog"):
        for i in range(3):
            save(root / "train" / name / f"{i}.png", Image.fromarray(opaque))
        save(root / "test" / name / "0.png", Image.fromarray(opaque))
    assert torch.equal(load(root).train.pixels[0], torch.from_numpy(colours.transpose(2, 0, 1)))


def test_a_16_bit_pgm_file_is_read(root):
    ramp = np.linspace(0, 65535, 64).round().astype(">u2").reshape(8, 8)
    for part, count in (("train", 3), ("test", 1)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                (root / part / name / f"{i}.pgm").write_bytes(b"P5 8 8 65535\n" + ramp.tobytes())
    pixels = load(root).train.pixels[0, 0].numpy().astype(int)
    assert np.abs(pixels - np.rint(ramp.astype(float) / 257)).max() <= 1


@pytest.mark.parametrize("parts", [("Train", "Test"), ("training", "testing"), ("TRAIN", "val", "TEST")])
def test_parts_with_other_names_are_not_taken_for_classes(root, parts):
    for part in parts:
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for i in range(5):
                Image.fromarray(random_pixels(i)).save(root / part / name / f"{i}.png")
    with pytest.raises(UserError, match=r"dataset\.root=.*look like parts, not classes; name them train"):
        datasets.load_dataset("image_folder", str(root), None)


@pytest.mark.parametrize(
    "parts", [("seg_train/seg_train", "seg_test/seg_test", "seg_pred"), ("train_images", "val_images")]
)
def test_parts_whose_names_say_more_are_not_taken_for_classes(root, parts):
    """The layout of several data sets on Kaggle: a network learned to tell train from test."""
    for part in parts:
        fill(root / part)
    assert "look like parts, not classes; name them train and test" in error_message(root)


def test_a_class_whose_name_holds_that_of_a_part_is_a_class(root):
    for seed, name in enumerate(("steam train", "tram")):
        for i in range(5):
            save(root / name / f"{i}.png", random_pixels(10 * seed + i))
    assert load(root).classes == ("steam train", "tram")


ONE_CLASS = "the images in all folders of a class are read as this one class:"


@pytest.mark.parametrize(
    ("folders", "note"),
    [
        (
            ("fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"),
            "fold1, fold2 are read as the classes, but each of them holds folders of the same names:"
            " cat, dog",
        ),
        (("animals/cat", "animals/dog", "cars/bus"), f"{ONE_CLASS} animals holds cat, dog"),
        (
            [f"train/{name}/{part}" for name in "abcd" for part in (f"{name}1", f"{name}2/deep", f"{name}3")],
            f"{ONE_CLASS} a holds a1, a2, a3; b holds b1, b2, b3; c holds c1, c2, c3; ...",
        ),
        (("animals/cat", "cars/bus"), None),
        (("cat", "dog", "dog/more"), None),
    ],
)
def test_folders_inside_a_class_folder_are_told(root, caplog, folders, note):
    """The names of the true classes may be one level deeper: two classes were trained instead of three."""
    for seed, folder in enumerate(folders):
        for i in range(3):
            save(root / folder / f"{i}.png", random_pixels(10 * seed + i))
    load(root)
    notes = [message for message in caplog.messages if "read as" in message]
    assert notes == ([f"{root}: {note}"] if note else [])


PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # the format's number for gray, gray and alpha, RGB, RGBA


def png_16_bits(path: Path, values: np.ndarray, transparent: Sequence[int] = ()) -> None:
    """A PNG file of ``values`` (H, W, channels) with 16 bits a channel; Pillow writes one channel alone."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, PNG_COLOURS[channels], 0, 0, 0))
    mark = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    content = header + mark + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def tiff_16_bits(path: Path, values: np.ndarray, order: str, packed: bool, planes: bool) -> None:
    """A TIFF file of ``values`` (H, W, 3) with 16 bits a channel, in either byte order."""
    height, width, _ = values.shape
    parts = np.moveaxis(values, 2, 0) if planes else values[None]
    data = [part.astype(f"{order}u2").tobytes() for part in parts]
    data = [zlib.compress(part) for part in data] if packed else data
    tags = [(256, [width]), (257, [height]), (258, [16] * 3), (259, [8 if packed else 1]), (262, [2]),
            (273, [0] * len(data)), (277, [3]), (278, [height]), (279, [len(part) for part in data]),
            (284, [2 if planes else 1])]  # fmt: skip
    long_values = 8 + 2 + 12 * len(tags) + 4  # where lists of values begin
    start = long_values + sum(4 * len(numbers) for _, numbers in tags if len(numbers) > 1)
    tags[5] = (273, [start + sum(map(len, data[:i])) for i in range(len(data))])
    entries, lists = b"", b""
    for tag, numbers in tags:
        packed_numbers = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            lists += packed_numbers
            packed_numbers = struct.pack(f"{order}I", long_values + len(lists) - len(packed_numbers))
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + packed_numbers
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + entries + bytes(4) + lists + b"".join(data))


def colours_16_bits(maximum: int, channels: int = 3) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, maximum + 1, (8, 8, channels)).astype(np.uint16)
    values[0, 0] = maximum
    return values


def error_of_16_bits(root: Path, values: np.ndarray, write) -> float:
    """The largest difference of the pixels that are read from values whose range is 12 bits."""
    for name in ("cat", "dog"):
        for part in ("train", "test"):
            write(root / part / name / "0")
    pixels = load(root).train.pixels[0].permute(1, 2, 0).numpy().astype(float)
    return float(np.abs(pixels - np.rint(values[..., : pixels.shape[2]] * (255 / 4095))).max())


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_images_with_16_bits_keep_the_levels_of_their_range(root, caplog, channels):
    """Of colours, Pillow reads the upper 8 bits: 16 of 256 levels of 12-bit values."""
    values = colours_16_bits(4095, channels)
    if channels in (2, 4):
        values[..., -1] = 65535
    expected = values.repeat(3, 2) if channels == 2 else values
    assert error_of_16_bits(root, expected, lambda path: png_16_bits(path, values)) <= 0.5
    assert caplog.text.count("images with 16 bits a channel: 4095 is white") == 1


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_images_with_16_bits_keep_the_levels_of_their_range(root, order, packed):
    values = colours_16_bits(4095)
    write = lambda path: tiff_16_bits(path, values, order, packed, planes=False)  # noqa: E731
    assert error_of_16_bits(root, values, write) <= 0.5


@pytest.mark.parametrize("packed", [False, True])
def test_tiff_images_with_16_bits_in_planes_are_refused(root, packed):
    """Pillow reads the bytes of one row as two rows where they are not packed."""
    fill(root)
    tiff_16_bits(root / "cat" / "x.tif", colours_16_bits(4095), "<", packed, planes=True)
    problem = "has 16 bits a channel in a form that cannot be read; save it with 8"
    assert error_message(root).endswith(f"cat/x.tif {problem}")


def test_transparent_pixels_with_16_bits_are_white_and_do_not_count(root):
    values = colours_16_bits(4095, 4)
    values[..., 3] = 65535
    values[2, 3] = (60_000, 50_000, 40_000, 0)
    marked = values[..., :3].copy()
    for write in (
        lambda path: png_16_bits(path, values),
        lambda path: png_16_bits(path, marked, transparent=(60_000, 50_000, 40_000)),
    ):
        expected = values[..., :3].copy()
        expected[2, 3] = 4095
        assert error_of_16_bits(root, expected, write) <= 0.5


def test_a_pipe_is_not_opened_as_an_image(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: is not a regular file"):
        read_images([tmp_path / "pipe"], NetworkInput(1, 8, 8, (0.0,), (1.0,), ("cat", "dog")))


def test_an_image_with_16_bits_is_classified_as_the_network_was_trained(root):
    """By its own range, a dark image was twice as bright as in training."""
    bright, dark = (colours_16_bits(maximum, 1) for maximum in (4095, 1000))
    for part in ("train", "test"):
        for name, values in (("cat", dark), ("dog", bright)):
            png_16_bits(root / part / name / "0.png", values)
    dataset = load(root)
    assert dataset.white == 4095
    data = NetworkInput(1, 8, 8, (0.0,), (1.0,), dataset.classes, dataset.white)
    assert NetworkInput.from_record(data.record(), "run") == data
    images = read_images([root / "train" / name / "0.png" for name in ("cat", "dog")], data)
    assert torch.equal(images, dataset.train.pixels)


def test_gray_images_with_16_bits_and_a_transparent_value_keep_their_levels(root):
    """Every value above 255 was white, because PIL clips 16 bits when it looks for transparent pixels."""
    ramp = np.linspace(0, 4095, 64).round().astype(np.uint16).reshape(8, 8)
    ramp[0, 0] = 65535  # transparent, as "no data" often is: no value of the range in use
    for i in range(12):
        png_16_bits(root / ("cat" if i % 2 else "dog") / f"{i}.png", ramp[..., None], transparent=[65535])
    pixels = load(root).train.pixels[0, 0].numpy().astype(int)
    expected = np.rint(ramp.astype(float) * 255 / 4095).astype(int)
    expected[0, 0] = 255
    assert np.abs(pixels - expected).max() <= 1


@pytest.mark.parametrize("name", ["test/x.png", "test/.hidden/x.png"])
def test_a_test_folder_without_classes_is_refused(root, name):
    fill(root / "train")
    save(root / name, random_pixels(7))
    assert "test holds no class folders" in error_message(root)


def test_a_class_without_a_test_image_is_told(root, caplog):
    fill(root / "train")
    save(root / "test" / "dog" / "x.png", random_pixels(7))
    load(root)
    assert caplog.text.count("test has no image of the class cat: nothing is measured on it") == 1
    caplog.clear()
    save(root / "test" / "cat" / "x.png", random_pixels(8))
    load(root)
    assert "no image of the class" not in caplog.text


@pytest.mark.parametrize("ending", ["gif", "tif", "webp"])
def test_files_with_several_images_are_told(root, caplog, ending):
    fill(root)
    load(root)
    assert "several images" not in caplog.text
    pages = [Image.fromarray(random_pixels(seed)) for seed in (7, 8, 9)]
    save(root / "cat" / f"pages.{ending}", pages[0], save_all=True, append_images=pages[1:])
    load(root)
    assert f"1 files hold several images, and only the first is read: cat/pages.{ending}" in caplog.text


def test_a_lab_image_has_a_band_a_and_no_transparent_pixels(root, caplog):
    fill(root)
    colours = Image.fromarray(np.full((6, 6, 3), (200, 128, 128), np.uint8), mode="RGB")
    colours.info.clear()
    Image.merge("LAB", colours.split()).save(root / "cat/lab.tif")
    with caplog.at_level("INFO"):
        images = load(root)
    assert "transparent" not in caplog.text
    pixels = next(p for p in images.train.pixels if (p == p[0, 0, 0]).all())  # L 200 without colour is a gray
    assert 180 < pixels.float().mean() < 210
