"""What is wrong with the installed libraries is hidden, and a release that changes it is noticed here."""

import importlib
import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import LIMIT

from robust_adapt import upstream
from robust_adapt.errors import UpstreamError
from robust_adapt.upstream import checks
from robust_adapt.upstream.imports import UpstreamFinder

ROOT = Path(upstream.__file__).parents[2]
SHADOWED = (
    "Expected robustbench with its own `benchmark`, but got the old copy that torchattacks' wheel carries; "
    "run `pip install --force-reinstall --no-deps robustbench==1.1.1`."
)
HAS_PKG_RESOURCES = importlib.util.find_spec("pkg_resources") is not None


class BrightOrDark(torch.nn.Module):
    """Class 0 above a mean of 0.5, class 1 below, eight more never: exactly the images within eps of 0.5 can fall."""

    def forward(self, images):
        excess = 20 * (images.mean((1, 2, 3)) - 0.5)
        never = -20.0 - torch.arange(8.0).expand(len(images), 8) + 0 * excess[:, None]
        return torch.cat([excess[:, None], -excess[:, None], never], dim=1)


@pytest.fixture
def autoattack():
    upstream.prepare()
    return importlib.import_module("autoattack")


@pytest.fixture
def robustbench():
    upstream.prepare()
    return importlib.import_module("robustbench")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Fabricate a top-level package that comes first on sys.path, with nothing of that name imported yet."""

    def fabricate(name, files):
        for file, text in files.items():
            (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / file).write_text(text)
        for module in [each for each in sys.modules if each.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        # setitem + delitem: what the test imports is taken out again, what was there comes back
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(folder)

    folder = tmp_path / "site-packages"
    upstream.prepare()
    return fabricate


def python(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# Importing


def test_prepare_imports_no_library_and_adds_one_finder():
    heavy = "{'torch', 'numpy', 'torchattacks', 'robustbench', 'pyautoattack', 'timm'}"
    code = f"""import sys
from robust_adapt import upstream
upstream.prepare(); upstream.prepare(); upstream.versions()
print(len({heavy} & set(sys.modules)), sum('robust_adapt' in type(each).__module__ for each in sys.meta_path))"""
    assert python(code) == ["0", "1"]


def test_robustbench_imports_only_after_prepare():
    code = """import warnings; warnings.simplefilter('ignore')
try:
    import robustbench
except ModuleNotFoundError as error:
    print(error.name)
from robust_adapt import upstream
upstream.prepare()
import robustbench
print(robustbench.benchmark.__module__)"""
    assert python(code) == ["autoattack" if HAS_PKG_RESOURCES else "pkg_resources", "robustbench.eval"]


@pytest.mark.parametrize("name", ["state", "square", "autopgd_base", "checks"])
def test_autoattack_submodules_are_the_ones_of_pyautoattack(autoattack, name):
    ours = importlib.import_module(f"autoattack.{name}")
    assert ours is importlib.import_module(f"pyautoattack.{name}")
    assert ours.__spec__.name == f"pyautoattack.{name}"
    assert getattr(autoattack, name) is ours


def test_autoattack_without_such_a_submodule(autoattack):
    with pytest.raises(ModuleNotFoundError, match="pyautoattack.nothing"):
        importlib.import_module("autoattack.nothing")


def test_an_installed_autoattack_wins(fresh):
    fresh("autoattack", {"__init__.py": "REAL = True", "state.py": "REAL = True", "autoattack.py": ""})
    assert importlib.import_module("autoattack").REAL
    assert importlib.import_module("autoattack.state").REAL
    assert checks.CHECKS["autoattack"][0]() == ("ok", "the reference implementation", "")


def test_a_bare_folder_named_autoattack_does_not_win(fresh):
    fresh("autoattack", {"notes.txt": ""})
    assert importlib.import_module("autoattack").AutoAttack.__module__ == "robust_adapt.upstream.reference"


def test_stand_in_for_pkg_resources_serves_robustbench_only(robustbench):
    loaders = importlib.import_module("robustbench.loaders")
    name = "helper_files/imagenet_test_image_ids.txt"
    assert Path(loaders.pkg_resources.resource_filename("robustbench.loaders", name)).is_file()
    if not HAS_PKG_RESOURCES:
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("pkg_resources")


def test_an_installed_pkg_resources_wins(fresh, robustbench):
    fresh("pkg_resources", {"__init__.py": ""})
    assert UpstreamFinder().find_spec("robustbench.loaders", robustbench.__path__) is None


def test_a_shadowed_robustbench_is_refused(fresh):
    fresh("robustbench", {"__init__.py": "from .data import load_cifar10", "eval.py": "# def benchmark():\n#     pass"})
    with pytest.raises(UpstreamError) as refusal:
        importlib.import_module("robustbench")
    assert str(refusal.value) == SHADOWED
    row = next(row for row in upstream.doctor() if row.name == "robustbench")
    assert (row.status, row.detail, row.fix) == ("fail", f"UpstreamError: {SHADOWED}", upstream.MEND_ROBUSTBENCH)


def test_what_uninstalling_torchattacks_leaves_of_robustbench_is_refused(fresh, monkeypatch, tmp_path):
    fresh("robustbench", {"helper_files/ids.txt": ""})
    # a bare folder loses against a whole package further down the path
    assert UpstreamFinder().find_spec("robustbench") is not None
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site-packages")])
    with pytest.raises(UpstreamError, match="^Expected robustbench with its own"):
        importlib.import_module("robustbench")


def test_a_shadowed_robustbench_imported_earlier_is_refused(fresh, monkeypatch):
    fresh("robustbench", {"__init__.py": "", "eval.py": "# def benchmark(): pass"})
    with monkeypatch.context() as without_us:
        without_us.setattr(sys, "meta_path", [each for each in sys.meta_path if not isinstance(each, UpstreamFinder)])
        importlib.import_module("robustbench")
    with pytest.raises(UpstreamError) as refusal:
        upstream.prepare()
    assert str(refusal.value) == SHADOWED


def started_in(folder, code):
    command, here = [sys.executable, "-W", "ignore", "-c", code], os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT, env=here)


@pytest.mark.parametrize(("name", "form"), [("torchattacks", "{}.py"), ("robustbench", "{}/__init__.py")])
def test_somebody_s_own_file_by_the_name_of_a_library_is_named(name, form, tmp_path):
    """And renaming it, as the sentence says, is enough."""
    own = tmp_path / form.format(name)
    own.parent.mkdir(exist_ok=True)
    own.write_text("")
    code = f"import sys; sys.path.insert(0, '.')\nimport robust_adapt, importlib\nimportlib.import_module({name!r})"
    place = tmp_path / form.format(name).removesuffix("/__init__.py")
    done = started_in(tmp_path, code)
    assert done.stderr.splitlines()[-1] == (
        f"robust_adapt.errors.UpstreamError: Expected the installed {name}, but Python finds {place} before it; rename "
        "that, or start from another folder."
    )
    place.rename(tmp_path / "renamed.py")
    done = started_in(tmp_path, code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("files", [{"__init__.py": ""}, {"__init__.py": "", "state.py": ""}])
def test_somebody_s_own_autoattack_does_not_win(fresh, files):
    fresh("autoattack", files)
    assert importlib.import_module("autoattack").AutoAttack.__module__ == "robust_adapt.upstream.reference"


def test_bare_folders_by_the_names_of_libraries_do_no_harm(tmp_path):
    for name in ("robustbench", "torchattacks", "pyautoattack", "torchvision", "autoattack"):
        (tmp_path / name).mkdir()
    code = "import sys; sys.path.insert(0, '.')\nimport robust_adapt\n"
    code += "import torchattacks, pyautoattack\nfrom robustbench import benchmark"
    done = started_in(tmp_path, code)
    assert done.returncode == 0, done.stderr


# The untouched benchmark() and the reference's signatures


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """Eight images in torchvision's layout, four of them within 8/255 of the boundary; only the checksum is skipped."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.repeat([[130], [230]], 4, axis=0).repeat(3072, axis=1).astype(np.uint8)
    (folder / "test_batch").write_bytes(pickle.dumps({"data": pixels, "labels": [0] * 8}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_, **__: True)
    return tmp_path


def test_the_untouched_benchmark_runs(robustbench, cifar10, few_queries):
    log = cifar10 / "log.txt"
    result = robustbench.benchmark(
        BrightOrDark().eval(), n_examples=8, data_dir=str(cifar10), eps=8 / 255, batch_size=4, log_path=str(log)
    )
    assert result == (1.0, 0.5)
    assert "robust accuracy: 50.00%" in log.read_text()


def test_the_untouched_benchmark_gives_our_accuracy(robustbench, few_queries, tmp_path, monkeypatch):
    """Random images in torchvision's layout, a net that each attack breaks a part of, the same seed and batch size."""
    from robust_adapt.auto_attack import Conditions, autoattack
    from robust_adapt.ball import Ball
    from robust_adapt.config import DataConfig
    from robust_adapt.data import load_data

    folder, random = tmp_path / "cifar-10-batches-py", np.random.default_rng(0)
    folder.mkdir()
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 8, stride=8), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 10)
    ).eval()
    pixels = random.integers(0, 256, (24, 3072), dtype=np.uint8)
    with torch.no_grad():
        labels = net(torch.from_numpy(pixels).view(-1, 3, 32, 32) / 255).argmax(1)
    labels[:3] = (labels[:3] + 1) % 10
    for name in ("test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels.tolist()}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_, **__: True)
    monkeypatch.setattr("pyautoattack.AutoAttack.get_seed", lambda self: 5)  # benchmark() seeds by the clock

    data = load_data(DataConfig(root=str(tmp_path), offline=True, validation=10))
    images = data.test.tensors()[0]
    ours = autoattack(net, (images, labels), Conditions(Ball("Linf", 1.5 / 255), seed=5, batch_size=8))
    theirs = robustbench.benchmark(net, n_examples=24, data_dir=str(tmp_path), eps=1.5 / 255, batch_size=8)
    assert theirs == (ours.clean.accuracy, ours.accuracy)
    assert 0 < ours.accuracy < ours.clean.accuracy == 21 / 24


def test_the_adapter_has_the_signatures_of_the_reference(autoattack):
    reference = "self model norm eps seed verbose attacks_to_run version is_tf_model device log_path"
    assert " ".join(inspect.signature(autoattack.AutoAttack.__init__).parameters) == reference
    evaluation = inspect.signature(autoattack.AutoAttack.run_standard_evaluation)
    assert " ".join(evaluation.parameters) == "self x_orig y_orig bs return_labels state_path"


def test_the_adapter_returns_what_pyautoattack_computes(autoattack):
    import pyautoattack

    images, labels = torch.full((3, 3, 8, 8), 0.51), torch.zeros(3, dtype=torch.long)
    settings = {"eps": 8 / 255, "seed": 0, "version": "custom", "device": "cpu"}
    theirs = pyautoattack.AutoAttack(BrightOrDark(), attacks=["apgd-ce"], **settings)
    expected = theirs.run_standard_evaluation(images, labels, batch_size=2)
    ours = autoattack.AutoAttack(BrightOrDark(), attacks_to_run=["apgd-ce"], **settings)
    x_adv, y_adv = ours.run_standard_evaluation(images, labels, bs=2, return_labels=True)
    assert torch.equal(x_adv, expected[0]) and torch.equal(y_adv, expected[1]) and y_adv.tolist() == [1, 1, 1]


@pytest.mark.parametrize("version", ["standard", "custom"])
def test_the_adapter_without_a_device_runs_where_the_model_is(autoattack, version):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 10)).eval()
    attacks = ["apgd-ce"] if version == "custom" else []
    for model, norm in ((net, "Linf"), (net.forward, "L2"), (BrightOrDark(), "L2")):
        attack = autoattack.AutoAttack(model, norm=norm, eps=0.1, version=version, attacks_to_run=attacks)
        assert torch.device(attack.device) == torch.device("cpu")
    attack.attacks_to_run = ["apgd-ce"]
    assert (
        attack.run_standard_evaluation(torch.full((2, 3, 2, 2), 0.51), torch.zeros(2, dtype=torch.long)).shape[0] == 2
    )


@pytest.mark.gpu
def test_the_adapter_without_a_device_runs_on_the_gpu_of_the_model(autoattack):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 10)).eval().cuda()
    assert autoattack.AutoAttack(net, norm="Linf", eps=0.1).device == torch.device("cuda:0")


def test_the_adapter_refuses_what_upstream_cannot_do(autoattack):
    attack = autoattack.AutoAttack(BrightOrDark(), device="cpu")
    with pytest.raises(UpstreamError) as refusal:
        attack.run_standard_evaluation(torch.zeros(1, 3, 8, 8), torch.zeros(1), state_path=Path("state.json"))
    assert str(refusal.value) == (
        "Expected no state file, but got 'state.json'; "
        "upstream cannot resume from it, `robust_adapt.autoattack(..., state_dir=...)` can."
    )
