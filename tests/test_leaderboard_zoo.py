"""RobustBench's names, files that are not what they claim to be, and no network."""

import hashlib
import re

import pytest
import torch
from torch import nn

from robust_adapt.errors import CheckpointError, ConfigError, UpstreamError
from robust_adapt.leaderboard import load_zoo_model
from robust_adapt.leaderboard.zoo import refuse_damaged

NAME = "Tiny2025Net"


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


def test_a_page_in_the_place_of_a_download_is_named_and_removed(zoo, tmp_path):
    zoo["bytes"] = b"<!DOCTYPE html><html>Quota exceeded</html>"
    path = tmp_path / "cifar10" / "Linf" / f"{NAME}.pt"
    for _ in range(2):  # the second time it is fetched again
        with pytest.raises(CheckpointError, match=f"^Expected a checkpoint at {path}, but got an HTML page, which"):
            load_zoo_model(NAME, model_dir=tmp_path)
        assert not path.exists()


def test_a_truncated_file_from_before_is_named_and_removed(zoo, tmp_path):
    path = tmp_path / "cifar10" / "Linf" / f"{NAME}.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(weights(tmp_path)[0][:700])
    with pytest.raises(
        CheckpointError, match="but got a truncated file of 700 bytes; it is removed: run again, or put"
    ):
        load_zoo_model(NAME, model_dir=tmp_path, offline=True)
    assert not path.exists()


def test_a_flipped_byte_and_an_old_file_that_ends_early_are_named_and_removed(tmp_path):
    path, (whole, state) = tmp_path / "model.pt", weights(tmp_path)
    damaged = bytearray(whole)
    damaged[whole.index(state["head.weight"].numpy().tobytes()) + 1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=f"^Expected a checkpoint at {path}, but got a damaged file, whose check"):
        refuse_damaged(path)
    assert not path.exists()
    torch.save(Net().state_dict(), path, _use_new_zipfile_serialization=False)
    refuse_damaged(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=f"^Expected a checkpoint at {path}, but got a truncated file of "):
        refuse_damaged(path)
    assert not path.exists()


@pytest.mark.parametrize("data, found", [(b"", "an empty file"), (b"quota exceeded", "a file of another kind")])
def test_other_files_are_named_and_removed(tmp_path, data, found):
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"^Expected a checkpoint at {path}, but got {found}.*it is removed"):
        refuse_damaged(path)
    assert not path.exists()


def test_an_absent_file_offline_and_a_failed_download(zoo, tmp_path):
    path = tmp_path / "cifar10" / "Linf" / f"{NAME}.pt"
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
