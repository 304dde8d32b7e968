"""CIFAR-100 and ImageNet in their own layouts, made here out of real pictures: the figures are RobustBench's own."""

import os
import pickle
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import part
from torch import nn

from robust_adapt import Ball, Conditions, autoattack, load_data, upstream
from robust_adapt.cli.benchmark import BenchmarkOptions, _load
from robust_adapt.config import DataConfig
from robust_adapt.data import CIFAR100_CLASSES
from robust_adapt.errors import ConfigError, DataError

COUNT = 6  # images that RobustBench judges on here
IDS = Path(find_spec("robustbench").submodule_search_locations[0], "helper_files", "imagenet_test_image_ids.txt")


@pytest.fixture
def cifar100(tmp_path, monkeypatch):
    """torchvision's files; only their check sums are skipped."""
    folder, meta = tmp_path / "cifar-100-python", {"fine_label_names": list(CIFAR100_CLASSES)}
    folder.mkdir()
    pixels = [np.asarray(part(number, (32, 32))).transpose(2, 0, 1).reshape(-1) for number in range(24)]
    labels = [(7 * number) % 100 for number in range(24)]
    for name, rows in {"train": slice(None), "test": slice(COUNT)}.items():
        content = {"data": np.stack(pixels[rows]), "fine_labels": labels[rows]}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps(meta))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_, **__: True)
    return tmp_path


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Every file of RobustBench's list, by its name; eight pictures, of which the others are links."""
    root, ids = tmp_path_factory.mktemp("imagenet"), IDS.read_text().split()
    folders = {each.split("/")[0] for each in ids}
    for name in [*folders, *(f"n9999999{number}" for number in range(1000 - len(folders)))]:
        (root / "val" / name).mkdir(parents=True)
    for number, each in enumerate(ids):
        if number < 8:
            part(number, (260 + number, 280 - 2 * number)).save(root / "val" / each, format="JPEG")
        else:
            os.link(root / "val" / ids[number % 8], root / "val" / each)
    return root


def tuned(split, classes):
    """A net that gets all but the last of these images right, by its last layer."""
    torch.manual_seed(0)
    images, labels = split.tensors()
    body = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
    with torch.no_grad():
        features = body(images[:-1])
        head = nn.Linear(features.shape[1], classes)
        head.weight *= 0.01
        head.weight[labels[:-1]] += 3 * torch.linalg.pinv(features).T
    model = nn.Sequential(body, head).eval()
    with torch.no_grad():
        assert (model(images).argmax(1) == labels).tolist() == [True] * (COUNT - 1) + [False]
    return model


@pytest.fixture
def few_targets(few_queries, monkeypatch):
    """And with two of nine target classes and half the steps."""
    from pyautoattack.autoattack import AutoAttack

    set_version = AutoAttack._set_version

    def shortened(self, version="standard"):
        set_version(self, version)
        self.apgd_targeted.n_target_classes = self.fab.n_target_classes = 2
        self.apgd.n_iter = self.apgd_targeted.n_iter = self.fab.n_iter = 10

    monkeypatch.setattr(AutoAttack, "_set_version", shortened)


@pytest.mark.filterwarnings("ignore:This DataLoader", "ignore:This process:DeprecationWarning")  # RobustBench's own
@pytest.mark.parametrize("dataset", ["cifar100", "imagenet"])
def test_the_untouched_benchmark_gives_our_counts(dataset, request, few_targets, monkeypatch):
    """The same images in the same batches, with the seed forced, by which ``benchmark()`` takes the clock."""
    upstream.prepare()
    from robustbench import benchmark

    root, options = str(request.getfixturevalue(dataset)), {}
    if dataset == "cifar100":
        data = load_data(DataConfig(name="cifar100", root=root, offline=True))
    else:
        data, options = load_data(f"imagenet:{root}"), {"preprocessing": "Res256Crop224"}
    split = data.test.take(slice(COUNT))
    model = tuned(split, len(data.classes))
    monkeypatch.setattr("pyautoattack.AutoAttack.get_seed", lambda self: 5)
    ours = autoattack(model, split, Conditions(Ball("Linf", "4/255"), seed=5, batch_size=4))
    theirs = benchmark(model, n_examples=COUNT, dataset=dataset, data_dir=root, eps=4 / 255, batch_size=4, **options)
    assert theirs == (ours.clean.accuracy, pytest.approx(ours.accuracy, abs=1e-9))
    assert [row.attacked > 0 for row in ours.attacks] == [True] * 4
    assert 0 < ours.correct < ours.clean.correct == COUNT - 1


def test_cifar100_is_official(cifar100):
    data = load_data(DataConfig(name="cifar100", root=str(cifar100), offline=True))
    assert (data.title, data.official, data.classes[7], len(data.classes)) == ("CIFAR-100", True, "beetle", 100)
    assert (len(data.test), data.test.shape, data.augmentation.flip) == (COUNT, (COUNT, 3, 32, 32), True)
    assert data.test.labels.tolist() == [0, 7, 14, 21, 28, 35]
    (cifar100 / "cifar-100-python" / "test").unlink()
    with pytest.raises(DataError) as caught:
        load_data(DataConfig(name="cifar100", root=str(cifar100), offline=True))
    assert str(caught.value) == (
        f"Expected CIFAR-100 in {str(cifar100)!r}, but it is not there, or damaged, and downloads are off; put "
        "cifar-100-python there, or use `--data.name folder:PATH` or `--data.name digits`."
    )


PREPROCESSED = {
    None: ("Res256Crop224", 224),
    "Crop288": ("Crop288", 288),
    "Wong2020Fast": ("Crop288", 288),  # by the entry of a model
    "AlexNet": ("AlexNet", 224),  # of corruptions, as timm has it
}


@pytest.mark.parametrize("preprocessing", PREPROCESSED)
def test_imagenet_is_official_and_preprocessed_as_a_model_wants_it(imagenet, preprocessing):
    upstream.prepare()
    from robustbench.data import PREPROCESSINGS, get_preprocessing
    from robustbench.loaders import CustomImageFolder
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    data = load_data(DataConfig(name=f"imagenet:{imagenet}", preprocessing=preprocessing, workers=0))
    said, size = PREPROCESSED[preprocessing]
    assert (data.title, data.official, data.size) == (f"ImageNet ({said})", True, size)
    assert (len(data.train), data.test.shape, data.classes[0]) == (0, (5000, 3, size, size), "tench")
    images, labels = data.test.take(slice(3)).tensors()
    transform = PREPROCESSINGS["Crop288" if size == 288 else "Res256Crop224"]
    if preprocessing == "AlexNet":
        transform = get_preprocessing(BenchmarkDataset.imagenet, ThreatModel.corruptions, preprocessing, None)
    usual = CustomImageFolder(str(imagenet / "val"), transform)
    for number, image in enumerate(images):
        expected, label, _ = usual[number]
        assert torch.equal(image, expected) and labels[number] == label


def test_a_model_of_the_zoo_is_benchmarked_with_its_own_preprocessing(imagenet):
    for name, said in {"Wong2020Fast": "Crop288", "module:function": "Res256Crop224"}.items():
        options = BenchmarkOptions(model_name=name, data=DataConfig(name=f"imagenet:{imagenet}"))
        assert _load(options, own=True).title == f"ImageNet ({said})"


def test_preprocessings_that_are_not_known(imagenet):
    with pytest.raises(ConfigError) as caught:
        load_data(DataConfig(name=f"imagenet:{imagenet}", preprocessing="crop288"))
    assert str(caught.value) == (
        "Expected a known preprocessing of ImageNet, but got 'crop288'; did you mean 'Crop288'? Known: "
        "BicubicRes256Crop224, Crop288, Res224, Res256Crop224."
    )


def test_what_is_missing_of_imagenet_is_named(imagenet):
    folder, ids = imagenet / "val", IDS.read_text().split()

    def found(root=imagenet):
        with pytest.raises(DataError) as caught:
            load_data(f"imagenet:{root}")
        start, _, rest = str(caught.value).partition(", but ")
        assert start == f"Expected ImageNet's validation images as {root}/val/<wnid>/*.JPEG"
        said, _, cure = rest.partition("; ")
        assert cure == (
            f"put ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz of image-net.org into {root}, and run "
            f"torchvision.datasets.ImageNet({str(root)!r}, split='val') once."
        )
        return said

    assert found(folder) == "0 folders are there, not one for each of 1000 classes"
    (folder / ids[9]).rename(imagenet / "away")
    assert found() == f"1 of RobustBench's 5000 are not there, such as {ids[9]}"
    (imagenet / "away").rename(folder / ids[9])
    (folder / "other").mkdir()
    assert found() == "1001 folders are there, not one for each of 1000 classes"
    (folder / "other").rmdir()
    wnid = ids[9].split("/")[0]
    (folder / wnid).rename(imagenet / "away")
    assert found() == "999 folders are there, not one for each of 1000 classes"
    (folder / "other").mkdir()
    assert found() == f"the folder of the class {wnid!r} is not there"
    (folder / "other").rmdir()
    (imagenet / "away").rename(folder / wnid)
