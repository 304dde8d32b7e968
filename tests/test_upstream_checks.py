"""The doctor and what records say about versions; and the facts about upstream that the adapter rests on."""

import dataclasses
import importlib.util
import inspect
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from robust_adapt import upstream
from robust_adapt.config import ModelConfig
from robust_adapt.data import load_data
from robust_adapt.recipes import on_digits, recipe
from robust_adapt.runs import build_parts
from robust_adapt.upstream import checks, provenance

# Drift: each of these was so when the adapter was written; where one fails, docs/upstream.md has to be read again


def test_drift_torchattacks_still_carries_a_robustbench():
    carried = {str(file): file.hash for file in metadata.files("torchattacks")}
    assert carried["robustbench/eval.py"].value == "GCIg8SZoNbmxUMIZKAz4Ohfkztr_SwgMCUwf5MzN5ak"  # all comments


def test_drift_torchattacks_still_pins_an_old_requests_it_never_imports():
    assert "requests (~=2.25.1)" in metadata.requires("torchattacks")
    folder = Path(importlib.util.find_spec("torchattacks").origin).parent
    assert not [path for path in folder.rglob("*.py") if "import requests" in path.read_text(encoding="utf-8")]


def test_drift_pyautoattack_still_has_its_own_signature():
    from pyautoattack import AutoAttack

    assert "log_path" not in inspect.signature(AutoAttack.__init__).parameters
    assert list(inspect.signature(AutoAttack.run_standard_evaluation).parameters)[3:] == ["batch_size", "state_path"]


def test_drift_a_saved_state_still_does_not_match_on_reload(tmp_path):
    from pyautoattack.state import EvaluationState

    state = EvaluationState({"apgd-ce", "square"}, path=tmp_path / "state.json")
    state.robust_flags = torch.ones(2, dtype=torch.bool)
    assert EvaluationState.from_disk(tmp_path / "state.json").attacks_to_run != {"apgd-ce", "square"}


def test_drift_what_the_wheels_carry():
    assert "pyautoattack/examples/model_test.pt" in map(str, metadata.files("pyautoattack"))
    assert not [file for file in metadata.files("robustbench") if "model_info" in file.parts]
    assert {"timm ==1.0.9", "gdown ==5.1.0"} <= set(metadata.requires("robustbench"))


# Versions and the doctor


def test_versions_are_those_installed():
    found = upstream.versions()
    libraries = ["torchvision", "torchattacks", "robustbench", "pyautoattack", "lightning-fabric", "numpy", "scipy"]
    assert list(found) == ["python", "robust_adapt", "torch", *libraries]
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__.split("+")[0]


def test_version_of_what_is_not_installed():
    assert provenance.version("no-such-thing") == "not installed"


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_commit(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *identity, "-C", str(tmp_path), *arguments], check=True, capture_output=True)
        return done.stdout.decode().strip()

    for variable in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert upstream.commit(tmp_path) is None
    git("init")
    assert upstream.commit(tmp_path) is None
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "One")
    head = git("rev-parse", "HEAD")
    (tmp_path / "untracked").write_text("")
    assert upstream.commit(tmp_path) == head
    (tmp_path / "file").write_text("2")
    monkeypatch.setenv("GIT_DIR", "elsewhere")
    assert upstream.commit(tmp_path) == f"{head}+dirty"
    monkeypatch.setenv("PATH", "")
    assert upstream.commit(tmp_path) is None


def test_doctor_has_a_row_for_everything(tmp_path):
    rows = {row.name: row for row in upstream.doctor(tmp_path)}
    assert list(rows) == [*checks.CHECKS, "cifar10"]
    assert [row for row in rows.values() if row.status == "fail"] == []
    assert rows["cifar10"].status == "warn" and str(tmp_path) in rows["cifar10"].fix
    assert rows["torch"].detail.startswith(torch.__version__)
    assert rows["bf16"].detail.startswith("precision 'auto' takes ")
    assert rows["robustbench"].detail == metadata.version("robustbench")
    assert rows["autoattack"].detail == f"pyautoattack {metadata.version('pyautoattack')}"


def test_doctor_never_raises(monkeypatch):
    def broken():
        raise OSError("no such library")

    monkeypatch.setattr(checks, "CHECKS", {"torch": (broken, "pip install torch")})
    row = upstream.doctor()[0]
    assert row == upstream.Check(
        name="torch", status="fail", detail="OSError: no such library", fix="pip install torch"
    )


@pytest.mark.parametrize(("found", "status"), [("2.25.1", "warn"), ("2.31.0", "warn"), ("2.32.0", "ok")])
def test_doctor_warns_of_an_old_requests(monkeypatch, found, status):
    monkeypatch.setattr(metadata, "version", lambda _: found)
    fix = "pip install --upgrade requests urllib3 idna" if status == "warn" else ""
    assert (checks._requests()[0], checks._requests()[2]) == (status, fix)


@pytest.mark.parametrize(
    ("asked", "status", "detail", "fix"),
    [
        (["torch>=2.6", 'pytest>=99; extra == "test"'], "ok", "all 1 met", ""),
        (["torch>=99"], "fail", f"torch {metadata.version('torch')}", 'pip install "torch>=99"'),
        (["no-such>=1", "numpy"], "fail", "no-such not installed", 'pip install "no-such>=1"'),
    ],
)
def test_doctor_names_what_is_older_than_the_package_asks(monkeypatch, asked, status, detail, fix):
    monkeypatch.setattr(metadata, "requires", lambda _name: asked)
    assert checks._requirements() == (status, detail, fix)


def test_doctor_names_a_checkout_that_is_not_installed(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    assert checks._requirements() == (
        "warn",
        "robust_adapt runs from a checkout that is not installed",
        "pip install .",
    )


def test_doctor_names_a_torchvision_of_another_torch(monkeypatch):
    """What an import of such a pair raises."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    row = checks._run("torch", *checks.CHECKS["torch"])
    assert (row.status, row.fix) == ("fail", "pip install --upgrade torch torchvision")


def test_doctor_warns_of_another_timm(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda _: "1.0.20")
    assert checks._timm() == (
        "warn",
        "1.0.20, where robustbench asks for timm==1.0.9",
        'pip install "timm==1.0.9"',
    )


def test_doctor_finds_cifar10(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "data_batch_5", "test_batch"):
        assert checks._cifar10(tmp_path)[0] == "warn"
        (folder / name).touch()
    assert checks._cifar10(tmp_path) == ("ok", f"in {tmp_path}", "")


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_bf16_is_fast_where_the_cpu_has_it(monkeypatch, flag):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {flag: True}, raising=False)
    assert checks.bf16_is_fast("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {flag: False}, raising=False)
    assert not checks.bf16_is_fast(torch.device("cpu"))
    assert not checks.bf16_is_fast("mps")


@pytest.mark.skipif(
    platform.machine() not in {"x86_64", "AMD64"} or not hasattr(torch.cpu, "get_capabilities"),
    reason="the flags of x86, which older versions of torch do not tell",
)
def test_drift_torch_still_names_the_cpu_flags():
    assert {"avx512_bf16", "amx_bf16"} <= set(torch.cpu.get_capabilities())


@pytest.mark.gpu
def test_bf16_is_fast_on_this_gpu():
    assert checks.bf16_is_fast("cuda") == (torch.cuda.get_device_capability()[0] >= 8)


@pytest.mark.parametrize(
    ("layer", "corrupts"),
    [
        (torch.nn.Conv2d(4, 8, 1, stride=2), True),
        (torch.nn.Conv2d(16, 8, 1, stride=(1, 2), groups=4), True),
        (torch.nn.Conv2d(8, 16, 1, stride=2), False),
        (torch.nn.Conv2d(4, 8, 1), False),
        (torch.nn.Conv2d(4, 8, 3, stride=2), False),
    ],
)
def test_narrow_shortcuts_are_not_trained_channels_last(layer, corrupts):
    model = torch.nn.Sequential(torch.nn.ReLU(), layer)
    assert upstream.channels_last_corrupts(model, "cpu") == corrupts
    assert not upstream.channels_last_corrupts(model, torch.device("cuda:0"))


@pytest.mark.parametrize(("width", "last"), [(4, False), (8, True)])
def test_weights_are_channels_last_where_that_is_safe_and_batches_as_attacks_want_them(width, last):
    config = on_digits(recipe("pgd", device="cpu"))
    parts = build_parts(dataclasses.replace(config, model=ModelConfig(width=width)), load_data(config.data))
    weights = parts.model.model.layer2[0].conv1.weight
    images, _ = next(parts.batches.epoch(0))
    wanted = torch.channels_last if last else torch.contiguous_format
    assert weights.is_contiguous(memory_format=wanted) and images.is_contiguous()
