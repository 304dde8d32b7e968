"""Corruption accuracies against the untouched ``robustbench.eval.benchmark()``, on layouts made of real pictures."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import robust_adapt
from robust_adapt import cli
from robust_adapt.errors import ConfigError, DataError
from robust_adapt.leaderboard import corruption_accuracy, find_corruptions, read_corruptions

COUNT, CORRUPTIONS = 8, ("fog", "contrast")
SHARES = {"fog": 0.11, "contrast": 0.13}  # of the next picture, a severity


class Nearest(nn.Module):
    """The label of the picture that is nearest, whatever the size of the images."""

    def __init__(self, pictures, labels, classes):
        super().__init__()
        self.pool, self.classes = nn.AdaptiveAvgPool2d(4), classes
        self.register_buffer("labels", labels)
        self.register_buffer("known", self.pool(pictures).flatten(1))

    def forward(self, images):
        distances = torch.cdist(self.pool(images).flatten(1), self.known)
        logits = images.new_full((len(images), self.classes), -100.0)
        return logits.index_copy(1, self.labels, -distances)


def pictures(side):
    """Parts of the two photographs that scikit-learn carries, (N, H, W, 3)."""
    from sklearn.datasets import load_sample_image

    parts = []
    for number in range(COUNT):
        photograph = load_sample_image(("china.jpg", "flower.jpg")[number % 2])
        top, left = 60 * (number // 2), 100 * (number // 2)
        part = Image.fromarray(photograph[top : top + 200, left : left + 200])
        parts.append(np.asarray(part.resize((side, side), Image.Resampling.BILINEAR)))
    return np.stack(parts)


def corrupted(images, corruption, severity):
    """Some of the next picture in each, and more of it in the later ones."""
    share = (SHARES[corruption] * severity + 0.02 * np.arange(COUNT))[:, None, None, None]
    return np.round((1 - share) * images + share * np.roll(images, 1, axis=0)).astype(np.uint8)


def tensor(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255


@pytest.fixture
def robustbench(tmp_path, monkeypatch):
    """RobustBench's evaluation of two corruptions, in a folder of its own, in which it makes others."""
    import robustbench
    from robustbench.data import CORRUPTIONS_DICT

    monkeypatch.chdir(tmp_path)
    for table in CORRUPTIONS_DICT.values():
        for threat in table:
            monkeypatch.setitem(table, threat, CORRUPTIONS)
    return robustbench


CIFAR = {  # data set: its folder of pixels, the file there, the names of labels, the folder of corrupted pixels
    "cifar10": ("cifar-10-batches-py", "test_batch", ("batches.meta", "labels", "label_names"), "CIFAR-10-C"),
    "cifar100": ("cifar-100-python", "test", ("meta", "fine_labels", "fine_label_names"), "CIFAR-100-C"),
}


def write_cifar(root, dataset, classes):
    """The clean and the corrupted pixels in their layouts, 8 images of each; returns labels. Small ones are enough."""
    clean, file, (meta, labels_name, names), folder = CIFAR[dataset]
    labels, images = np.arange(COUNT) * (classes // COUNT), pictures(8)
    (root / clean).mkdir()
    whole = pictures(32).transpose(0, 3, 1, 2).reshape(COUNT, -1)
    (root / clean / file).write_bytes(pickle.dumps({"data": whole, labels_name: labels.tolist()}))
    (root / clean / meta).write_bytes(pickle.dumps({names: list(map(str, range(classes)))}))
    (root / folder).mkdir()
    np.save(root / folder / "labels.npy", np.tile(labels, 5))
    for corruption in CORRUPTIONS:
        pixels = np.zeros((4 * 10_000 + COUNT, 8, 8, 3), np.uint8)
        for severity in range(5):
            pixels[10_000 * severity :][:COUNT] = corrupted(images, corruption, severity + 1)
        np.save(root / folder / f"{corruption}.npy", pixels)
    return torch.from_numpy(labels)


@pytest.fixture
def cifar(tmp_path, robustbench, monkeypatch):
    """``cifar(dataset, classes)`` writes a layout and gives the model; upstream's checksums are skipped, and the name
    of an argument is mended that its loaders of CIFAR do not have."""
    from robustbench.data import CORRUPTION_DATASET_LOADERS
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_, **__: True)

    def make(dataset, classes):
        loaders, threat = CORRUPTION_DATASET_LOADERS[BenchmarkDataset(dataset)], ThreatModel.corruptions
        load = loaders[threat]
        with pytest.raises(TypeError, match="unexpected keyword argument 'prepr'"):
            load(1, 1, str(tmp_path), corruptions=["fog"], prepr=None)  # once it is mended, this test can be shorter
        monkeypatch.setitem(loaders, threat, lambda *given, prepr, **named: load(*given, **named))
        labels = write_cifar(tmp_path, dataset, classes)
        return Nearest(tensor(pictures(32)), labels, classes).eval()

    return make


def tell_apart(accuracies):
    """Whether figures at the wrong severity or of the wrong corruption would be seen."""
    fog, contrast = (accuracies[name] for name in CORRUPTIONS)
    return fog != contrast and fog[0] == 1 and 0 < fog[3] < 1 and 0 < sum(contrast) / 5 < 1


@pytest.mark.parametrize(("dataset", "classes", "places"), [("cifar10", 10, 23), ("cifar100", 100, 13)])
def test_cifar_under_corruptions_is_what_robustbench_says(robustbench, cifar, tmp_path, dataset, classes, places):
    model = cifar(dataset, classes)
    ours = corruption_accuracy(model, tmp_path, (dataset, "corruptions"), n=COUNT, batch_size=3)
    clean, theirs = robustbench.benchmark(
        model,
        n_examples=COUNT,
        dataset=dataset,
        threat_model="corruptions",
        model_name="AlexNet",  # the one whose errors all others are divided by
        data_dir=str(tmp_path),
        batch_size=3,
    )
    assert (ours.accuracy, clean) == (theirs, 1.0) and tell_apart(ours.accuracies)
    assert list(ours.accuracies) == list(CORRUPTIONS)
    assert (ours.place.dataset, ours.place.norm, ours.place.standings[0].entries) == (dataset, "corruptions", places)
    assert ours.reasons == ["8 of 10000 test images"] and not ours.comparable


def write_classes(root, folders, listed, images):
    """The first 8 images of RobustBench's list in all 1000 class folders."""
    for folder in folders:
        (root / folder).mkdir(parents=True)
    for name, picture in zip(listed, images, strict=False):
        Image.fromarray(picture).save(root / name, "JPEG", quality=95)
    return root


@pytest.fixture(scope="module")
def listed():
    import robustbench.loaders

    file = Path(robustbench.loaders.__file__).parent / "helper_files" / "imagenet_test_image_ids.txt"
    return file.read_text().split()


@pytest.fixture(scope="module")
def folders(listed):
    names = sorted({name.split("/")[0] for name in listed} | {"n00000001", "n00000002", "n99999999"})
    assert len(names) == 1000
    return names


@pytest.fixture(scope="module")
def pixels(tmp_path_factory, folders, listed):
    """Images as they are, those that are mostly not known any more, and those that are not: a folder each."""
    root, images = tmp_path_factory.mktemp("pixels"), pictures(40)
    kinds = (images, corrupted(images, "fog", 4), corrupted(images, "fog", 5))
    return [write_classes(root / str(number), folders, listed, kind) for number, kind in enumerate(kinds)]


@pytest.fixture
def imagenet(tmp_path, robustbench, monkeypatch, pixels, folders, listed):
    """The layouts of ImageNet, ImageNet-C and ImageNet-3DCC, as links, and a model: (root, model). RobustBench's loader
    starts no processes."""
    from torch.utils.data import DataLoader

    monkeypatch.setattr("torch.utils.data.DataLoader", lambda *given, num_workers, **named: DataLoader(*given, **named))
    for kind in ("ImageNet-C", "ImageNet-3DCC"):
        for corruption, sources in zip(CORRUPTIONS, ((0, 0, 0, 1, 2), (0, 1, 1, 1, 2)), strict=True):
            (tmp_path / kind / corruption).mkdir(parents=True)
            for severity, source in enumerate(sources, 1):
                (tmp_path / kind / corruption / str(severity)).symlink_to(pixels[source], target_is_directory=True)
    (tmp_path / "val").symlink_to(pixels[0], target_is_directory=True)
    labels = torch.tensor([folders.index(name.split("/")[0]) for name in listed[:COUNT]])
    return tmp_path, Nearest(tensor(pictures(224)), labels, 1000).eval()


@pytest.mark.parametrize("threat", ["corruptions", "corruptions_3d"])
def test_imagenet_under_corruptions_is_what_robustbench_says(robustbench, imagenet, threat):
    root, model = imagenet
    ours = corruption_accuracy(model, root, ("imagenet", threat), n=COUNT, batch_size=3)
    clean, theirs = robustbench.benchmark(
        model,
        n_examples=COUNT,
        dataset="imagenet",
        threat_model=threat,
        model_name="AlexNet",
        data_dir=str(root),
        batch_size=3,
        preprocessing="Res256Crop224",
    )
    assert (ours.accuracy, clean) == (theirs, 1.0) and tell_apart(ours.accuracies)
    assert (ours.data, ours.place.norm) == ("ImageNet-C" if threat == "corruptions" else "ImageNet-3DCC", threat)
    assert ours.reasons == ["8 of 5000 test images"]


def test_imagenet_that_is_not_whole_is_named(imagenet, folders, listed):
    root, model = imagenet
    board = ("imagenet", "corruptions")
    fog = root / "ImageNet-C" / "fog" / "2"
    fog.unlink()
    write_classes(fog, folders, listed, pictures(40))
    picture = fog / listed[1]
    picture.write_bytes(picture.read_bytes()[:100])
    with pytest.raises(DataError) as caught:
        corruption_accuracy(model, root, board, n=COUNT)
    assert str(caught.value).startswith(
        f"Expected the images of fog at severity 2 in {root / 'ImageNet-C'}, but got: "
    ) and str(caught.value).endswith(
        "; unpack the archives of Zenodo record 2235448 in it, so that each CORRUPTION/SEVERITY there holds the 1000 "
        "class folders."
    )
    (fog / "n00000002").rmdir()  # all labels after it would be those of others
    (root / "ImageNet-C" / "contrast" / "5").unlink()
    with pytest.raises(DataError) as caught:
        find_corruptions(root, board)
    assert str(caught.value).startswith(
        f"Expected ImageNet-C in {root / 'ImageNet-C'}, but fog/2, contrast/5 are not there; unpack the "
    )
    for board, sentence in (
        (
            ("imagenet", "corruptions"),
            "Expected ImageNet-C in nowhere/ImageNet-C, but fog/1, fog/2, fog/3 and 7 more are ",
        ),
        (
            ("imagenet", "corruptions_3d"),
            "Expected ImageNet-3DCC in nowhere/ImageNet-3DCC, but fog/1, fog/2, fog/3 and ",
        ),
        (
            ("cifar100", "corruptions"),
            "Expected CIFAR-100-C in nowhere/CIFAR-100-C, but labels.npy, fog.npy, contrast.n",
        ),
    ):
        with pytest.raises(DataError) as caught:
            find_corruptions("nowhere", board)
        assert str(caught.value).startswith(sentence)
    with pytest.raises(
        ConfigError, match="^Expected a known board of corruptions, but got 'cifar10 Linf'; did you mean"
    ):
        find_corruptions("nowhere", ("cifar10", "Linf"))


class Coloured(nn.Sequential):
    """A linear model of any size of images."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 100))


def coloured():
    return Coloured()


def run(capsys, *arguments):
    code = cli.main([str(each) for each in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_takes_cifar100_and_its_record_goes_on_the_board(cifar, tmp_path, capsys):
    cifar("cifar100", 100)
    words = ["benchmark", "test_corruptions:coloured", "--norm", "corruptions", "--data.name", "cifar100"]
    code, out, err = run(
        capsys, *words, "--data.root", tmp_path, "--n", COUNT, "--more-data", "--out", "judged", "--verbose"
    )
    assert (code, err) == (0, "")
    record = read_corruptions("judged")
    assert (record.data, record.more_data, record.model) == ("CIFAR-100-C", True, "test_corruptions:coloured")
    assert f"place {record.place.standings[0].place} next to 13 entries: all (not comparable)" in out
    assert "next to 1 entries: with extra or synthetic data (not comparable)" in out
    assert "(not comparable: 8 of 10000 images each)" in out
    code, out, err = run(capsys, "leaderboard", "cifar100", "corruptions", "--add", "judged")
    assert (code, err) == (0, "") and max(map(len, out.splitlines())) <= 100
    own = next(line.split() for line in out.splitlines() if line.strip().startswith(">"))
    assert own == [">", str(record.place.standings[0].place), record.model, f"{100 * record.accuracy:.2f}", "yes"]
    assert "not comparable with the leaderboard: 8 of 10000 test images" in out
    code, _, err = run(capsys, *words[:-1], "cifar10", "--norm", "corruptions_3d", "--data.root", tmp_path)
    assert code == 2 and err.startswith(
        "ConfigError Expected a known threat model with a leaderboard of cifar10, but got 'corruptions_3d'; did you "
    )


def test_records_of_before_are_read(tmp_path):
    values = '{"model": "net", "n": 10000, "accuracy": 0.5, "accuracies": {"fog": [0.5, 0.5, 0.5, 0.5, 0.5]}, '
    values += '"comparable": true, "device": "cpu", "versions": {}, "commit": null}'
    (tmp_path / "corruptions.json").write_text(values)
    record = read_corruptions(tmp_path)
    assert (record.data, record.place, record.reasons) == ("CIFAR-10-C", None, [])
    with pytest.raises(
        robust_adapt.CheckpointError, match="^Expected the record of a benchmark in .*nowhere, but got: "
    ):
        read_corruptions(tmp_path / "nowhere")
