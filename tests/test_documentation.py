"""The documentation holds: pages and links, every command by its own parser, and on the digits what can run there."""

import argparse
import dataclasses
import importlib
import pkgutil
import re
import shutil
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
import torchattacks
from documentation import PAGES, PROGRAMS, ROOT, anchors, commands, links, name_of, snippets
from torch import nn

import robust_adapt
from robust_adapt import cli
from robust_adapt.cli import terminal

CONFIG = (ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8")
API = {name_of(page): re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE) for page in PAGES}


def test_the_site_lists_every_page_once():
    assert sorted(re.findall(r": (\S+\.md)$", CONFIG, re.MULTILINE)) == sorted(map(name_of, PAGES))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_link_leads_somewhere(page):
    for link in links(page):
        if "://" in link:
            assert link.startswith("https://")
            continue
        path, _, anchor = link.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), link
        if anchor.startswith("robust_adapt."):
            assert any(anchor.startswith(f"{module}.") for module in API[name_of(there)]), link
            assert hasattr(importlib.import_module(anchor.rpartition(".")[0]), anchor.rpartition(".")[2]), link
        elif anchor:
            assert anchor in anchors(there), link


def test_every_public_name_is_in_the_reference():
    modules = {f"robust_adapt.{home}" for home in robust_adapt._HOMES.values()}
    for found in pkgutil.iter_modules(robust_adapt.__path__, "robust_adapt."):
        if found.ispkg and hasattr(importlib.import_module(found.name), "__all__"):
            modules.add(found.name)
    assert modules == {module for listed in API.values() for module in listed}
    names = {f"robust_adapt.{home}.{name}" for name, home in robust_adapt._HOMES.items()}
    assert {link.partition("#")[2] for link in links(ROOT / "docs" / "api" / "index.md")} == names


class Parsed(Exception):
    """A parser has taken the arguments; what would come next is not asked for."""


def stopping(parse):
    def stop(*given, **settings):
        raise Parsed(parse(*given, **settings))

    return stop


COMMANDS = commands()
OURS = [command for command in COMMANDS if command.arguments is not None]
OTHERS = [command for command in COMMANDS if command.arguments is None]


@pytest.mark.parametrize("command", OURS, ids=str)
def test_a_command_is_parsed_by_its_own_parser(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(terminal.tyro, "cli", stopping(terminal.tyro.cli))
    with pytest.raises((Parsed, SystemExit)) as end:  # without a recipe, the recipes are listed
        raise SystemExit(cli.main(command.arguments))
    assert end.type is Parsed or end.value.code == 0


@pytest.mark.parametrize("command", OTHERS, ids=str)
def test_a_command_of_another_program_exists(command, monkeypatch):
    words = [word for word in command.words if word != "-m"]
    assert words[0] in PROGRAMS
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in words[1:])
    elif words[0] == "python" and words[1].startswith("benchmarks"):
        module = words[1].removesuffix(".py").replace("/", ".")
        monkeypatch.setattr("sys.argv", [module, *words[2:]])
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stopping(argparse.ArgumentParser.parse_args))
        with pytest.raises(Parsed):
            importlib.import_module(module).main()
    else:
        files = [word for word in words if "/" in word and not word.startswith(".venv/")]
        assert all((ROOT / word).is_file() for word in files)


# So that a command runs on the digits: what stands for a word of it, and what comes after its own flags
WORDS = {
    "folder:PATH": "digits",
    "folder:cifar10-jpeg": "digits",
    "cifar10": "digits",
    "runs/deepseek-PATH": "runs/deepseek-digits",
    "ResNet18": "conftest:digits_net",
    "mymodels:build": "conftest:digits_net",
}
DIGITS = ["--data.name", "digits", "--data.validation", "20", "--model.name", "conftest:digits_net"]
FEW = ["--evaluation.n", "8", "--evaluation.deepfool-n", "2"]
LAST = {
    "plan": [*DIGITS, "--probe", "0.1", "--no-compile"],
    "train": [*DIGITS, *FEW, "--batch-size", "64", "--epochs", "0.1", "--no-compile"],
    "table": [*DIGITS, *FEW, "--epochs", "0.1"],
    "evaluate": ["--n", "8", "--sanity-n", "4", "--trust-code"],
    "benchmark": ["--n", "4", "--version", "custom", "--attacks", "apgd-ce", "--trust-code"],
    "compare": [],
    "transfer": ["--n", "8", "--trust-code"],
    "report": ["--trust-code"],
}
ELSEWHERE = {  # a word of the commands that do not run here, and why
    "doctor": "depends on the machine: tests/test_cli.py",
    "submit": "digits are on no leaderboard: tests/test_leaderboard_submission.py",
    "leaderboard": "digits are on no leaderboard: tests/test_boards.py",
    "--devices": "several processes: tests/test_distributed.py",
    "torchrun": "several processes: tests/test_distributed.py",
    "Rade2021Helper_R18_extra": "is a download",
}
RUNNING = [command for command in OURS if command.stands and not ELSEWHERE.keys() & {*command.words}]
# folders that a page names and does not make
GIVEN = {"deepseek": ["RUN", "MODEL", "A", "C", "runs/deepseek"]}
GIVEN |= {"standard": ["RUN_OF_STANDARD", "standard", "B", "runs/standard"]}
GIVEN |= {"judged": ["FOLDER_A", "another", "published", "judged"], "judged too": ["FOLDER_B"]}


def on_digits(*arguments):
    words = [WORDS.get(word, word) for word in arguments]
    return cli.main([*words, *LAST[words[0]]])


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    for recipe in ("standard", "deepseek"):
        assert on_digits("train", recipe, "--out", str(folder / recipe)) == 0
    for run, out in {"deepseek": "judged", "standard": "judged too"}.items():
        assert on_digits("benchmark", str(folder / run), "--out", str(folder / out)) == 0
    return folder


@pytest.mark.filterwarnings("ignore:.*cw return the clean image where they fail")  # which `literal` is known for
@pytest.mark.parametrize("page", sorted({command.page for command in RUNNING}))
def test_the_commands_of_a_page_run_on_the_digits(page, given, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    named = [command for command in RUNNING if command.page == page]
    made = {after for command in named for word, after in pairwise(command.words) if word == "--out"}
    for folder, names in GIVEN.items():
        for name in {*names} - made:
            shutil.copytree(given / folder, name)
    shutil.copy(given / "deepseek" / "best.pt", "checkpoint.pt")
    for command in named:
        assert on_digits(*command.arguments) == 0, (str(command), capsys.readouterr().err)


class Mine(torchattacks.PGD):
    """The attack of somebody else that docs/adding.md speaks of."""


@pytest.mark.parametrize("page, code", snippets(), ids=[page for page, _ in snippets()])
def test_a_snippet_runs(page, code, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    data = robust_adapt.load_data(robust_adapt.DataConfig(name="digits"))
    data = dataclasses.replace(data, test=data.test.first(10))
    images = data.test.tensors()[0]
    with torch.no_grad():
        labels = (model(images).argmax(1) + 1) % 10  # wrong at once, so that AutoAttack has nothing left to break
    data = dataclasses.replace(data, test=dataclasses.replace(data.test, labels=labels))
    names = {name: getattr(robust_adapt, name) for name in robust_adapt.__all__}
    names |= {"load_data": lambda _: data, "split": data.test, "data": data, "images": images, "labels": labels}
    names |= {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "Mine": Mine, "F": F}
    exec(code, names | {"robust_adapt": robust_adapt, "loader": [(images, labels)] * 2, "epochs": 1})
