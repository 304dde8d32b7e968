"""345 generated situations of image files, folders, labels and items, the same ones everywhere: each ends in the pixels
and labels that NumPy finds by hand, or in one sentence whose cure, done by the test, leads there."""

import io
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from robust_adapt.config import DataConfig
from robust_adapt.data import from_datasets, load_data
from robust_adapt.errors import RobustAdaptError

WORDS = {
    "deep": "with more than 8 bits a channel",
    "transparent": "with transparent pixels",
    "frames": "with several frames",
    "damaged": "that cannot be read",
    "not square": "Expected square images of one size",
}
# how an image is turned for EXIF orientation n, on (H, W, C)
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}
MODES = {
    "PNG": ["1", "L", "P", "RGB", "LA", "RGBA", "I;16", "RGB of 16 bits", "P transparent", "L transparent"],
    "JPEG": ["L", "RGB", "CMYK"],
    "BMP": ["1", "L", "P", "RGB"],
    "TIFF": ["1", "L", "RGB", "RGBA", "CMYK", "LAB", "YCbCr", "I;16", "F", "I"],
    "GIF": ["L", "P", "RGB", "RGBA"],
    "WEBP": ["RGB", "RGBA"],
}
FORMS = [(fmt, mode) for fmt, modes in MODES.items() for mode in modes]
WIDE = ("I;16", "I", "F", "RGB of 16 bits")
MANY_FRAMES = ("PNG", "TIFF", "GIF", "WEBP")
TURNABLE = ("PNG", "JPEG", "TIFF", "WEBP")


def situations(count):
    return settings(max_examples=count, derandomize=True, database=None)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def refusal(call):
    """The one sentence of ``call``, or None and what it gives."""
    try:
        return None, call()
    except RobustAdaptError as error:
        text = str(error)
        assert text.startswith("Expected ") and text.endswith(".") and len(text) <= 600 and "\n" not in text, text
        return text, None


# files


def png_of_16_bits(width, height, seed):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    values = np.random.default_rng(seed).integers(0, 65536, (height, width, 3)).astype(">u2")
    lines = b"".join(b"\0" + line.tobytes() for line in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def picture(mode, width, height, seed, opaque):
    random = np.random.default_rng(seed)
    colours = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    if mode in ("I;16", "I", "F"):
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        return Image.fromarray(random.integers(0, 60000, (height, width)).astype(kind))
    image = colours.convert(mode.split()[0]) if mode != "LAB" else Image.new("LAB", (width, height), (90, 140, 120))
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(np.full((height, width), 255 if opaque else 200, np.uint8)))
    return image


@st.composite
def files(draw):
    fmt, mode = draw(st.sampled_from(FORMS))
    width = draw(st.integers(2, 12))
    height = draw(st.one_of(st.just(width), st.integers(2, 12)))
    frames = draw(st.sampled_from([1, 1, 1, 2])) if fmt in MANY_FRAMES else 1
    whole = frames > 1 or mode in WIDE  # of two faults in a file PIL tells the one that it meets first
    return {
        "fmt": fmt,
        "mode": mode,
        "width": width,
        "height": height,
        "seed": draw(st.integers(0, 9)),
        "opaque": draw(st.booleans()),
        "turn": draw(st.sampled_from([1, *range(1, 9)])) if fmt in TURNABLE else 1,
        "frames": frames,
        "cut": not whole and draw(st.sampled_from([False] * 5 + [True])),
        "size": draw(st.sampled_from([None, 8])),
    }


def content_of(file, *, turn):
    if file["mode"] == "RGB of 16 bits":
        return png_of_16_bits(file["width"], file["height"], file["seed"])
    image = picture(*(file[name] for name in ("mode", "width", "height", "seed", "opaque")))
    options = {"lossless": True} if file["fmt"] == "WEBP" else {}
    if turn != 1:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = turn
    if file["frames"] > 1:
        options |= {"save_all": True, "append_images": [image.transpose(Image.Transpose.ROTATE_180)]}
    if file["mode"].endswith(" transparent"):
        options["transparency"] = image.getpixel((0, 0))
    stream = io.BytesIO()
    image.save(stream, file["fmt"], **options)
    return stream.getvalue()


def faults_of(file, content):
    """What a file has that 8 bits of RGB do not hold, by its making; frames where the encoder kept two."""
    if file["cut"]:
        return "damaged"
    if file["mode"] in WIDE:
        return "deep"
    with Image.open(io.BytesIO(content)) as image:
        if getattr(image, "n_frames", 1) > 1:
            return "frames"
    if file["mode"].endswith(" transparent") or (file["mode"] in ("LA", "RGBA") and not file["opaque"]):
        return "transparent"
    return None


def mended(content, file):
    """The cures of the sentences, done with PIL and NumPy: one frame, 8 bits, a background."""
    with Image.open(io.BytesIO(content)) as image:
        if faults_of(file, content) == "deep":
            values = np.asarray(image, dtype=np.float64)
            return Image.fromarray((values * (255 / max(255, values.max()))).astype(np.uint8))
        image = image.copy()
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return Image.fromarray(as_rgb(image))  # without an EXIF block


def resized(pixels, size):
    """The short side at ``size``, then the middle, by hand."""
    height, width = pixels.shape[:2]
    side = min(width, height)
    image = Image.fromarray(pixels).resize((int(size * width / side), int(size * height / side)), 3)
    top, left = round((image.height - size) / 2), round((image.width - size) / 2)
    return np.asarray(image)[top : top + size, left : left + size]


def as_rgb(image):
    return np.asarray(image.convert("RGB"))


@situations(130)
@given(files())
def test_a_file_in_a_folder_and_in_a_data_set(file):
    content = content_of(file, turn=file["turn"])
    fault = faults_of(file, content)
    if fault == "damaged":
        content = content[: len(content) // 2]
    with tempfile.TemporaryDirectory() as name:
        root, odd = Path(name), Path(name) / f"test/b/odd.{file['fmt'].lower()}"
        sides = [8] if file["size"] else [file["height"] if file["turn"] >= 5 else file["width"]]
        for part, label, number in [(p, c, n) for p in ("train", "test") for c in "ab" for n in range(2)]:
            (root / part / label).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", sides * 2, (number, 2, 3)).save(root / part / label / f"{number}.png")
        odd.write_bytes(content)

        def load(size=file["size"]):
            return load_data(DataConfig(name=f"folder:{root}", size=size, crop=0))

        sentence, data = refusal(load)
        if fault == "damaged":
            assert WORDS[fault] in sentence and "'test/b/odd." in sentence, sentence
            odd.unlink()
            assert len(load().test) == 4
            return
        if fault:
            assert WORDS[fault] in sentence and "'test/b/odd." in sentence, sentence
            odd.unlink()
            odd, image = odd.with_name("odd.tif"), mended(content, file)
            image.save(odd)
            sentence, data = refusal(load)
            turned = as_rgb(image)
        else:
            with Image.open(io.BytesIO(content_of(file, turn=1))) as image:
                turned = TURNS[file["turn"]](as_rgb(image))
        wanted = turned if file["size"] is None else resized(turned, file["size"])
        if turned.shape[0] != turned.shape[1] and file["size"] is None:
            assert sentence.startswith(WORDS["not square"]) and "set `data.size`" in sentence
            data, wanted = load(8), resized(turned, 8)
        found = data.test.images[data.test.labels == 1][2]
        assert np.array_equal(found.permute(1, 2, 0), wanted)
        if not fault and file["turn"] != 1:
            assert "turned by EXIF" in data.title
        assert ("converted from" in data.title) == (not fault and file["mode"] in ("CMYK", "LAB", "YCbCr"))

    in_a_data_set(file, content, fault, turned)


def in_a_data_set(file, content, fault, turned):
    """The same file as a picture of a data set, lazily opened as its loader would."""

    def read(image):
        items = [(image, number % 2) for number in range(4)]
        return from_datasets(items, items, ["a", "b"], title="mine")

    if turned.shape[0] != turned.shape[1]:
        return
    with Image.open(io.BytesIO(content)) as image:
        sentence, data = refusal(lambda: read(image))
    if fault:
        assert WORDS[fault] in sentence and "number 0" in sentence
        data = read(mended(content, file))
    pixels = data.test.images[0].permute(1, 2, 0).numpy()
    assert np.array_equal(pixels if pixels.shape[2] == 3 else pixels.repeat(3, 2), turned)


# folders

NAMES = [
    "cat",
    "кошка",
    "猫",
    "e\u0301te\u0301",
    "with space",
    "🐱",
    "[b]",
    "a'b",
    "x" * 120,
    "caf\udce9",
    "7",
    "-3",
    "dog.d",
]


class Folder:
    """A data set on disk, what it should be read as, and the faults in it: a fragment of the sentence -> the cure."""

    def __init__(self, root, classes):
        self.root, self.faults, self.pixels = root, {}, {}
        for part in ("train", "test"):
            for number, name in enumerate(classes):
                for index in range(2):
                    self.add(part, name, f"{index}.png", number * 10 + index)

    def add(self, part, name, file, value, folder=None):
        path = self.root / part / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (6, 6), value).save(path)
        self.pixels[part, name, path] = value
        return path

    def fault(self, words, cure):
        self.faults[words] = cure


def hide(folder, name, draw):
    for part in ("train", "test"):
        for place in (f".{name}", f"{name}/.ipynb_checkpoints", "__MACOSX"):
            (folder.root / part / place).mkdir(exist_ok=True)
            Image.new("L", (3, 3)).save(folder.root / part / place / "x.png")
        (folder.root / part / name / "._0.png").write_bytes(b"no image")
        (folder.root / part / name / "notes.txt").write_text("no image")


def nest(folder, name, draw):
    folder.add("train", name, "deep/er/9.png", 101)


def other_suffixes(folder, name, draw):
    for number, suffix in enumerate((".PNG", ".Bmp", ".gif", ".TIFF", ".webp")):
        path = folder.add("test", name, f"8{suffix.lower()}", 150 + number)
        folder.pixels["test", name, path.rename(path.with_suffix(suffix))] = folder.pixels.pop(("test", name, path))


def odd_file_name(folder, name, draw):
    folder.add("train", name, f"{draw(st.sampled_from(NAMES[:-1]))}.png", 77)


def link_a_class(folder, name, draw):
    target = folder.root / f"elsewhere{len(list(folder.root.iterdir()))}"
    (folder.root / "train" / name).rename(target)
    (folder.root / "train" / name).symlink_to(target)


def dangle(folder, name, draw):
    link = folder.root / "test" / name / "gone.jpg"
    if not link.is_symlink():
        link.symlink_to(folder.root / "nowhere")
        folder.fault("that cannot be read", link.unlink)


def damage(folder, name, draw):
    paths = [folder.root / "train" / name / f"bad{number}.png" for number in range(draw(st.integers(1, 30)))]
    for path in paths:
        path.write_bytes(draw(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"<html>", b"\xff\xd8\xff\xe0"])))
    folder.fault(f"{len(paths)} of ", lambda: [path.unlink() for path in paths])


def empty_class(folder, name, draw):
    made = [folder.root / part / "zz empty" for part in ("train", "test")]
    for path in made:
        path.mkdir(exist_ok=True)
    folder.fault(
        "torchvision says: Found no valid file for the classes zz empty", lambda: [path.rmdir() for path in made]
    )


def missing_class(folder, name, draw):
    Image.new("L", (6, 6), 1).save((folder.root / "test" / "zz only").mkdir() or folder.root / "test/zz only/0.png")

    def cure():
        (folder.root / "test/zz only/0.png").unlink()
        (folder.root / "test/zz only").rmdir()

    folder.fault("'zz only' under test/ only", cure)


CHANGES = [hide, nest, other_suffixes, odd_file_name, link_a_class]
FAULTS = [dangle, damage, empty_class, missing_class]


@situations(45)
@given(st.lists(st.sampled_from(NAMES), min_size=2, max_size=4, unique=True), st.data())
def test_a_folder_of_any_layout(classes, draw):
    classes = sorted(classes)
    changes = draw.draw(st.lists(st.sampled_from(CHANGES), max_size=3, unique=True))
    changes += draw.draw(st.lists(st.sampled_from(FAULTS), max_size=2, unique_by=lambda f: f in (dangle, damage) or f))
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(Path(name), classes)
        for change in changes:
            change(folder, draw.draw(st.sampled_from(classes)), draw.draw)

        def load():
            return load_data(DataConfig(name=f"folder:{folder.root}"))

        while folder.faults:
            sentence, _ = refusal(load)
            words = next((words for words in folder.faults if words in sentence), None)
            assert words, (sentence, folder.faults)
            folder.faults.pop(words)()
        data = load()
    assert data.classes == tuple(classes)
    for part, splits in {"train": (data.train, data.validation), "test": (data.test,)}.items():
        found = sorted((int(y), int(x[0, 0, 0])) for s in splits for x, y in zip(s.images, s.labels, strict=True))
        where = {(part, name): label for label, name in enumerate(classes)}
        wanted = [(where[key[:2]], value) for key, value in folder.pixels.items() if key[0] == part]
        assert found == sorted(wanted)


@situations(30)
@given(st.lists(st.integers(-20, 130), min_size=2, max_size=12, unique=True), st.sampled_from(["", "c", "класс "]))
def test_classes_that_are_numbers(numbers, prefix):
    names = [f"{prefix}{number}" for number in numbers]
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(Path(name), names)
        data = load_data(DataConfig(name=f"folder:{folder.root}"))
    assert data.classes == tuple(sorted(names))
    by_value = sorted(numbers, key=abs if prefix else None)
    ordered = [int(each.removeprefix(prefix)) for each in data.classes]
    if not prefix or min(numbers) >= 0:
        assert ("classes in text order" in data.title) == (ordered != by_value)


# labels and items

LABELS = {
    "int": lambda n: n,
    "float": float,
    "numpy int": np.int64,
    "numpy uint8": np.uint8,
    "numpy float": np.float32,
    "array of none": np.array,
    "array of one": lambda n: np.array([n]),
    "tensor of none": torch.tensor,
    "tensor of one": lambda n: torch.tensor([n]),
    "tensor of a float": lambda n: torch.tensor(float(n)),
    "tensor of uint8": lambda n: torch.tensor(n, dtype=torch.uint8),
    "list of one": lambda n: [n],
}
CURED = {  # the label, words of the sentence, the cure
    "one-hot tensor": (
        lambda n: torch.eye(4)[n],
        "torch.as_tensor(label).float().argmax()",
        lambda y, _: torch.as_tensor(y).float().argmax(),
    ),
    "one-hot list": (
        lambda n: np.eye(4, dtype=int)[n].tolist(),
        "torch.as_tensor(label).float().argmax()",
        lambda y, _: torch.as_tensor(y).float().argmax(),
    ),
    "one-hot bools": (
        lambda n: np.eye(4, dtype=bool)[n],
        "torch.as_tensor(label).float().argmax()",
        lambda y, _: torch.as_tensor(y).float().argmax(),
    ),
    "name": (lambda n: "abcd"[n], "classes.index(", lambda y, classes: classes.index(y)),
    "from 1": (lambda n: n + 1, "count classes from 0", lambda y, _: y - 1),
    "from -1": (lambda n: n - 1, "count classes from 0", lambda y, _: y + 1),
    "a half more": (lambda n: n + 0.5, "count classes from 0", lambda y, _: y - 0.5),
}


@situations(50)
@given(st.sampled_from(sorted({**LABELS, **CURED})), st.permutations(range(4)))
def test_labels_of_any_form(form, numbers):
    classes = ["a", "b", "c", "d"]

    def read(labels):
        items = [(torch.zeros(1, 4, 4), label) for label in labels]
        return from_datasets(items, items, classes, title="mine").test.labels.tolist()

    if form in LABELS:
        assert read([LABELS[form](number) for number in numbers]) == list(numbers)
        return
    make, words, cure = CURED[form]
    labels = [make(number) for number in numbers]
    assert words in refusal(lambda: read(labels))[0]
    assert read([cure(label, classes) for label in labels]) == list(numbers)


RANGES = {  # of pixels in 0..255: what a data set gives, words of the sentence, the cure
    "unit": (lambda p: p / 255, None, None),
    "noise above": (lambda p: p / 255 * 1.0000002, None, None),
    "noise below": (lambda p: p / 255 - 3e-8, None, None),
    "normalised and back": (lambda p: ((p / 255 - 0.47) / 0.2) * 0.2 + 0.47, None, None),
    "0 to 255": (lambda p: p * 1.0, "divide by the value of white", lambda x: x / 255),
    "overshoot": (lambda p: p / 255 * 1.08 - 0.04, "clamp(0, 1)", lambda x: x.clip(0, 1)),
    "normalised": (lambda p: (p / 255 - 0.5) / 0.25, "already normalised?", lambda x: x * 0.25 + 0.5),
    "-1 to 1": (lambda p: p / 127.5 - 1, "already normalised?", lambda x: (x + 1) / 2),
}
KINDS = {"float16": 2, "float32": 4, "float64": 8}
INTS = {"int64": 255, "int16": 255, "int32": 255, "uint16": 255, "bool": 1}


CONTAINERS = {
    "list": (lambda items: items, None, None),
    "tuples in a tuple": (tuple, None, None),
    "Subset": (lambda items: Subset(items * 2, range(4)), None, None),
    "ConcatDataset": (lambda items: ConcatDataset([items[:1], items[1:]]), None, None),
    "mappings": (
        lambda items: [{"image": image, "label": label} for image, label in items],
        "[(item['image'], item['label']) for item in data_set]",
        lambda d: [(item["image"], item["label"]) for item in d],
    ),
    "triples": (
        lambda items: [(*item, 0) for item in items],
        "give two values an item",
        lambda d: [item[:2] for item in d],
    ),
    "two tensors": (
        lambda items: (np.stack([image for image, _ in items]), np.array([label for _, label in items])),
        "TensorDataset(images, labels)",
        lambda d: TensorDataset(torch.from_numpy(d[0]).movedim(-1, 1), torch.from_numpy(d[1])),
    ),
}


def with_ends(seed, side, channels):
    pixels = np.random.default_rng(seed).integers(0, 256, (4, side, side, channels), dtype=np.uint8)
    pixels[:, 0, 0], pixels[:, 0, 1] = 0, 255
    return pixels


@situations(60)
@given(
    st.sampled_from(sorted([*RANGES, *INTS, "uint8"])),
    st.sampled_from(sorted(KINDS)),
    st.sampled_from(["tensor", "array", "grey tensor", "grey array"]),
    st.integers(2, 9),
    st.integers(0, 9),
)
def test_images_of_any_form(span, kind, form, side, seed):
    pixels = with_ends(seed, side, 1 if "grey" in form else 3)
    words, cure = None, None
    if span in INTS:
        pixels = pixels // 255 * INTS[span] if span == "bool" else pixels
        given_as, words = pixels.astype(span), "give uint8 where white is 255, else floats"
        wanted, cure = pixels * (255 // INTS[span]), lambda x: x.astype(np.float32) / INTS[span]
    elif span == "uint8":
        given_as = wanted = pixels
    else:
        make, words, cure = RANGES[span]
        given_as = make(pixels.astype(np.float64)).astype(kind if span == "unit" or words else "float32")
        wanted = pixels
    if span == "overshoot":
        wanted = np.round(given_as.clip(0, 1).astype(np.float32) * 255).astype(np.uint8)

    def read(images):
        images = [image[..., 0] if "grey" in form else image for image in images]
        if "tensor" in form:
            images = [
                torch.from_numpy(np.array(i)) if "grey" in form else torch.from_numpy(i).movedim(-1, 0) for i in images
            ]
        items = [(image, number % 2) for number, image in enumerate(images)]
        return from_datasets(items, items, ["a", "b"], title="mine")

    sentence, data = refusal(lambda: read(given_as))
    if words is not None:
        assert words in sentence, sentence
        data = read(cure(given_as))
    assert np.array_equal(data.test.images.movedim(1, -1), wanted)
    assert ("rounded to 8 bits" in data.title) == (span == "overshoot")


@situations(30)
@given(st.sampled_from(sorted(CONTAINERS)), st.integers(2, 9), st.integers(0, 9))
def test_data_sets_of_any_form(container, side, seed):
    pixels = with_ends(seed, side, 3)
    items = [(image, number % 2) for number, image in enumerate(pixels)]
    make, words, cure = CONTAINERS[container]
    sentence, data = refusal(lambda: from_datasets(make(items), make(items), ["a", "b"], title="mine"))
    if words is not None:
        assert words in sentence, sentence
        data = from_datasets(cure(make(items)), cure(make(items)), ["a", "b"], title="mine")
    assert np.array_equal(data.test.images.movedim(1, -1), pixels)
    assert data.test.labels.tolist() == [0, 1, 0, 1]
