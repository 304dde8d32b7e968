"""One's own data sets: which images, labels and items are read, and what else is told which cure."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset
from torchvision import transforms, tv_tensors

from robust_adapt import plan_run, recipe, train
from robust_adapt.config import DataConfig
from robust_adapt.data import Augmentation, ImageData, from_datasets
from robust_adapt.data.datasets import AGAIN
from robust_adapt.errors import DataError

GREY = np.full((8, 8), 51, np.uint8)
COLOURS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
RGB = Image.fromarray(COLOURS)


def error_of(call, *arguments, **options):
    with pytest.raises(DataError) as caught:
        call(*arguments, **options)
    assert len(str(caught.value)) <= 600
    return str(caught.value)


def own(train, test=None, classes=("a", "b"), **options):
    config = DataConfig(name="mine", validation=2, **options)
    return from_datasets(train, train if test is None else test, list(classes), title="mine", config=config)


def mine(items, classes="ab", count=4):
    """One's own data set of the same item over and over, or of these items."""
    return own(items if isinstance(items, list) else [(items, number % 2) for number in range(count)], classes=classes)


def labelled(label, classes="abcd"):
    return mine([(torch.zeros(3, 8, 8), label)] * 4, classes=classes)


def test_own_data_sets_of_floats_uint8_and_pictures(caplog):
    wide = torch.tensor([0.0, 0.2, 1.0, 0.6])[:, None, None, None].expand(4, 3, 8, 8)
    pictures = [(Image.fromarray(np.full((8, 8, 3), value, np.uint8)), value % 2) for value in (0, 51)]
    data = own(TensorDataset(wide, torch.tensor([0, 1, 0, 1])), pictures)
    assert sorted(torch.cat([data.train.images, data.validation.images])[:, 0, 0, 0].tolist()) == [0, 51, 153, 255]
    assert data.test.images[:, 2, 7, 7].tolist() == [0, 51] and data.test.labels.tolist() == [0, 1]
    assert (data.title, data.classes, data.official) == ("mine", ("a", "b"), False)
    assert not caplog.messages


# images


@pytest.mark.parametrize(
    ("image", "pixel"),
    [
        (Image.fromarray(GREY), (51,)),
        (Image.fromarray(GREY > 9), (255,)),
        (Image.fromarray(GREY).convert("P"), (51, 51, 51)),
        (Image.new("RGBA", (8, 8), (1, 2, 3, 255)), (1, 2, 3)),
        (Image.new("LA", (8, 8), (7, 255)), (7,)),
        (Image.new("LA", (8, 8), (7, 255)).convert("La"), (7,)),
        (GREY, (51,)),
        (torch.from_numpy(GREY), (51,)),
        (tv_tensors.Image(torch.from_numpy(GREY)), (51,)),
        (np.stack([GREY, GREY, GREY / 255 * 255]).transpose(1, 2, 0).astype(np.float64) / 255, (51, 51, 51)),
        ((GREY[..., None] / 255).astype(">f4"), (51,)),
        (torch.full((3, 8, 8), 0.2, dtype=torch.float16), (51, 51, 51)),
        (torch.full((1, 8, 8), 0.2, requires_grad=True), (51,)),
        (torch.full((1, 8, 8), 1.0000001), (255,)),
        (torch.full((1, 8, 8), -3e-8), (0,)),
        (transforms.Normalize(-1, 2)(transforms.Normalize(0.5, 0.5)(torch.full((1, 8, 8), 1.0))), (255,)),
    ],
)
def test_own_images_of_every_form(image, pixel, caplog):
    data = mine(image)
    assert data.test.images[0, :, 3, 3].tolist() == list(pixel)
    assert data.title == "mine" and not caplog.messages


@pytest.mark.parametrize(
    ("image", "note"),
    [
        (torch.full((1, 8, 8), 0.5), "rounded to 8 bits"),
        (RGB.convert("CMYK"), "converted from CMYK"),
        (RGB.convert("HSV"), "converted from HSV"),
        (RGB.convert("YCbCr"), "converted from YCbCr"),
    ],
)
def test_what_changes_pixels_is_said(image, note, caplog):
    data = mine(image)
    assert data.title == f"mine ({note})"
    assert caplog.messages == [f"mine: of 8 images 8 are {note}."]


def test_a_picture_is_turned_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    RGB.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        data = mine(image)
    assert np.array_equal(data.test.images[0].permute(1, 2, 0), np.rot90(COLOURS))
    assert data.title == "mine (turned by EXIF)"


def test_a_buffer_that_is_used_again_is_copied():
    class Buffered(Dataset):
        def __init__(self):
            self.buffer = torch.zeros(1, 8, 8, dtype=torch.uint8)

        def __len__(self):
            return 6

        def __getitem__(self, index):
            self.buffer.fill_(index)
            return self.buffer, index % 2

    assert own(Buffered()).test.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]


KINDS = (
    "Expected images as uint8 or as floats in [0, 1], but number 0 is of {}; give uint8 where white is 255, else "
    "floats, divided by the value of white."
)
SQUARE = "Expected square images, {} or (H, W), but number 0 is {}; crop or transpose them, and give one an item.{}"
RANGE = "Expected images in [0, 1], but number 0 is in {}; {}."
NORMALISED = (
    "already normalised? Take that out, and make it a layer of the model: robust_adapt.normalize(model, mean=, std=)"
)
OVERSHOT = "where resizing overshoots, end in clamp(0, 1); where they are normalised, take that out"
WHITE = "divide by the value of white, mostly 255"
FIT = "Expected opaque images of one frame and 8 bits a channel, but number 0 is one {0}; {1} those {0}."


@pytest.mark.parametrize(
    ("image", "sentence", "cure"),
    [
        (torch.ones(1, 8, 8, dtype=torch.bool), KINDS.format("torch.bool"), lambda image: image.float()),
        (torch.full((3, 8, 8), 255), KINDS.format("torch.int64"), lambda image: image.to(torch.uint8)),
        (
            np.full((8, 8, 3), 65535, np.uint16),
            KINDS.format("torch.uint16"),
            lambda image: image.astype(np.float32) / 65535,
        ),
        (
            np.zeros((3, 8, 8), np.uint8),
            SQUARE.format("(H, W, C)", (3, 8, 8), " Tensors are (C, H, W)."),
            lambda image: image.transpose(1, 2, 0),
        ),
        (torch.zeros(8, 8, 3), SQUARE.format("(C, H, W)", (8, 8, 3), ""), lambda image: image.permute(2, 0, 1)),
        (torch.zeros(3, 8, 10), SQUARE.format("(C, H, W)", (3, 8, 10), ""), lambda image: image[:, :, 1:-1]),
        (torch.zeros(1, 3, 8, 8), SQUARE.format("(C, H, W)", (1, 3, 8, 8), ""), lambda image: image[0]),
        (
            Image.fromarray(np.full((8, 8), 65535, np.uint16)),
            FIT.format("with more than 8 bits a channel", "scale to 8 bits"),
            lambda image: np.asarray(image) / 65535,
        ),
        (
            Image.new("RGBA", (8, 8), (1, 2, 3, 4)),
            FIT.format("with transparent pixels", "lay on a background, Image.alpha_composite(),"),
            lambda image: Image.alpha_composite(Image.new("RGBA", (8, 8), "white"), image),
        ),
        (torch.full((3, 8, 8), 255.0), RANGE.format("[255, 255]", WHITE), lambda image: image / 255),
        (torch.full((3, 8, 8), -0.02), RANGE.format("[-0.02, -0.02]", OVERSHOT), lambda image: image.clamp(0, 1)),
        (torch.full((3, 8, 8), 1.03), RANGE.format("[1.03, 1.03]", OVERSHOT), lambda image: image.clamp(0, 1)),
        (torch.full((3, 8, 8), -1.5), RANGE.format("[-1.5, -1.5]", NORMALISED), lambda image: image / 3 + 0.5),
        (torch.full((3, 8, 8), 2.2), RANGE.format("[2.2, 2.2]", NORMALISED), lambda image: image / 5 + 0.5),
        (
            torch.full((3, 8, 8), torch.nan),
            RANGE.format("[nan, nan]", "look at its file, and at the transform that divides"),
            lambda image: torch.zeros_like(image),
        ),
    ],
)
def test_images_that_are_refused_and_their_cure(image, sentence, cure):
    assert error_of(mine, image) == sentence
    assert isinstance(mine(cure(image)), ImageData)


def test_images_of_several_shapes():
    items = [(torch.zeros(3, 8, 8), 0), (torch.zeros(3, 9, 9), 1)] * 2
    assert error_of(mine, items) == (
        "Expected images of one shape, but got (3, 8, 8) and, number 1, (3, 9, 9) (C, H, W); resize or convert them."
    )
    mine([(transforms.functional.resize(image, 8), label) for image, label in items])
    grey_among_colour = [(RGB, 0), (RGB.convert("L"), 1)] * 2
    assert "(3, 8, 8) and, number 1, (1, 8, 8)" in error_of(mine, grey_among_colour)
    mine([(image.convert("RGB"), label) for image, label in grey_among_colour])


def test_test_images_of_another_shape():
    train, test = ([(torch.zeros(3, size, size), number % 2) for number in range(4)] for size in (8, 16))
    assert error_of(own, train, test) == (
        "Expected images of one shape, but got (3, 8, 8) and (3, 16, 16) (C, H, W); resize or convert them."
    )


# labels


@pytest.mark.parametrize(
    ("label", "number"),
    [
        (2, 2),
        (True, 1),
        (3.0, 3),
        (np.int16(2), 2),
        (np.uint8(3), 3),
        (np.float64(1), 1),
        (np.True_, 1),
        (np.array(2), 2),
        (np.array([3]), 3),
        (np.array([[3]]), 3),
        (torch.tensor(2), 2),
        (torch.tensor([2]), 2),
        (torch.tensor([[2.0]]), 2),
        (torch.tensor(True), 1),
        ([1], 1),
    ],
)
def test_labels_of_every_form(label, number):
    assert labelled(label).test.labels.tolist() == [number] * 4


LABEL = "Expected labels as class numbers, but that of image 0 is {}; {}."
ONE_HOT = "give one number an image: where labels are one-hot, torch.as_tensor(label).float().argmax()"
FROM_0 = "count classes from 0"


@pytest.mark.parametrize(
    ("label", "shown", "cure"),
    [
        (torch.tensor([0, 0, 1, 0]), "tensor([0, 0, 1, 0])", ONE_HOT),
        (torch.tensor([0, 0, 1.0, 0]), "tensor([0., 0., 1., 0.])", ONE_HOT),
        (np.array([0, 0, 1, 0]), "array([0, 0, 1, 0])", ONE_HOT),
        ([0, 0, 1, 0], "[0, 0, 1, 0]", ONE_HOT),
        ("c", "'c'", "give its number, classes.index('c')"),
        (np.str_("c"), repr(np.str_("c")), "give its number, classes.index('c')"),
        (1.5, "1.5", FROM_0),
        (torch.tensor(1.5), "tensor(1.5000)", FROM_0),
        (-1, "-1", FROM_0),
        (2**70, "1180591620717411303424", FROM_0),
        (float("nan"), "nan", FROM_0),
        (float("inf"), "inf", FROM_0),
        (None, "None", FROM_0),
    ],
)
def test_labels_that_are_refused_and_their_cure(label, shown, cure):
    assert error_of(labelled, label) == LABEL.format(shown, cure)
    if cure == ONE_HOT:
        assert labelled(torch.as_tensor(label).float().argmax()).test.labels.tolist() == [2] * 4
    if "index" in cure:
        assert labelled(["a", "b", "c", "d"].index(label)).test.labels.tolist() == [2] * 4


def test_labels_of_more_classes_than_are_named():
    items = [(torch.zeros(3, 8, 8), 1 + number % 2) for number in range(4)]
    assert error_of(mine, items) == (
        "Expected labels of 2 classes, numbers 0 to 1, but got labels from 1 to 2 in mine; count classes from 0, and "
        "name them all."
    )
    mine([(image, label - 1) for image, label in items])
    mine(items, classes="abc")


# items and data sets


def rows(count=4):
    return [(torch.full((3, 8, 8), number, dtype=torch.uint8), number % 2) for number in range(count)]


@pytest.mark.parametrize(
    "dataset",
    [
        rows(),
        tuple(rows()),
        [list(row) for row in rows()],
        dict(enumerate(rows())),
        Subset(rows(8), [0, 1, 2, 3]),
        ConcatDataset([rows()[:1], rows()[1:]]),
        TensorDataset(torch.stack([image for image, _ in rows()]), torch.tensor([0, 1, 0, 1])),
    ],
)
def test_data_sets_of_every_form(dataset):
    data = own(dataset)
    assert data.test.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3] and data.test.labels.tolist() == [0, 1, 0, 1]


def test_a_loader_in_place_of_data(tmp_path):
    config, loader = recipe("standard"), DataLoader(rows())
    sentence = (
        f"Expected `data` as ImageData, but got {loader!r}; load_data(DataConfig()) gives one, and "
        "data.from_datasets() makes one of two data sets, such as the `.dataset` of two DataLoaders."
    )
    assert error_of(train, config, tmp_path, data=loader) == sentence
    assert error_of(plan_run, config, data=loader) == sentence
    assert not list(tmp_path.iterdir())
    assert isinstance(own(loader.dataset, loader.dataset), ImageData)


@pytest.mark.parametrize(
    ("dataset", "shown"),
    [
        ([torch.zeros(3, 8, 8)] * 4, "a Tensor of shape (3, 8, 8)"),
        ((torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])), "a Tensor of shape (4, 3, 8, 8)"),
        ([(1, 2, 3)], "(1, 2, 3)"),
        ([{"image": torch.zeros(3, 8, 8), "label": 0}] * 4, "a dict"),
    ],
)
def test_items_that_are_no_pairs(dataset, shown):
    assert error_of(own, dataset) == (
        f"Expected pairs (image, label), but number 0 is {shown}; give two values an item, as TensorDataset(images, "
        "labels) does, and [(item['image'], item['label']) for item in data_set] of mappings."
    )
    if isinstance(dataset, tuple):
        assert len(own(TensorDataset(*dataset)).test) == 4


def test_an_empty_data_set():
    assert error_of(own, []) == (
        "Expected one or more images, but got an empty data set; look at its folder or its filter."
    )


def test_a_dataset_that_never_ends_when_iterated_is_read_by_its_length():
    class Wrapping(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            assert 0 <= index < 4
            return torch.zeros(3, 8, 8), index % 2

    assert len(own(Wrapping()).test) == 4


# data sets that augment


class Pictures(Dataset):
    """Pictures through a transform, as torchvision's data sets give them."""

    def __init__(self, transform, count=300, label=lambda index: index % 2):
        self.transform, self.count, self.label = transform, count, label

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image = Image.fromarray(np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8))
        return self.transform(image), self.label(index)


@pytest.mark.parametrize(
    "transform",
    [
        transforms.RandomHorizontalFlip(),
        transforms.RandomCrop(8, padding=2),
        transforms.RandomResizedCrop(8),
        transforms.ColorJitter(0.4),
        transforms.RandomApply([transforms.RandomVerticalFlip(1)], p=0.05),
        lambda image: image.rotate(random.choice([0, 90])),
        lambda image: image.rotate(90 * np.random.randint(4)),
    ],
)
def test_a_data_set_that_augments_is_refused(transform):
    still, part = transforms.Compose([]), "test" if isinstance(transform, transforms.ColorJitter) else "train"
    augmented = {"train": Pictures(still), "test": Pictures(still)} | {part: Pictures(transform)}
    sentence = error_of(own, **augmented)
    first, _, number = sentence.partition("number ")[0], None, sentence.split("number ")[1].split(" ")[0]
    assert int(number) in range(300)
    assert first + sentence[len(f"{first}number {number}") :] == (
        "Expected the same items whenever they are read, but  changes; take the random transforms out of the data set: "
        "DataConfig(crop=, flip=) augments anew in each epoch."
    )
    data = own(Pictures(still), Pictures(still), crop=2, flip=True)
    assert data.augmentation == Augmentation(2, True)


def test_labels_that_change_are_refused():
    dataset = Pictures(transforms.ToTensor(), label=lambda _: random.randrange(2))
    assert "Expected the same items whenever they are read, but number" in error_of(own, dataset)


@pytest.mark.parametrize("count", [4, 300])
def test_the_first_and_the_last_item_are_read_twice_and_no_random_state_moves(count):
    class Counting(Pictures):
        reads = []

        def __getitem__(self, index):
            self.reads.append(index)
            if len(self.reads) > count:  # the second reading
                torch.rand(1), np.random.rand(), random.random()
            return super().__getitem__(index)

    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    dataset = Counting(transforms.Compose([]), count)
    own(dataset, rows())
    again = dataset.reads[count:]
    assert dataset.reads[:count] == list(range(count))
    assert again[0] == 0 and again[-1] == count - 1 and len({*again}) == len(again) == min(count, AGAIN)
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[2]
    assert np.array_equal(np.random.get_state()[1], states[1])
