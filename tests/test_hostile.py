"""Files and names from a stranger: no code runs, nothing leaves its folder, nothing takes effect where it is shown."""

import ast
import csv
import io
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fuzz_doors import flat
from rich.console import Console
from test_damage import config
from test_reporting import evaluation, page_of

import robust_adapt
from robust_adapt import cli, load_run, load_zoo_model, reporting, runs
from robust_adapt.ball import Ball
from robust_adapt.cli.train import _slug
from robust_adapt.config import DataConfig, ModelConfig
from robust_adapt.data import load_data
from robust_adapt.errors import CheckpointError, ConfigError, DataError
from robust_adapt.leaderboard import benchmark
from robust_adapt.recipes import recipe
from robust_adapt.reporting.dossier import Case, Prediction
from robust_adapt.reporting.text import cell, drawn, harmless, markdown
from robust_adapt.training.checkpoint import load_checkpoint, load_weights, read_checkpoint, save_checkpoint

ROOT = Path(robust_adapt.__file__).parent
NAMES = [
    "<script>alert(1)</script>",
    "\x1b]0;title\x07\x1b[2J",
    "[bold red]x[/] [/] [link=https://a.org]y[/link]",
    "a|b\nc",
    "![x](https://a.org/x.png)",
    "=HYPERLINK(1)",
    "\u202egpj.exe",
    "$\\frac{$",
    "_hidden",
    "\udcff",
]


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def hostile(tmp_path):
    """A file that would run code, and the folder that would be there if it had."""
    proof = tmp_path / "proof"
    torch.save({"weight": Hostile(proof)}, tmp_path / "hostile.pt")
    yield tmp_path / "hostile.pt", proof
    assert not proof.exists()
    torch.load(tmp_path / "hostile.pt", weights_only=False)
    assert proof.exists()  # the file would have


def refused(kind, call, *arguments, **options):
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    return str(caught.value)


def test_no_file_of_a_run_runs_code(hostile, tmp_path):
    path, proof = hostile
    named = "but got one with an object of Python (posix.mkdir), which can run code while it is read; only if you"
    assert named in refused(CheckpointError, load_weights, path)
    for name in ("last.ckpt", "previous.ckpt"):
        (tmp_path / name).write_bytes(path.read_bytes())
        assert "truncated or damaged" in refused(CheckpointError, read_checkpoint, tmp_path / name)
    refused(CheckpointError, load_checkpoint, tmp_path)
    runs.train(config(epochs=0.5), tmp_path / "run")
    (tmp_path / "run" / "best.pt").write_bytes(path.read_bytes())
    assert named in refused(CheckpointError, load_run, tmp_path / "run")
    start = recipe("standard").model.__class__(width=8, weights=str(path))
    assert named in refused(CheckpointError, runs.train, config(model=start), tmp_path / "other")
    assert not (tmp_path / "other").exists() and not proof.exists()


def test_no_file_of_the_zoo_runs_code(hostile, tmp_path):
    path, proof = hostile
    place = tmp_path / "models" / "cifar10" / "Linf" / "Rade2021Helper_R18_extra.pt"
    place.parent.mkdir(parents=True)
    place.write_bytes(path.read_bytes())
    sentence = refused(
        CheckpointError, load_zoo_model, "Rade2021Helper_R18_extra", model_dir=tmp_path / "models", offline=True
    )
    assert f"at {place}, but got one with an object of Python (posix.mkdir), " in sentence and not proof.exists()


def test_a_page_in_the_place_of_weights_is_named(tmp_path):
    page = tmp_path / "best.pt"
    page.write_text("<!doctype html><title>Quota exceeded</title>")
    assert refused(CheckpointError, load_weights, page).startswith(
        f"Expected a file of tensors at {page}, but got an HTML page, which a download brings"
    )


@pytest.mark.parametrize(
    "name", ["../../x", "/tmp/x", "a/b", "..", ".hidden", "", "a\nb", "\x1b[31m", "a" + "\\" + "b"]
)
def test_a_run_cannot_be_named_like_a_path(name):
    assert refused(ConfigError, recipe, "pgd", recipe=name) == (
        f"Expected `recipe` of letters, digits, _, - and ., but got {name!r}; a name, not a path."
    )


@pytest.mark.parametrize("name", ["folder:../../x", "folder:..", "folder:/", "folder:a/<script>", "folder:\x1b[31m"])
def test_a_data_set_cannot_choose_the_folder_of_a_run(name):
    slug = _slug(name)
    assert (
        slug
        and set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
        and Path("runs", slug).parent == Path("runs")
    )


@pytest.mark.parametrize("name", NAMES)
def test_no_name_takes_effect_in_the_terminal(name):
    console = Console(file=io.StringIO(), width=300, force_terminal=True, color_system=None)
    console.print(reporting.plain(name))
    assert console.file.getvalue() == harmless(name) + "\n"
    record = evaluation(name, 1, data=name)
    console.print(reporting.terminal_table([record], title=name))
    shown = console.file.getvalue()
    assert "\x1b]" not in shown and "\x1b[2J" not in shown and "\x07" not in shown and "\u202e" not in shown
    assert "\x1b]8" not in shown  # rich's own code of a link


@pytest.mark.parametrize("name", NAMES)
def test_no_name_takes_effect_in_markdown_html_or_csv(name, tmp_path):
    records = [evaluation(name, 1, data=name), evaluation("b", 1, data=name)]
    text = reporting.markdown_table(records)
    assert "<script" not in text and "](http" not in text and text.isascii()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1  # no cell more in any row
    page = page_of(records)
    assert "<script" not in page
    rows = list(csv.reader(io.StringIO(reporting.csv_table(records))))
    assert all(not field.startswith(("=", "+", "@", "\t", "\r")) for row in rows for field in row)
    assert len({len(row) for row in rows}) == 1


def test_numbers_in_csv_stay_numbers():
    assert [cell(-0.5), cell("-1"), cell("=1"), cell("a")] == [-0.5, "'-1", "'=1", "a"]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_breaks_a_picture(name, tmp_path):
    picture = torch.zeros(8, 8, 3).numpy()
    answers = {title: {name: Prediction(label=name, confidence=0.5)} for title in ("clean", "attacked")}
    case = Case(label=name, images={"clean": picture, "attacked": picture}, answers=answers)
    reporting.draw_cases([case], tmp_path / "cases.png", Ball("Linf", 8 / 255))
    reporting.draw_curves({name: ([], [])}, tmp_path / "curves.png")
    assert all((tmp_path / f"{kind}.png").read_bytes().startswith(b"\x89PNG") for kind in ("cases", "curves"))
    assert not drawn(name).startswith("_")


def test_ordinary_names_stay_as_they_are():
    for name in ("CIFAR-10 (JPEG copy)", "ResNet-18, width 16", "Katze, Hund & Maus".replace("&", "und"), "猫", "café"):
        assert harmless(name) == reporting.plain(name) == markdown(name) == cell(name) == drawn(name) == name


def test_classes_with_hostile_names_train_and_are_shown_harmlessly(make_folder, tmp_path):
    names = ["<script>alert(1)<", "$x$ [red]", "=1+1"]
    folder = make_folder(classes=names, size=8, counts=(("train", 8), ("test", 2)), name="<b>data")
    data = robust_adapt.load_data(config().data.__class__(name=f"folder:{folder}", validation=4))
    assert sorted(data.classes) == sorted(names)
    run = runs.train(config(batch_size=8, epochs=1), tmp_path / "run", data=data)
    record = runs.evaluate(run, data=data, rows=["Clean"])
    assert "<b>" not in reporting.markdown_table([record]) and "<b>" not in page_of([record])
    cases = [
        Case(label=label, images={"clean": torch.zeros(8, 8, 3).numpy()}, answers={"clean": {}})
        for label in data.classes
    ]
    reporting.draw_cases(cases, tmp_path / "cases.png", Ball("Linf", 0.1))


@pytest.mark.parametrize("argument", ["\x1b[31mred", "a\x07", "a\nb", "\u202egpj", "\udcff"])
def test_control_characters_on_the_command_line_are_refused_unshown(argument, capsys):
    assert cli.main(["train", "pgd", "--out", argument]) == 2
    assert " ".join(capsys.readouterr().err.split()) == (
        f"ConfigError Expected readable text on the command line, but got {argument!r}; no control characters."
    )


def test_markup_on_the_command_line_is_shown_as_it_is(capsys):
    assert cli.main(["[red]x[/red]"]) == 2
    assert "but got '[red]x[/red]';" in " ".join(capsys.readouterr().err.split())


def test_no_shell_anywhere():
    """No call hands a text to a shell: every process is a list of words."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("os.system", "os.popen", "eval", "exec", "subprocess.getoutput", "pickle.load"), (
                    path
                )
                assert not any(keyword.arg == "shell" for keyword in node.keywords), path


# a disk that is full, a folder that may not be written, a folder that goes away


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB; where none may be mounted, /dev/full and a size limit stand in (see the next test)."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a file system here; the size limit of the next test covers the same path")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_named_and_the_checkpoint_before_loads(small_disk):
    state = {"step": 1, "weight": torch.zeros(200_000)}
    save_checkpoint(small_disk, state)
    (small_disk / "ballast").write_bytes(bytes(1_900_000))
    sentence = refused(CheckpointError, save_checkpoint, small_disk, state | {"step": 2})
    assert "No space left on device" in sentence and sentence.startswith("Expected to write ")
    assert load_checkpoint(small_disk)[0]["step"] == 1
    assert sorted(path.name for path in small_disk.iterdir()) == ["ballast", "last.ckpt"]  # nothing half-written


def test_a_file_that_may_not_grow_is_named_and_the_checkpoint_before_loads(tmp_path):
    save_checkpoint(tmp_path, {"step": 1, "weight": torch.zeros(1000)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # Python ignores the signal that would come with it
    try:
        sentence = refused(CheckpointError, save_checkpoint, tmp_path, {"step": 2, "weight": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sentence.startswith("Expected to write ") and "File too large" in sentence
    assert load_checkpoint(tmp_path)[0]["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_folder_that_may_not_be_written(tmp_path):
    folder = tmp_path / "fixed"
    folder.mkdir()
    if os.getuid() == 0:  # the modes of files do not bind root
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], capture_output=True)
        if mounted.returncode:
            pytest.skip("no right to mount a file system here, and modes do not bind root")
    else:
        folder.chmod(0o500)
    try:
        sentence = refused(CheckpointError, runs.train, config(), folder / "run")
    finally:
        if os.getuid() == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    assert sentence.startswith(f"Expected to write the run folder {folder / 'run'}, but got: ")


def test_a_folder_that_is_deleted_during_the_run(tmp_path):
    import shutil

    folder = tmp_path / "run"

    def delete(record):
        if getattr(record, "step", 0) == 3:
            shutil.rmtree(folder)

    sentence = refused(CheckpointError, runs.train, config(), folder, report=delete)
    assert sentence.startswith("Expected to write") and "No such file or directory" in sentence


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    sentence = refused(CheckpointError, runs.train, config(), tmp_path / "file" / "run")
    assert sentence.startswith(f"Expected to write the run folder {tmp_path / 'file' / 'run'}, but got: ")
    assert refused(DataError, robust_adapt.load_data, config().data.__class__(name=f"folder:{tmp_path / 'file'}"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A run whose config names code; ``answers`` writes a file beside the module each time it is imported."""
    root = tmp_path_factory.mktemp("stranger")
    (root / "answers.py").write_text(
        "from pathlib import Path\nfrom torch import nn\nPath(__file__).with_suffix('.seen').touch()\n\n\n"
        "def build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root)
        runs.train(config(epochs=0.5, model=ModelConfig(name="answers:build")), root / "run")
        record = leaderboard_record(root)
    sys.modules.pop("answers")
    (root / "answers.seen").unlink()
    return root, record


def leaderboard_record(root):
    """What ``submit`` takes, as far as it is read before the run."""
    run = load_run(root / "run", trust_code=True)
    options = {"eps": 0.1, "n": 4, "version": "custom", "attacks": ["apgd-ce"], "out": root / "judged"}
    flat(benchmark)(model=run.model, data=runs.load_own_data(run), **options)
    return root / "judged"


BUILD = "answers:build"
CODE = (
    "Expected a model of ours in {folder}, but its config.json names the code 'answers:build', which would be imported "
    "and run; where you trust it, say so with trust_code=True (--trust-code)."
)


@pytest.fixture
def unseen(stranger, monkeypatch):
    """The stranger's folder with its module at hand, and whether that was imported."""
    root, record = stranger
    monkeypatch.syspath_prepend(root)
    monkeypatch.chdir(root)
    yield root / "run", record, root / "answers.seen"
    sys.modules.pop("answers", None)
    (root / "answers.seen").unlink(missing_ok=True)


DOORS = {
    "load_run": lambda run: load_run(run),
    "another name": lambda run: load_run(run, trust_code="answers:other"),
    "evaluate": lambda run: runs.evaluate(run, rows=["Clean"], n=4),
    "sanity": lambda run: runs.check_run(run, n=4),
    "standard of sanity": lambda run: runs.check_run(ready_run(run), n=4, standard=run),
    "benchmark": lambda run: runs.find_model(str(run), load_data(DataConfig(name="digits"))),
    "a file of it": lambda run: runs.find_model(str(run / "best.pt"), load_data(DataConfig(name="digits"))),
}


def ready_run(run):
    """A run of our own beside the stranger's."""
    if not (run.parent / "own").exists():
        runs.train(config(epochs=0.5), run.parent / "own")
    return load_run(run.parent / "own")


@pytest.mark.parametrize("door", DOORS)
def test_a_folder_that_names_code_runs_none(door, unseen):
    run, _, seen = unseen
    assert refused(ConfigError, DOORS[door], run) == CODE.format(folder=run)
    assert not seen.exists() and "answers" not in sys.modules


COMMANDS = {
    "evaluate": ["evaluate", "run", "--rows", "Clean", "--n", "4"],
    "benchmark": ["benchmark", "run", "--n", "4", "--eps", "0.1", "--version", "custom", "--attacks", "apgd-ce"],
    "a file of it": ["benchmark", "run/best.pt", "--data.name", "digits", "--n", "4", "--version", "custom",
                     "--attacks", "apgd-ce"],
    "table": ["table", "--standard", "run", "--robust", "run", "--evaluation.n", "4", "--data.name", "digits"],
    "submit": ["submit", "run", "--benchmark", "judged", "--name", "A", "--title", "A", "--authors", "A", "--link", "A",
               "--draft"],
    "resume": ["train", "standard", "--out", "run", "--resume"],
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs_the_code_of_a_folder_where_it_is_told_to(command, unseen, capsys):
    run, _, seen = unseen
    folder = "run"
    assert cli.main(COMMANDS[command]) == 2
    assert capsys.readouterr().err.strip() == "ConfigError " + CODE.format(folder=folder)
    assert not seen.exists() and "answers" not in sys.modules
    assert cli.main([*COMMANDS[command], "--trust-code"]) == 0
    assert seen.exists()


@pytest.mark.parametrize("command", ["benchmark", "a file of it", "table", "resume"])
def test_a_name_on_the_command_line_is_the_caller_s_own(command, unseen):
    assert cli.main([*COMMANDS[command], "--model.name", BUILD]) == 0


def test_a_model_is_named_by_python_names():
    for name in ("os:abort\nimport os", "a b:c", ":c", "a:", "a::b", "a:b()"):
        sentence = f"Expected `module:function`, but got {name!r}; write both as Python names."
        assert refused(ConfigError, robust_adapt.build_model, name) == sentence
