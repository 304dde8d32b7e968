"""A ViT of timm on pictures of 224 pixels from disk, through every door of the judging."""

import json

import pytest
import timm
import torch
from pictures import write_parts

from robust_adapt import Ball, Conditions, DiverseAttack, FeatureTap, benchmark, evaluate_model, load_data
from robust_adapt.config import DataConfig

SIZE, COUNT, EPS = 224, 8, 1 / 255
DEPTHS = [1, 12]  # 12: the ViT-tiny as it is
pytestmark = pytest.mark.slow  # images from disk have fast tests in test_stored.py


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_parts(tmp_path_factory.mktemp("views"), count=COUNT, size=(250, 230))


def open_test(folder, workers=0):
    return load_data(DataConfig(name=f"disk:{folder}", size=SIZE, workers=workers))


@torch.no_grad()
def vit(folder, depth):
    """Random but for its head, which is fitted to the training pictures."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=2, depth=depth).eval()
    train = folder.parent / f"{folder.name}-train"
    if not train.exists():
        train.mkdir()
        (train / "test").symlink_to(folder / "train")
    images, labels = open_test(train).test.tensors()
    features = model.forward_head(model.forward_features(images), pre_logits=True)
    centred = features - features.mean(0)
    model.head.weight.copy_((torch.linalg.pinv(centred, rtol=0.1) @ (labels[:, None] == torch.arange(2)).float()).T)
    model.head.bias.copy_(0.5 - model.head.weight @ features.mean(0))
    return model


class Killed(Exception):
    pass


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_vit_is_judged_from_disk_and_goes_on(folder, depth, few_steps, tmp_path):
    data, model = open_test(folder, workers=2), vit(folder, depth)
    test, ball = data.test.first(COUNT), Ball("Linf", EPS)
    images, labels = test.tensors()
    with torch.no_grad():
        clean = int((model(images).argmax(1) == labels).sum())
    assert images.shape == (COUNT, 3, SIZE, SIZE) and clean >= COUNT / 2

    with FeatureTap(model) as tap:
        adversarial = DiverseAttack(model, ["pgd", "mifgsm"], eps=EPS, steps=1)(images, labels)
        assert tap(adversarial[:2])[1].shape == (2, 192)
    assert 0 < (adversarial - images).abs().max() <= EPS + 1e-6

    record = evaluate_model(model, data.test, ball, rows=["Clean", "FGSM"], n=COUNT, batch_size=4)
    assert [row.correct for row in record.attacks][0] == clean and record.images_sha256 == test.sha256

    def kill(progress):
        if (progress.attack, progress.batch) == ("square", 1):
            raise Killed

    attacks = Conditions(ball, "custom", ["apgd-ce", "square"], batch_size=3)
    with pytest.raises(Killed):
        benchmark(model, data, attacks, n=COUNT, out=tmp_path / "killed", report=kill)
    resumed = benchmark(model, open_test(folder, workers=0), attacks, n=COUNT, out=tmp_path / "killed")
    whole = benchmark(model, data, attacks, n=COUNT)
    assert resumed.autoattack.flags == whole.autoattack.flags and resumed.autoattack.clean.correct == clean
    assert resumed.autoattack.broken_by == whole.autoattack.broken_by
    assert json.loads((tmp_path / "killed" / "benchmark.json").read_text())["data"] == data.title
