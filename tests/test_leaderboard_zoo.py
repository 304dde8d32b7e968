"""RobustBench's names, files that are not what they claim to be, and no network."""

import hashlib
import re
import sys
from pathlib import Path

import pytest
import timm
import torch
from timm.models import _registry, vision_transformer
from timm.models._pretrained import PretrainedCfg
from torch import nn

from robust_adapt.archives import read_tensors
from robust_adapt.errors import CheckpointError, ConfigError, UpstreamError
from robust_adapt.leaderboard import load_zoo_model

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.zoo import judge  # noqa: E402

NAME, VIT = "Tiny2025Net", "Tiny2025-ViT"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(12, 10)

    def forward(self, images):
        return self.head(images.flatten(1))


@pytest.fixture
def zoo(monkeypatch):
    """One more name in the zoo, and a download that writes what the test says."""
    import robustbench.utils
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    names = model_dicts[BenchmarkDataset.cifar_10][ThreatModel.Linf]
    monkeypatch.setitem(names, NAME, {"model": Net, "gdrive_id": "id"})
    content = {}

    def download(identity, path):
        print("Downloading")
        if "error" in content:
            raise content["error"]
        path.write_bytes(content["bytes"])

    monkeypatch.setattr(robustbench.utils, "download_gdrive_new", download)
    return content


def weights(tmp_path):
    """Bytes of a checkpoint as the zoo has them, and its values."""
    state = Net().state_dict()
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "made.pt")
    return (tmp_path / "made.pt").read_bytes(), state


def test_a_downloaded_model_is_loaded_and_hashed_and_then_found_offline(zoo, tmp_path, capfd):
    zoo["bytes"], state = weights(tmp_path)
    found = load_zoo_model(NAME, model_dir=tmp_path)
    assert torch.equal(found.model.head.weight, state["head.weight"]) and not found.model.training
    assert found.sha256 == {f"{NAME}.pt": hashlib.sha256(zoo["bytes"]).hexdigest()}
    zoo["error"] = AssertionError("no download where the file is there")
    assert load_zoo_model(NAME, model_dir=tmp_path, offline=True).sha256 == found.sha256
    assert capfd.readouterr() == ("", "")


def test_what_lies_in_the_place_of_a_download_is_named_and_never_deleted(zoo, tmp_path):
    """Whoever put it there: what the sentence says is done, and the next call fetches the model."""
    whole, state = weights(tmp_path)
    flipped = bytearray(whole)
    flipped[whole.index(state["head.weight"].numpy().tobytes()) + 1] ^= 1
    path = tmp_path / "cifar10" / "Linf" / f"{NAME}.pt"
    path.parent.mkdir(parents=True)
    page = b"<!DOCTYPE html><html>Quota exceeded</html>"
    html = "an HTML page, which a download brings where a quota is used up or a login is needed"
    damage = {whole[:700]: "a truncated file", bytes(flipped): "a damaged file, whose check sums differ", page: html}
    for content, found in (damage | {b"": "an empty file"}).items():
        path.write_bytes(content)
        zoo["bytes"] = whole
        for offline in (True, False):
            with pytest.raises(CheckpointError) as caught:
                load_zoo_model(NAME, model_dir=tmp_path, offline=offline)
            assert str(caught.value) == (
                f"Expected a file of tensors at {path}, but got {found}; delete it, then fetch or write it anew."
            )
            assert path.read_bytes() == content
        path.unlink()
        assert torch.equal(load_zoo_model(NAME, model_dir=tmp_path).model.head.weight, state["head.weight"])


def test_a_damaged_download_is_named_and_stays_until_it_is_deleted(zoo, tmp_path):
    zoo["bytes"] = b"<!DOCTYPE html><html>Quota exceeded</html>"
    path = tmp_path / "cifar10" / "Linf" / f"{NAME}.pt"
    at = re.escape(str(path))
    for _ in range(2):
        with pytest.raises(CheckpointError, match=f"^Expected a file of tensors at {at}, but got an HTML page, .*"):
            load_zoo_model(NAME, model_dir=tmp_path)
        assert path.read_bytes() == zoo["bytes"]
    zoo["bytes"], _ = weights(tmp_path)
    path.unlink()
    load_zoo_model(NAME, model_dir=tmp_path)


def test_an_old_file_that_ends_early_is_named(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(Net().state_dict(), path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    assert read_tensors(path).keys() == Net().state_dict().keys()
    for size in (5, 60, 300, len(whole) - 8):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"but got one that is truncated or damaged \(\w+\); delete it, then"):
            read_tensors(path)
        assert path.read_bytes() == whole[:size]


def test_an_absent_file_offline_and_a_failed_download(zoo, tmp_path):
    path = re.escape(str(tmp_path / "cifar10" / "Linf" / f"{NAME}.pt"))
    with pytest.raises(
        CheckpointError, match=f"^Expected {NAME} at {path}, but it is not there and downloads are off;"
    ):
        load_zoo_model(NAME, model_dir=tmp_path, offline=True)
    zoo["error"] = ConnectionError("Name or service not known\nmore")
    with pytest.raises(
        UpstreamError, match=f"^Expected to download {NAME} to {path}, but got: Name or service not kno"
    ):
        load_zoo_model(NAME, model_dir=tmp_path)
    with pytest.raises(CheckpointError, match="^Expected Debenedetti2022Light_XCiT-S12 at .* and downloads are off"):
        load_zoo_model("Debenedetti2022Light_XCiT-S12", model_dir=tmp_path, offline=True)


def test_weights_of_another_architecture_are_named(zoo, tmp_path):
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    zoo["bytes"] = (tmp_path / "other.pt").read_bytes()
    with pytest.raises(
        CheckpointError, match=f"^Expected the weights of {NAME} in .*, but got: Error.*; delete the fil"
    ):
        load_zoo_model(NAME, model_dir=tmp_path)
    assert (tmp_path / "cifar10" / "Linf" / f"{NAME}.pt").exists()


def test_unknown_names_meet_the_nearest(zoo, tmp_path):
    sentence = r"^Expected one of the \d+ Linf models of cifar10, but got 'carmon2019'; did you mean 'Carmon2019Unlabel"
    with pytest.raises(ConfigError, match=sentence):
        load_zoo_model("carmon2019", model_dir=tmp_path)
    with pytest.raises(
        ConfigError, match=re.escape("Expected a known data set of RobustBench, but got 'cifar'; did yo")
    ):
        load_zoo_model(NAME, dataset="cifar")
    with pytest.raises(ConfigError, match="^Expected a known threat model of cifar10, but got 'linf'"):
        load_zoo_model(NAME, threat="linf")


# entries with random weights, as benchmarks/zoo.py judges all of them


@pytest.fixture
def vit(zoo, monkeypatch):
    """One more name whose model timm builds and downloads."""
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    url = "https://example.org/weights/tiny-vit.pth"
    own = PretrainedCfg(url=url, num_classes=10, input_size=(3, 32, 32), fixed_input_size=True, classifier="head")

    def build(pretrained=False, pretrained_cfg=None, **options):
        return vision_transformer.test_vit(pretrained=pretrained, pretrained_cfg=own, **options)

    monkeypatch.setitem(_registry._model_entrypoints, "tiny2025_vit_cifar10_linf", build)
    monkeypatch.setitem(_registry._model_pretrained_cfgs, "tiny2025_vit_cifar10_linf", own)
    names = model_dicts[BenchmarkDataset.cifar_10][ThreatModel.Linf]
    monkeypatch.setitem(names, VIT, {"model": None, "gdrive_id": None})


@pytest.mark.parametrize(
    ("dataset", "threat", "name"),
    [
        ("cifar10", "corruptions", "Hendrycks2020AugMix_WRN"),
        ("cifar100", "corruptions", "Hendrycks2020AugMix_WRN"),
        ("cifar10", "L2", "Ding2020MMA"),
        ("cifar10", "Linf", VIT),
    ],
)
def test_an_entry_is_loaded_as_robustbench_loads_it(dataset, threat, name, vit, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    row = judge((dataset, threat, name), tmp_path, 10)
    assert row == {"parameters": row["parameters"], "size": 32, "equal": True, "finite": True}


def test_a_model_of_timm_is_found_where_torch_keeps_downloads(vit, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "tiny-vit.pth"
    with pytest.raises(CheckpointError) as caught:
        load_zoo_model(VIT, offline=True)
    assert str(caught.value) == (
        f"Expected {VIT} at {path}, but it is not there and downloads are off; put the file there, or allow downloads."
    )
    path.parent.mkdir(parents=True)
    torch.save(timm.create_model("test_vit", num_classes=10, img_size=32).state_dict(), path)
    assert list(load_zoo_model(VIT, offline=True).sha256) == ["tiny-vit.pth"]
