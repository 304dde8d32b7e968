"""Folders of images: what is listed, decoded, said of them in the title, refused in one sentence, and cached."""

import logging
import os

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from robust_adapt import build_model
from robust_adapt.config import DataConfig
from robust_adapt.data import Augmentation, folders, from_datasets, load_data
from robust_adapt.errors import ConfigError, DataError

PETS = {"classes": ("cat", "dog"), "size": 8, "counts": (("train", 4), ("test", 2)), "name": "pets"}
UPRIGHT = "Expected opaque images of one frame and 8 bits a channel, but got "


def error_of(call, *arguments, **options):
    with pytest.raises(DataError) as caught:
        call(*arguments, **options)
    assert len(str(caught.value)) <= 600
    return str(caught.value)


def folder_config(root, **options):
    return DataConfig(name=f"folder:{root}", **({"validation": 2} | options))


def load(root, **options):
    return load_data(folder_config(root, **options))


def pixels_of(path):
    return np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)


# what they are called


@pytest.mark.parametrize(("suffix", "title"), [(".png", "CIFAR-10 (folder copy)"), (".jpg", "CIFAR-10 (JPEG copy)")])
def test_a_copy_of_cifar10_is_never_taken_for_the_official_images(make_folder, suffix, title):
    data = load(make_folder(suffix=suffix), validation=10)
    assert data.title == title and not data.official
    assert (data.channels, data.size, len(data.train), len(data.validation), len(data.test)) == (3, 32, 10, 10, 10)
    assert data.augmentation == Augmentation(4, True)


def test_another_folder_is_named_after_itself(make_folder, caplog):
    root = make_folder(**PETS)
    data = load(root)
    assert (data.title, data.classes, data.augmentation) == (
        "pets (folder copy)",
        ("cat", "dog"),
        Augmentation(0, False),
    )
    assert any(np.array_equal(image, pixels_of(root / "test/dog/1.png")) for image in data.test.images[2:].numpy())
    assert not caplog.records


def test_the_augmentation_can_be_set(make_folder):
    data = load(make_folder(), validation=10, crop=2, flip=False)
    assert data.augmentation == Augmentation(2, False)


# pixels: right, said, or refused


def test_exif_turns_an_image_and_the_title_and_the_log_say_so(make_folder, caplog):
    root = make_folder(**PETS)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(root / "test/cat/0.png").save(root / "test/cat/0.png", exif=exif)
    data = load(root)
    assert np.array_equal(data.test.images[0], np.rot90(pixels_of(root / "test/cat/0.png"), -1, (1, 2)))
    assert data.title == "pets (folder copy, turned by EXIF)"
    assert caplog.messages == [f"{root}: of 12 images 1 are turned by EXIF."]
    caplog.clear()
    assert load(root).title == data.title and len(caplog.messages) == 1  # from the cache too


def test_other_colours_are_said(make_folder):
    root = make_folder(**PETS)
    cmyk = Image.open(root / "train/cat/0.png").convert("CMYK")
    cmyk.save(root / "train/cat/0.tif")
    (root / "train/cat/0.png").unlink()
    data = load(root)
    assert data.title == "pets (folder copy, converted from CMYK)"
    wanted = np.asarray(cmyk.convert("RGB")).transpose(2, 0, 1)
    images = torch.cat([data.train.images, data.validation.images]).numpy()
    assert any(np.array_equal(image, wanted) for image in images)


def deep(path):
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(path)


def transparent(path):
    Image.new("RGBA", (8, 8), (1, 2, 3, 4)).save(path)


def animated(path):
    Image.new("RGB", (8, 8), "red").save(path, save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")])


def damaged(path):
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("spoil", "kind", "cure", "mend"),
    [
        (
            deep,
            "with more than 8 bits a channel",
            "scale to 8 bits those with more than 8 bits a channel",
            lambda image: Image.fromarray((np.asarray(image) // 257).astype(np.uint8)),
        ),
        (
            transparent,
            "with transparent pixels",
            "lay on a background, Image.alpha_composite(), those with transparent pixels",
            lambda image: Image.alpha_composite(Image.new("RGBA", image.size, "white"), image),
        ),
        (
            animated,
            "with several frames",
            "keep one frame, image.copy(), of those with several frames",
            lambda image: image.copy(),
        ),
    ],
)
def test_what_8_bits_of_rgb_do_not_hold(make_folder, spoil, kind, cure, mend):
    root = make_folder(**PETS)
    path = root / "train/dog/1.png"
    spoil(path)
    assert error_of(load, root) == f"{UPRIGHT}1 of 12 {kind} ('train/dog/1.png'); {cure}."
    with Image.open(path) as image:
        mended = mend(image)
    mended.save(path)
    assert len(load(root).train) == 6


def test_every_file_that_cannot_be_used_is_in_one_sentence(make_folder):
    root = make_folder(**PETS | {"counts": (("train", 9), ("test", 3))})
    for number in range(7):
        damaged(root / f"train/cat/{number}.png")
    damaged(root / "test/dog/0.png")
    assert error_of(load, root) == (
        f"{UPRIGHT}8 of 24 that cannot be read ('train/cat/0.png', 'train/cat/1.png', 'train/cat/2.png', "
        "'train/cat/3.png' and 4 more): image file is truncated; copy anew or delete those that cannot be read."
    )
    deep(root / "train/dog/2.png")
    transparent(root / "test/cat/1.png")
    animated(root / "test/cat/2.png")
    assert error_of(load, root) == (
        f"{UPRIGHT}8 of 24 that cannot be read ('train/cat/0.png' and 7 more), 1 of 24 with more than 8 bits a channel "
        "('train/dog/2.png'), 1 of 24 with transparent pixels ('test/cat/1.png'), 1 of 24 with several frames "
        "('test/cat/2.png'): image file is truncated; copy anew or delete those that cannot be read, scale to 8 bits "
        "those with more than 8 bits a channel, lay on a background, Image.alpha_composite(), those with transparent "
        "pixels, keep one frame, image.copy(), of those with several frames."
    )
    for path in [*root.glob("train/cat/[0-6].png"), root / "test/dog/0.png", root / "train/dog/2.png"]:
        path.unlink()
    for number in (1, 2):
        (root / f"test/cat/{number}.png").unlink()
    assert len(load(root).test) == 3


def test_images_of_several_sizes(make_folder):
    root = make_folder()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(root / "test" / "cat" / "0.png")
    assert error_of(load, root, validation=10) == (
        "Expected square images of one size, but got 2 shapes, such as (16, 16); set `data.size` to scale and crop "
        "them."
    )
    data = load(root, validation=10, size=8)
    assert (data.size, data.title) == (8, "pictures (folder copy, resized to 8 pixels)")


@pytest.mark.parametrize(("width", "height"), [(20, 12), (9, 30), (8, 16), (16, 16), (5, 5)])
def test_size_is_resize_and_center_crop(make_folder, width, height):
    root = make_folder(**PETS)
    path = root / "test/cat/0.png"
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8))
    image.save(path)
    data = load(root, size=8)
    side = min(width, height)
    scaled = image.resize((int(8 * width / side), int(8 * height / side)), Image.Resampling.BICUBIC)
    left, top = (scaled.width - 8) / 2, (scaled.height - 8) / 2
    wanted = np.asarray(scaled)[round(top) : round(top) + 8, round(left) : round(left) + 8]
    assert np.array_equal(data.test.images[0], wanted.transpose(2, 0, 1))
    cropped = ["cropped to their middle"] if width != height else []
    assert data.title == f"pets ({', '.join(['folder copy', *cropped, 'resized to 8 pixels'])})"


def test_the_cure_of_an_architecture_that_needs_another_size_works(make_folder):
    root = make_folder(**PETS | {"size": 28})
    with pytest.raises(ConfigError) as caught:
        build_model("ResNet18", width=4, size=load(root).size)
    assert str(caught.value) == (
        "Expected images of 4, 8, 16, 32 or 64 pixels a side for ResNet18, but got 28; set `data.size` for a folder, "
        "resize in the transform of other data sets."
    )
    build_model("ResNet18", width=4, size=load(root, size=32).size)
    transform = torchvision.transforms.Compose(
        [torchvision.transforms.Resize(32), torchvision.transforms.CenterCrop(32), torchvision.transforms.ToTensor()]
    )
    parts = [torchvision.datasets.ImageFolder(str(root / part), transform) for part in ("train", "test")]
    build_model("ResNet18", width=4, size=from_datasets(*parts, ["cat", "dog"], title="mine").size)


# what is listed


def test_hidden_names_are_passed_over(make_folder):
    root = make_folder(**PETS)
    plain = load(root)
    for part in ("train", "test"):
        for name in (".ipynb_checkpoints", "__MACOSX", "cat/.ipynb_checkpoints", "cat/@eaDir"):
            (root / part / name).mkdir()
            (root / part / name / "0.png").write_bytes((root / part / "dog/0.png").read_bytes())
        (root / part / "cat/._0.png").write_bytes(b"resource fork")
        (root / part / "cat/Thumbs.db").write_bytes(b"thumbnails")
        (root / part / ".DS_Store").write_bytes(b"")
    data = load(root)
    assert data.classes == ("cat", "dog")
    assert torch.equal(data.train.images, plain.train.images) and torch.equal(data.test.images, plain.test.images)


def test_a_folder_inside_a_hidden_one_is_read(make_folder):
    root = make_folder(**PETS | {"name": ".cache/pets"})
    assert load(root).title == "pets (folder copy)"


def test_what_torchvision_says_is_passed_on(make_folder):
    root = make_folder(**PETS)
    (root / "train/empty").mkdir()
    assert error_of(load, root) == (
        f"Expected images as {root}/train/CLASS/*.jpg or *.png, but torchvision says: Found no valid file for the "
        "classes empty; the folder after `folder:` holds train/ and test/, and they a folder with images for each "
        "class."
    )
    (root / "train/empty").rmdir()
    assert len(load(root).train) == 6


def test_only_the_classes_that_differ_are_named(make_folder):
    root = make_folder(**PETS | {"classes": [f"n{number:08}" for number in range(60)], "counts": (("train", 1),)})
    make_folder(**PETS | {"classes": [f"n{number:08}" for number in range(1, 60)], "counts": (("test", 1),)})
    assert error_of(load, root) == (
        "Expected the same classes under train/ and test/, but got 'n00000000' under train/ only; add or remove "
        "folders."
    )
    for number in (8, 9, 10):
        (root / f"test/n{number:08}").rename(root / f"test/other{number}")
    assert error_of(load, root) == (
        "Expected the same classes under train/ and test/, but got 'n00000000', 'n00000008' and 2 more under train/ "
        "only and 'other10', 'other8' and 1 more under test/ only; add or remove folders."
    )
    for number in (8, 9, 10):
        (root / f"test/other{number}").rename(root / f"test/n{number:08}")
    (root / "train/n00000000/0.png").unlink()
    (root / "train/n00000000").rmdir()
    assert len(load(root).classes) == 59


@pytest.mark.parametrize(
    ("classes", "class_number", "as_text", "by_number"),
    [
        (("0", "1", "10", "11", "2"), 2, "10", "2"),
        (("-1", "-2", "0"), 0, "-1", "-2"),
        (("class1", "class10", "class9"), 1, "class10", "class9"),
    ],
)
def test_classes_that_text_and_numbers_order_otherwise_are_said(
    make_folder, caplog, classes, class_number, as_text, by_number
):
    root = make_folder(**PETS | {"classes": classes})
    data = load(root)
    assert data.classes == tuple(torchvision.datasets.ImageFolder(str(root / "train")).classes) == classes
    assert data.title == "pets (folder copy, classes in text order)"
    assert caplog.messages == [
        f"{root}: class {class_number} is {as_text!r}, as ImageFolder sorts names; by their numbers it would be "
        f"{by_number!r}. A model that was trained in that order is judged wrongly here: name the folders with leading "
        "zeros for it."
    ]


def test_the_cure_of_numbers_as_text(make_folder, caplog):
    root = make_folder(**PETS | {"classes": ("00", "01", "02", "10", "11")})
    assert load(root).title == "pets (folder copy)" and not caplog.messages


@pytest.mark.parametrize("classes", [("n01440764", "n01443537"), ("0", "1", "9"), ("cat", "dog2", "dog10")[:2]])
def test_classes_of_one_order_are_not_spoken_of(make_folder, caplog, classes):
    assert load(make_folder(**PETS | {"classes": classes})).title == "pets (folder copy)" and not caplog.messages


def test_links(make_folder, tmp_path):
    root = make_folder(**PETS)
    (root / "train/dog").rename(tmp_path / "elsewhere")
    (root / "train/dog").symlink_to(tmp_path / "elsewhere")
    (root / "train/cat/9.png").symlink_to(tmp_path / "elsewhere/0.png")
    assert len(load(root).train) == 7
    (root / "train/cat/8.png").symlink_to(tmp_path / "nowhere.png")
    assert error_of(load, root).startswith(
        f"{UPRIGHT}1 of 14 that cannot be read ('train/cat/8.png'): [Errno 2] No such file or directory: "
    )
    (root / "train/cat/8.png").unlink()
    (root / "train/owl").symlink_to(tmp_path / "nowhere")
    assert "torchvision says: Found no valid file for the classes owl;" in error_of(load, root)
    (root / "train/owl").unlink()
    assert len(load(root).train) == 7


# the cache


@pytest.fixture
def decoded(monkeypatch):
    """The paths of the files that were decoded."""
    calls, read = [], folders._read

    def spy(path, **options):
        calls.append(path)
        return read(path, **options)

    monkeypatch.setattr(folders, "_read", spy)
    return calls


def caches(tmp_path):
    return sorted((tmp_path / "cache" / "robust_adapt").iterdir())


def test_the_second_load_comes_from_the_cache(make_folder, decoded):
    root = make_folder(**PETS)
    first = load(root)
    second = load(root)
    assert len(decoded) == 12
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.test.labels, second.test.labels)
    assert first.train.images.stride() == second.train.images.stride()


def test_a_changed_file_misses_the_cache(make_folder, decoded):
    root = make_folder(**PETS)
    load(root)
    path = root / "test" / "cat" / "0.png"
    status = os.stat(path)
    Image.fromarray(np.full((8, 8, 3), 77, np.uint8)).save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    data = load(root)
    assert len(decoded) == 24 and (data.test.images[0] == 77).all()


def test_another_size_misses_the_cache(make_folder, decoded):
    root = make_folder(**PETS)
    load(root)
    assert load(root, size=16).size == 16
    assert len(decoded) == 24


def test_another_way_to_decode_misses_the_cache(make_folder, decoded, monkeypatch):
    root = make_folder(**PETS)
    load(root)
    monkeypatch.setattr(folders, "DECODING", folders.DECODING + 1)
    load(root)
    assert len(decoded) == 24


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[400] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        cut,
        flip,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x93NUMPY"),
    ],
)
@pytest.mark.filterwarnings("ignore:unclosed file")  # np.load of a cut one
def test_a_damaged_or_foreign_cache_is_made_anew(make_folder, decoded, tmp_path, spoil):
    root = make_folder(**PETS)
    first = load(root)
    for path in caches(tmp_path):
        spoil(path)
    for _ in range(2):
        data = load(root)
        assert torch.equal(data.train.images, first.train.images) and torch.equal(data.test.images, first.test.images)
    assert len(decoded) == 24


def test_a_cache_that_cannot_be_written_is_done_without(make_folder, tmp_path):
    (tmp_path / "cache").write_text("a file in the place of the folder")
    assert len(load(make_folder(**PETS)).test) == 4


def test_a_full_disk_leaves_no_half_cache(make_folder, tmp_path, monkeypatch):
    def full(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    root = make_folder(**PETS)
    monkeypatch.setattr(np, "savez", full)
    assert len(load(root).test) == 4
    assert not caches(tmp_path)


def test_what_is_said_is_a_warning_of_the_log(make_folder, caplog):
    load(make_folder(**PETS), size=16)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
