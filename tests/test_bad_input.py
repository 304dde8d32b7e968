"""Bad input, entry by entry: one whole sentence with what was expected, what came and what to do.

From Python it is an error of this package; on the command line one readable block on stderr and exit code 2.
"""

import dataclasses
import errno
import os
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import SmallNet
from fuzz_doors import flat
from torch.utils.data import TensorDataset

from robust_adapt import autoattack, build_model, cli, evaluate_model, load_run, recipe, runs
from robust_adapt.attacks import ATTACKS, DiverseAttack, check_images, make_attack
from robust_adapt.ball import Ball
from robust_adapt.config import AttackConfig, Config, ControllerConfig, DataConfig, ModelConfig
from robust_adapt.data import Split, from_datasets, load_data
from robust_adapt.epsilon import EpsilonController
from robust_adapt.errors import CheckpointError, ConfigError, DataError
from robust_adapt.evaluation import ROWS
from robust_adapt.recipes import RECIPES, on_digits
from robust_adapt.training.checkpoint import read_config

NET = SmallNet().eval()
SPLIT = Split(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))
DIGITS = ["--data.name", "digits", "--data.validation", "60"]
NO_NETWORK = f"the download failed (<urlopen error [Errno {errno.ECONNREFUSED}] {os.strerror(errno.ECONNREFUSED)}>)"

# the sentences
EPS_8 = "Expected `{name}` in [0, 1], pixel units, but got {got}; did you mean 8/255?"
EPS_MINUS = "Expected `{name}` >= 0, but got -0.1; give the size of the perturbation, without a sign."
EPS_8_0 = "Expected `{name}` as a number or a fraction, but got '8/0'; write 0.03 or 8/255."
NORMALISED = (
    "already normalised? Make normalisation the model's first layer: robust_adapt.normalize(model, mean=, std=)."
)
NO_RUN = (
    "Expected a run folder with config.json, but found none in {folder}; give the folder that `robust-adapt train` "
    "wrote."
)
NOT_EMPTY = (
    "Expected a run folder with config.json, or an empty one, but {folder} holds 'thesis.tex' and no config.json; give "
    "the folder that `robust-adapt train` wrote, or a new one."
)
NO_CLASSES = (
    "Expected images as {root}/train/CLASS/*.jpg or *.png, but torchvision says: {said}; the folder after `folder:` "
    "holds train/ and test/, and they a folder with images for each class."
)
NO_CLASS = "Couldn't find any class folder in {root}/train"
NO_FOLDER = "[Errno 2] No such file or directory: '{root}/train'"
NO_CIFAR10 = (
    "Expected CIFAR-10 in {root!r}, but it is not there, or damaged, and {reason}; put cifar-10-batches-py there, or "
    "use `--data.name folder:PATH` or `--data.name digits`."
)
CUT_CHECKPOINTS = (
    "Expected a whole checkpoint in {folder}, but last.ckpt and previous.ckpt are truncated or damaged; restore one "
    "from a copy, or train anew with another --out."
)
LAST_WEIGHTS = " `robust-adapt benchmark {path} --data.name digits` judges the last weights instead."
CUT_WEIGHTS = "Expected a file of tensors at {path}, but got a truncated file; delete it, then fetch or write it anew."
UNKNOWN_DATA = (
    "Expected a known data set, but got 'cifar1'; did you mean 'cifar10'? Known: cifar10, cifar10.1, cifar100, digits, "
    "disk:PATH, folder:PATH, imagenet:PATH."
)
UNKNOWN_MODEL = (
    "Expected a known model, but got 'ResNet81'; did you mean 'ResNet18'? Known: PreActResNet18, ResNet18, ResNet34, "
    "ResNet50. Or timm:NAME, torchvision:NAME, module:function."
)
UNKNOWN_ATTACK = f"Expected a known attack, but got 'pdg'; did you mean 'pgd'? Known: {', '.join(sorted(ATTACKS))}."
UNKNOWN_ROW = (
    "Expected a known row of the evaluation, but got 'PDG-20'; did you mean 'PGD-20'? "
    f"Known: {', '.join(sorted(ROWS))}."
)
UNKNOWN_ZOO = (
    "Expected one of the 76 Linf models of cifar10, but got 'Carmon2019Unlabelled'; did you mean 'Carmon2019Unlabeled' "
    "or 'Kang2021Stable'?"
)


def unknown_recipe(got, near):
    return f"Expected a known recipe, but got {got!r}; did you mean {near!r}? Known: {', '.join(sorted(RECIPES))}."


def refused(kind, call):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return str(caught.value)


def evaluated(*, eps=0.03, split=SPLIT, **options):
    return flat(evaluate_model)(model=NET, split=split, eps=eps, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run with last.ckpt, previous.ckpt and best.pt."""
    folder = tmp_path_factory.mktemp("bad") / "run"
    config = on_digits(recipe("standard"), epochs=2)
    small = {"data": DataConfig(name="digits", validation=20, subset=20), "model": ModelConfig(width=2)}
    runs.train(dataclasses.replace(config, batch_size=20, validation_steps=1, **small), folder)
    return folder


@pytest.fixture
def run(whole, tmp_path, monkeypatch):
    """A copy of the run, as ``run`` in the working folder, which else is empty."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(whole, tmp_path / "run")


def cut(*paths):
    for path in paths:
        path.write_bytes(path.read_bytes()[:100])


# From Python: what is wrong of itself

PYTHON = {
    "eps 8, attack": (ConfigError, lambda: DiverseAttack(NET, ["pgd"], eps=8), EPS_8.format(name="eps", got=8)),
    "eps 8, one attack": (ConfigError, lambda: make_attack("pgd", NET, eps=8), EPS_8.format(name="eps", got=8)),
    "eps 8, controller": (
        ConfigError,
        lambda: EpsilonController("ramp", target=8, total_steps=10),
        EPS_8.format(name="target", got=8),
    ),
    "eps 8, evaluation": (ConfigError, lambda: evaluated(eps=8), EPS_8.format(name="eps", got=8)),
    "eps 8, config": (
        ConfigError,
        lambda: Config(recipe="pgd", controller=ControllerConfig(target=8.0)),
        EPS_8.format(name="controller.target", got="8.0"),
    ),
    "eps -0.1, attack": (ConfigError, lambda: DiverseAttack(NET, ["pgd"], eps=-0.1), EPS_MINUS.format(name="eps")),
    "eps -0.1, controller": (
        ConfigError,
        lambda: EpsilonController("ramp", target=-0.1, total_steps=10),
        EPS_MINUS.format(name="target"),
    ),
    "eps -0.1, evaluation": (
        ConfigError,
        lambda: evaluated(eps=-0.1),
        EPS_MINUS.format(name="eps"),
    ),
    "eps 8/0, attack": (ConfigError, lambda: DiverseAttack(NET, ["pgd"], eps="8/0"), EPS_8_0.format(name="eps")),
    "eps 8/0, controller": (
        ConfigError,
        lambda: EpsilonController("ramp", target="8/0", total_steps=10),
        EPS_8_0.format(name="target"),
    ),
    "eps 8/0, ball": (ConfigError, lambda: Ball("Linf", "8/0"), EPS_8_0.format(name="eps")),
    "unknown attack": (ConfigError, lambda: DiverseAttack(NET, ["pdg"], eps=0.03), UNKNOWN_ATTACK),
    "unknown recipe": (ConfigError, lambda: recipe("deepseak"), unknown_recipe("deepseak", "deepseek")),
    "unknown data set": (DataError, lambda: load_data(DataConfig(name="cifar1")), UNKNOWN_DATA),
    "unknown model": (ConfigError, lambda: build_model("ResNet81"), UNKNOWN_MODEL),
    "unknown row": (ConfigError, lambda: evaluated(rows=["PDG-20"]), UNKNOWN_ROW),
}


@pytest.mark.parametrize("entry", PYTHON)
def test_python(entry):
    kind, call, sentence = PYTHON[entry]
    assert refused(kind, call) == sentence


# From Python: images and labels, at every door that takes them as tensors

BATCHES = {
    "images in [0, 255]": (
        lambda x, y: (x * 0 + 255, y),
        "Expected `images` in [0, 1], but got [255, 255]; divide by 255.",
    ),
    "images outside [0, 1]": (
        lambda x, y: (x * 0 + 1.2, y),
        f"Expected `images` in [0, 1], but got [1.2, 1.2]; {NORMALISED}",
    ),
    "images already normalised": (
        lambda x, y: ((x > 0.5).float() * 4 - 2, y),
        f"Expected `images` in [0, 1], but got [-2, 2]; {NORMALISED}",
    ),
    "images with NaN": (
        lambda x, y: (x * torch.nan, y),
        "Expected `images` in [0, 1], but got [nan, nan]; they hold NaN.",
    ),
    "images as uint8": (
        lambda x, y: ((x * 255).to(torch.uint8), y),
        "Expected `images` as a float tensor in [0, 1], but got torch.uint8; divide uint8 images by 255.",
    ),
    "images of a wrong shape": (
        lambda x, y: (x[0], y),
        "Expected `images` of shape (N, C, H, W), but got (3, 8, 8); add the missing dimension.",
    ),
    "labels below 0": (
        lambda x, y: (x, y - 1),
        "Expected `labels` >= 0, but got labels from -1 to 1; count classes from 0.",
    ),
    "labels out of range": (
        lambda x, y: (x, y + 9),
        "Expected `labels` of 10 classes, numbers 0 to 9, but got labels from 9 to 11; count classes from 0.",
    ),
    "labels as floats": (
        lambda x, y: (x, y.float()),
        "Expected `labels` as a tensor of class numbers (int64), but got torch.float32; use labels.long().",
    ),
    "labels of a wrong shape": (
        lambda x, y: (x, y[:4]),
        "Expected `labels` of shape (6,), but got (4,); give a class number an image.",
    ),
}
DOORS = {
    "attack": lambda x, y: DiverseAttack(NET, ["fgsm"], eps=0.03)(x, y),
    "AutoAttack": lambda x, y: flat(autoattack)(model=NET, images=x, labels=y, eps=0.03),
    "check": lambda x, y: check_images(x, y, num_classes=10),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("entry", BATCHES)
def test_images_and_labels(entry, door, images, labels):
    change, sentence = BATCHES[entry]
    if (entry, door) == ("labels below 0", "check"):  # it is told the number of classes
        sentence = sentence.replace(">= 0,", "of 10 classes, numbers 0 to 9,")
    assert refused(DataError, lambda: DOORS[door](*change(images, labels))) == sentence


SPLITS = {
    "images as floats": (
        lambda x, y: (x.float() / 255, y),
        "Expected images of a split as a uint8 tensor, but got torch.float32; multiply by 255 and round.",
    ),
    "images of a wrong shape": (
        lambda x, y: (x[0], y),
        "Expected one or more images (N, C, H, W) in a split, but got (3, 8, 8); stack them.",
    ),
    "labels as floats": (
        lambda x, y: (x, y.float()),
        "Expected labels of a split as an int64 tensor, but got torch.float32; use labels.long().",
    ),
    "labels out of range": (
        lambda x, y: (x, y + 10),
        "Expected `labels` of 10 classes, numbers 0 to 9, but got labels from 10 to 11; count classes from 0.",
    ),
}


@pytest.mark.parametrize("entry", SPLITS)
def test_splits(entry):
    change, sentence = SPLITS[entry]
    wrong = change(SPLIT.images, SPLIT.labels)
    assert refused(DataError, lambda: evaluated(split=Split(*wrong), rows=["Clean"])) == sentence


def test_images_that_the_model_does_not_take(images, labels):
    sentence = refused(DataError, lambda: DiverseAttack(NET, ["fgsm"], eps=0.03)(images[:, :1], labels))
    assert sentence == (
        "Expected images that the model takes, but got a Tensor of shape (6, 1, 8, 8), and it says: Given groups=1, "
        "weight of size [8, 3, 3, 3], expected input[6, 1, 8, 8] to have 3 channels, but got 1 channels instead; look "
        "at their shape and type, and at the device of both."
    )


def test_a_data_set_of_normalised_images():
    dataset = TensorDataset(torch.full((4, 3, 8, 8), -1.5), torch.zeros(4, dtype=torch.long))
    assert refused(DataError, lambda: from_datasets(dataset, dataset, ["a"], title="mine")) == (
        "Expected images in [0, 1], but number 0 is in [-1.5, -1.5]; already normalised? Take that out, and make it a "
        "layer of the model: robust_adapt.normalize(model, mean=, std=)."
    )


# From Python: what is wrong of a folder, a file, the network


def test_unknown_names_are_said_before_data_are_loaded(tmp_path):
    data, attack = DataConfig(root=str(tmp_path), offline=True), AttackConfig(attacks=("pdg",))
    for section, sentence in (
        ({"model": ModelConfig(name="ResNet81")}, UNKNOWN_MODEL),
        ({"attack": attack}, UNKNOWN_ATTACK),
    ):
        config = recipe("pgd", data=data, **section)
        assert refused(ConfigError, lambda config=config: runs.train(config, tmp_path / "run")) == sentence
    assert not list(tmp_path.iterdir())


def test_a_folder_without_classes(tmp_path):
    (tmp_path / "train").mkdir()
    for root, said in ((tmp_path, NO_CLASS), (tmp_path / "absent", NO_FOLDER)):
        config = DataConfig(name=f"folder:{root}")
        sentence = refused(DataError, lambda config=config: load_data(config))
        assert sentence == NO_CLASSES.format(root=root, said=said.format(root=root))


def test_a_run_folder_that_is_none(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        for call in (load_run, runs.evaluate, runs.check_name):
            if call is not runs.check_name or folder.exists():
                sentence = refused(CheckpointError, lambda call=call, folder=folder: call(str(folder)))
                assert sentence == NO_RUN.format(folder=folder)


def test_resuming_into_a_folder_of_something_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    sentence = refused(CheckpointError, lambda: runs.train(recipe("standard"), tmp_path, resume=True))
    assert sentence == NOT_EMPTY.format(folder=tmp_path)


def test_truncated_checkpoints(run):
    cut(run / "last.ckpt", run / "previous.ckpt")
    sentence = refused(CheckpointError, lambda: runs.train(read_config(run), run, resume=True))
    assert sentence == CUT_CHECKPOINTS.format(folder=run)


def test_truncated_weights(run):
    cut(run / "best.pt")
    for call in (load_run, runs.evaluate):
        sentence = refused(CheckpointError, lambda call=call: call(run))
        assert sentence == CUT_WEIGHTS.format(path=run / "best.pt") + LAST_WEIGHTS.format(path=run / "last.ckpt")


@pytest.fixture
def no_network(monkeypatch):
    """Every download is refused for real, at a port of this machine that nothing listens on."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("offline", "reason"), [(True, "downloads are off"), (False, NO_NETWORK)])
def test_no_cifar10(tmp_path, no_network, offline, reason):
    config = DataConfig(root=str(tmp_path), offline=offline)
    sentence = refused(DataError, lambda: load_data(config))
    assert sentence == NO_CIFAR10.format(root=str(tmp_path), reason=reason)


# The command line

COMMAND_LINE = {
    "unknown command": (
        "trian",
        f"ConfigError Expected a known command, but got 'trian'; did you mean 'train'? "
        f"Known: {', '.join(sorted(cli.COMMANDS))}.",
    ),
    "eps 8, train": (
        "train pgd --controller.target 8",
        f"ConfigError {EPS_8}".format(name="controller.target", got="8.0"),
    ),
    "eps 8, evaluate": ("evaluate run --eps 8", f"ConfigError {EPS_8}".format(name="eps", got="8.0")),
    "eps 8, benchmark": ("benchmark run --eps 8", f"ConfigError {EPS_8}".format(name="eps", got="8.0")),
    "eps 8, table": ("table --eps 8", f"ConfigError {EPS_8}".format(name="controller.target", got="8.0")),
    "eps -0.1, train": (
        "train pgd --controller.target -0.1",
        f"ConfigError {EPS_MINUS}".format(name="controller.target"),
    ),
    "eps -0.1, evaluate": ("evaluate run --eps -0.1", f"ConfigError {EPS_MINUS}".format(name="eps")),
    "eps 8/0, train": (
        "train pgd --controller.target 8/0",
        f"Value error Error parsing --controller.target: {EPS_8_0.format(name='eps')} "
        "Argument helptext: --controller.target EPS The eps "
        "to reach (what `gap` and `ratio` are measured in), also the budget of validation and evaluation. (default: "
        "8/255) For full helptext, see robust-adapt train pgd --help",
    ),
    "eps 8/0, evaluate": (
        "evaluate run --eps 8/0",
        f"Value error Error parsing --eps: {EPS_8_0.format(name='eps')} "
        "Argument helptext: --eps EPS Budget; by default the training's "
        "target. Of several balls the first one's. (default: None) For full helptext, see robust-adapt evaluate --help",
    ),
    "unknown recipe, train": ("train pdg", f"ConfigError {unknown_recipe('pdg', 'pgd')}"),
    "unknown recipe, plan": ("plan pdg", f"ConfigError {unknown_recipe('pdg', 'pgd')}"),
    "unknown recipe, table": ("table --robust deepsek", f"ConfigError {unknown_recipe('deepsek', 'deepseek')}"),
    "unknown data set, train": ("train pgd --data.name cifar1", f"DataError {UNKNOWN_DATA}"),
    "unknown data set, evaluate": ("evaluate run --data.name cifar1", f"DataError {UNKNOWN_DATA}"),
    "unknown data set, benchmark": ("benchmark run --data.name cifar1", f"DataError {UNKNOWN_DATA}"),
    "unknown data set, table": ("table --data.name cifar1", f"DataError {UNKNOWN_DATA}"),
    "unknown model, train": ("train pgd --model.name ResNet81", f"ConfigError {UNKNOWN_MODEL}"),
    "unknown model, table": ("table --model.name ResNet81", f"ConfigError {UNKNOWN_MODEL}"),
    "unknown model, benchmark": ("benchmark Carmon2019Unlabelled", f"ConfigError {UNKNOWN_ZOO}"),
    "unknown attack, train": ("train pgd --attack.attacks pdg", f"ConfigError {UNKNOWN_ATTACK}"),
    "unknown row, evaluate": ("evaluate run --rows PDG-20", f"ConfigError {UNKNOWN_ROW}"),
    "folder without classes, train": (
        "train pgd --data.name folder:empty",
        f"DataError {NO_CLASSES}".format(root="empty", said=NO_FOLDER.format(root="empty")),
    ),
    "folder without classes, evaluate": (
        "evaluate run --data.name folder:absent",
        f"DataError {NO_CLASSES}".format(root="absent", said=NO_FOLDER.format(root="absent")),
    ),
    "no run, evaluate": ("evaluate empty", f"CheckpointError {NO_RUN}".format(folder="empty")),
    "no folder, evaluate": ("evaluate absent", f"CheckpointError {NO_RUN}".format(folder="absent")),
    "no run, benchmark": ("benchmark empty", f"CheckpointError {NO_RUN}".format(folder="empty")),
    "no file, benchmark": (
        "benchmark absent.pt",
        "CheckpointError Expected a run folder, a checkpoint file, module:function or a RobustBench name, but there is "
        "no file 'absent.pt'; look at the path.",
    ),
    "no network, train": (
        "train pgd --data.root empty",
        f"DataError {NO_CIFAR10}".format(root="empty", reason=NO_NETWORK),
    ),
    "no network, table": (
        "table --data.root empty",
        f"DataError {NO_CIFAR10}".format(root="empty", reason=NO_NETWORK),
    ),
    "offline, train": (
        "train pgd --data.root empty --data.offline",
        f"DataError {NO_CIFAR10}".format(root="empty", reason="downloads are off"),
    ),
    "offline, benchmark": (
        "benchmark Carmon2019Unlabeled --offline " + " ".join(DIGITS),
        "CheckpointError Expected Carmon2019Unlabeled at models/cifar10/Linf/Carmon2019Unlabeled.pt, but it is not "
        "there and downloads are off; put the file there, or allow downloads.",
    ),
}


@pytest.fixture
def command_line(run, tmp_path, capsys, no_network):
    """Run a refused command beside a run folder and an empty one; the block on stderr, without its frame."""
    (tmp_path / "empty").mkdir()

    def call(line):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        try:
            code = cli.main(line.split())
        except SystemExit as stop:  # the refusals of the flags themselves
            code = stop.code
        captured = capsys.readouterr()
        assert code == 2, captured
        assert "Traceback" not in captured.out + captured.err
        assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        return " ".join(re.sub("[╭╮╰╯│─]|-{5,}", " ", captured.err).split())

    return call


@pytest.mark.parametrize("entry", COMMAND_LINE)
def test_command_line(entry, command_line):
    line, sentence = COMMAND_LINE[entry]
    assert command_line(line) == sentence


def test_resuming_into_a_folder_of_something_else_on_the_command_line(tmp_path, command_line):
    (tmp_path / "empty" / "thesis.tex").write_text("")
    sentence = f"CheckpointError {NOT_EMPTY}".format(folder="empty")
    assert command_line("train standard --out empty --resume") == sentence


def test_truncated_checkpoints_on_the_command_line(run, command_line):
    cut(run / "last.ckpt", run / "previous.ckpt")
    sentence = f"CheckpointError {CUT_CHECKPOINTS}".format(folder="run")
    assert command_line("train standard --out run --resume") == sentence


@pytest.mark.parametrize("command", ["evaluate run", "benchmark run"])
def test_truncated_weights_on_the_command_line(run, command_line, command):
    cut(run / "best.pt")
    expected = CUT_WEIGHTS.format(path="run/best.pt") + LAST_WEIGHTS.format(path="run/last.ckpt")
    assert command_line(command) == f"CheckpointError {expected}"


def test_images_of_a_wrong_shape_in_a_file_on_the_command_line(run, tmp_path, command_line):
    np.save(tmp_path / "empty" / "cifar10.1_v6_data.npy", np.zeros((3, 3, 32, 32), np.float32))
    np.save(tmp_path / "empty" / "cifar10.1_v6_labels.npy", np.array([0, 1, 10]))
    assert command_line("evaluate run --data.name cifar10.1 --data.root empty") == (
        "DataError Expected CIFAR-10.1 as uint8 images (N, 32, 32, 3) and labels 0 to 9, but got float32 (3, 3, 32, "
        "32) and int64 (3,) in 'empty'; take the pair again."
    )
