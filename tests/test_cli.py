"""The command line: what it prints, returns and refuses. Commands that train run on a few steps of the digits."""

import dataclasses
import io
import json
import logging
import math
import re
from pathlib import Path

import pytest
from lightning_fabric.utilities import rank_zero
from rich.console import Console
from test_reporting import evaluation

from robust_adapt import cli, reporting, runs, upstream
from robust_adapt.ball import Ball
from robust_adapt.cli.benchmark import BenchmarkOptions, _own_budget
from robust_adapt.cli.evaluate import EvaluateOptions
from robust_adapt.cli.terminal import Answer, grid, read_of_run
from robust_adapt.cli.train import TrainingProgress, _slug, step_text
from robust_adapt.config import DataConfig
from robust_adapt.errors import Stopped
from robust_adapt.recipes import RECIPES, on_digits, recipe
from robust_adapt.records import EpochRecord, RunRecord, StepRecord
from robust_adapt.training.checkpoint import read_config

DIGITS = ["--data.name", "digits", "--data.validation", "60"]
TINY = [*DIGITS, "--model.width", "4", "--batch-size", "32"]


def run(capsys, *arguments):
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return code, " ".join(captured.out.split()), " ".join(captured.err.split())


def test_overview_names_every_command(capsys):
    code, out, _ = run(capsys)
    assert code == 0
    assert all(name in out for name in cli.COMMANDS)


def test_quiet_prints_errors_alone(capsys):
    assert run(capsys, "--quiet") == (0, "", "")
    code, out, err = run(capsys, "trian", "--quiet")
    assert (code, out) == (2, "") and err.startswith("ConfigError Expected a known command")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_a_refusal_is_a_record_for_a_program(capsys, command):
    code = cli.main([command, "--json", "--no-such-flag"])
    out = capsys.readouterr().out
    error = json.loads(out)["error"]
    assert (code, error["kind"], out.count("\n")) == (2, "ConfigError", 1)
    assert "--no-such-flag" in error["message"] or "robust-adapt " in error["message"]


@pytest.mark.parametrize("command", ["train", "plan"])
def test_the_recipes_are_a_record_too(capsys, command):
    code, out, _ = run(capsys, command, "--json")
    assert code == 0 and "pgd" in json.loads(out)["recipes"]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("doctor", {"checks"}),
        ("leaderboard cifar10 L2", {"dataset", "norm", "entries", "added"}),
        ("plan pgd --probe 0", {"crafting", "training", "signals", "probe", "compiled"}),
    ],
)
def test_a_record_is_all_that_a_program_reads(capsys, line, names):
    cli.main([*line.split(), "--json"])
    out = capsys.readouterr().out
    assert json.loads(out, parse_constant=pytest.fail).keys() == names and out.count("\n") == 1


def test_the_record_is_strict_json():
    answer = Answer(record={"nan": math.nan, "deep": [{"inf": -math.inf}], "one": 1.5}, folder=Path("a"), files=["b"])
    read = json.loads(cli._json(answer), parse_constant=pytest.fail)
    assert read == {"nan": None, "deep": [{"inf": None}], "one": 1.5, "folder": "a", "files": ["b"]}


@pytest.mark.parametrize(
    ("error", "command", "code", "message"),
    [
        (KeyboardInterrupt(), "doctor", 130, "Interrupted. Nothing is kept; start it again."),
        (KeyboardInterrupt(), "train", 130, "Interrupted. A run that has a checkpoint goes on with --resume."),
        (Stopped(15, "Stopped at 3"), "train", 143, "Stopped at 3"),
        (Stopped(2, "Stopped at 3"), "demo", 130, "Stopped at 3. Runs that are trained are kept; the same command"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_ctrl_c_says_what_is_kept(capsys, monkeypatch, error, command, code, message, flags):
    def interrupted(_arguments):
        raise error

    monkeypatch.setattr(cli, "_command", lambda _name: interrupted)
    found, out, err = run(capsys, command, *flags)
    assert found == code and err.startswith(message)
    assert not flags or json.loads(out)["error"] == {"kind": "Stopped", "message": err}


def test_an_error_of_our_own_making_is_a_record_and_a_traceback(capsys, monkeypatch):
    monkeypatch.setattr(upstream, "doctor", lambda _root: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor", "--json"])
    error = {"kind": "ZeroDivisionError", "message": "division by zero"}
    assert json.loads(capsys.readouterr().out) == {"error": error}


def test_fabric_says_nothing_in_between(capsys, caplog):
    assert runs.launch("cpu")
    logging.getLogger("lightning_fabric").setLevel(logging.INFO)  # as its import does
    rank_zero.rank_zero_info("Using bfloat16 Automatic Mixed Precision (AMP)")
    assert "bfloat16" not in caplog.text + "".join(capsys.readouterr())


def test_every_config_field_is_a_flag_with_its_sentence(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "deepseek", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for flag in ("--data.validation", "--controller.ramp-end", "--loss.clean-share", "--optimizer.average", "--out"):
        assert flag in text
    assert "Images held out of the training split" in text


def test_train_evaluate_and_table_on_the_digits(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = [
        *TINY,
        "--epochs",
        "1",
        "--controller.target",
        "0.1",
        "--evaluation.n",
        "40",
        "--evaluation.deepfool-n",
        "4",
    ]
    code, out, err = run(capsys, "train", "pgd", *flags, "--out", "one")
    assert (code, err) == (0, "")
    assert "Best epoch by validation" in out and "━" not in out  # no bar where there is no terminal

    line = ["evaluate", "one", "--rows", "Clean", "PGD-20", "--eps", "25/255"]
    code, out, _ = run(capsys, *line)
    assert code == 0 and "Written to one: evaluation.json" in out and "Wilson" not in out
    record = json.loads((tmp_path / "one" / "evaluation.json").read_text())
    assert [row["name"] for row in record["attacks"]] == ["Clean", "PGD-20"]
    assert record["eps"] == pytest.approx(25 / 255)
    assert re.search(r"PGD-20 .* 40 ", out)
    code, out, _ = run(capsys, *line, "--n", "10", "--verbose")  # which is less than what is there
    assert code == 0 and "95 % Wilson intervals" in out
    assert "Not written: the evaluation.json of one says this on 40 images under 2 rows, and stays; delete it" in out
    assert json.loads((tmp_path / "one" / "evaluation.json").read_text()) == record
    code, out, _ = run(capsys, *line, "--quiet", "--json")
    again = json.loads(out)
    assert (code, again["folder"], again["files"]) == (0, "one", ["evaluation.json"])
    assert again["evaluation"] == json.loads((tmp_path / "one" / "evaluation.json").read_text())
    code, out, _ = run(capsys, "compare", "one", "one", "--json")
    assert code == 0 and json.loads(out)["rows"]["PGD-20"]["difference"] == 0

    sections = ["--data.name", "digits", "--data.validation", "60", "--model.width", "4", "--evaluation.n", "40"]
    code, out, _ = run(
        capsys, "table", "--robust", "one", "--epochs", "0.5", "--eps", "0.1", "--evaluation.deepfool-n", "4", *sections
    )
    assert code == 0 and "Written to runs/table: table.html" in out
    folder = tmp_path / "runs" / "table"
    assert {"table.html", "table.md", "table.csv", "table.json", "curves.png", "standard"} <= {
        path.name for path in folder.iterdir()
    }
    rows = (folder / "table.md").read_text()
    for condition in (
        "PGD-20 | Linf | 0.1 | 20 x 0.025 | 40",
        "n",
        "digits is not a leaderboard's own test set",
    ):
        assert condition in rows
    assert "9.7 -> 37.5" not in rows  # the article's figures are CIFAR-10's


def test_two_runs_of_one_recipe_both_stand_in_the_table(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = [*DIGITS, "--model.width", "1", "--data.subset", "20", "--batch-size", "20", "--epochs", "1"]
    for seed, out in enumerate(["a/one", "b/one", "two"]):
        assert run(capsys, "train", "standard", *tiny, "--seed", str(seed), "--out", out)[0] == 0
    flags = ["--standard", "a/one", "--robust", "b/one", "two", "two/", "--n", "2", "--eps", "0.1"]
    code, _, err = run(capsys, "table", *flags, *DIGITS)
    assert (code, err) == (0, "")
    folder = tmp_path / "runs" / "table"
    names = ["standard, a/one", "standard, b/one", "standard, two"]
    assert [record["model"] for record in json.loads((folder / "table.json").read_text())] == names
    assert (folder / "table.md").read_text().splitlines()[0] == (
        f"| attack | norm | eps | steps | n | {' | '.join(names)} | gain of {names[1]}, points | gain of {names[2]}, "
        "points |"
    )


def test_a_table_is_of_one_data_set(capsys, tmp_path, monkeypatch, make_folder):
    """Refused before anything is trained; a table of each, as the sentence says, works."""
    monkeypatch.chdir(tmp_path)
    small = ["--data.validation", "4", "--model.width", "1", "--batch-size", "8", "--epochs", "1"]
    for name, count in (("one", 2), ("two", 3)):
        folder = make_folder(name=name, classes=("cat", "dog"), size=8, counts=(("train", 8), ("test", count)))
        data = ["--data.name", f"folder:{folder}"]
        assert run(capsys, "train", "standard", *data, *small, "--out", f"runs/{name}")[0] == 0
    flags = ["--evaluation.n", "2", "--eps", "0.1", "--model.width", "1", "--epochs", "1", "--data.validation", "4"]
    sentence = (
        "DataError Expected runs of one data set, but got one of '{} (folder copy)' and runs/{} of other test images, "
        "those of '{} (folder copy)'; make a table of each."
    )
    code, _, err = run(capsys, "table", "--standard", "runs/one", "--robust", "runs/two", *flags)
    assert (code, err) == (2, sentence.format("one", "two", "two"))
    code, _, err = run(capsys, "table", "--robust", "runs/one", *data, *flags)
    assert (code, err) == (2, sentence.format("two", "one", "one"))
    assert not Path("runs/table/standard").exists()
    for name in ("one", "two"):
        code, _, err = run(capsys, "table", "--standard", f"runs/{name}", "--robust", f"runs/{name}", *flags)
        assert (code, err) == (0, "")


def test_a_table_judges_all_runs_alike(capsys, tmp_path, monkeypatch):
    """With the evaluation settings of the first one, whatever the others were trained with."""
    monkeypatch.chdir(tmp_path)
    tiny = [*DIGITS, "--model.width", "1", "--data.subset", "20", "--batch-size", "20", "--epochs", "1"]
    for number, name in enumerate(("one", "two"), start=1):
        judged = ["--evaluation.seed", f"{number}", "--evaluation.n", f"{2 * number}", "--evaluation.deepfool-n", "1"]
        assert run(capsys, "train", "standard", *tiny, *judged, "--out", name)[0] == 0
    code, _, err = run(capsys, "table", "--standard", "one", "--robust", "two")
    assert (code, err) == (0, "")
    records = json.loads(Path("runs/table/table.json").read_text())
    assert [(record["n"], record["seed"]) for record in records] == [(2, 1), (2, 1)]
    code, _, err = run(capsys, "table", "--standard", "one", "--robust", "two", "--n", "3", "--evaluation.seed", "7")
    assert (code, err) == (0, "")  # what the flags say goes before
    records = json.loads(Path("runs/table/table.json").read_text())
    assert [(record["n"], record["seed"]) for record in records] == [(3, 7), (3, 7)]


@pytest.mark.parametrize("flags, eps", [([], 0.1), (["--eps", "0.2"], 0.2), (["--evaluation.eps", "4/255"], 4 / 255)])
def test_a_table_of_runs_has_the_eps_that_is_asked_for(capsys, tmp_path, monkeypatch, flags, eps):
    monkeypatch.chdir(tmp_path)
    tiny = [*DIGITS, "--model.width", "1", "--data.subset", "20", "--batch-size", "20", "--epochs", "1"]
    judged = ["--evaluation.n", "2", "--evaluation.deepfool-n", "1"]
    for out, target in (("one", "0.05"), ("two", "0.1")):
        trained = run(capsys, "train", "standard", *tiny, *judged, "--controller.target", target, "--out", out)
        assert trained[0] == 0
    code, _, err = run(capsys, "table", "--standard", "one", "--robust", "two", *flags)
    assert (code, err) == (0, "")
    assert [record["eps"] for record in json.loads(Path("runs/table/table.json").read_text())] == [eps, eps]


def test_a_table_of_no_images_is_refused_before_anything_is_trained(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "table", "--n", "0", *DIGITS, "--model.width", "1", "--epochs", "1")
    assert code == 2 and "Expected `n` as a whole number >= 1, but got 0" in err
    assert not Path("runs").exists()


def test_the_data_of_runs_in_a_table_may_have_moved(capsys, tmp_path, monkeypatch, make_folder):
    monkeypatch.chdir(tmp_path)
    counts = (("train", 8), ("test", 2))
    folder = make_folder(name="one", classes=("cat", "dog"), size=8, counts=counts)
    small = ["--data.validation", "4", "--model.width", "1", "--batch-size", "8", "--epochs", "1"]
    for out in ("a", "b"):
        assert run(capsys, "train", "standard", "--data.name", f"folder:{folder}", *small, "--out", out)[0] == 0
    moved = folder.rename(tmp_path / "two")
    flags = ["--standard", "a", "--eps", "0.1", "--n", "2", "--robust"]
    assert run(capsys, "table", *flags, "b")[0] == 2
    code, _, err = run(capsys, "table", *flags, "b", "--data.name", f"folder:{moved}")
    assert (code, err) == (0, "")
    other = make_folder(name="other", classes=("cat", "dog"), size=8, counts=(("train", 8), ("test", 3)))
    for robust in ("b", "standard"):
        code, _, err = run(capsys, "table", *flags, robust, "--data.name", f"folder:{other}")
        assert code == 2
        assert err.startswith("DataError Expected runs of one data set, but got one of 'other (folder copy)' and a of")


def test_a_recipe_beside_a_run_in_a_table_has_its_data_and_the_budget_of_the_table(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = [*DIGITS, "--model.width", "1", "--data.subset", "20", "--batch-size", "20", "--epochs", "1"]
    judged = ["--evaluation.eps", "0.02", "--evaluation.seed", "3", "--evaluation.deepfool-n", "1"]
    assert run(capsys, "train", "standard", *tiny, *judged, "--out", "a")[0] == 0
    flags = ["--standard", "a", "--robust", "pgd", "--eps", "0.1", "--epochs", "1", "--model.width", "1", "--n", "2"]
    monkeypatch.setitem(RECIPES, "pgd", lambda: dataclasses.replace(recipe("one-step"), batch_size=20))
    code, _, err = run(capsys, "table", *flags)
    assert (code, err) == (0, "")
    config = read_config(Path("runs/table/pgd"))
    assert (config.data.subset, config.evaluation.seed, config.evaluation.n, config.ball.eps) == (20, 3, None, 0.1)
    records = json.loads(Path("runs/table/table.json").read_text())
    assert [(record["n"], record["eps"], record["seed"]) for record in records] == [(2, 0.1, 3)] * 2


def test_a_second_run_into_the_same_folder_needs_resume(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["train", "standard", *TINY, "--epochs", "0.2", "--out", "one"]
    assert run(capsys, *flags)[0] == 0
    code, _, err = run(capsys, *flags)
    assert code == 2
    assert err == ("CheckpointError Expected a new run folder, but one holds a run; use --resume or another --out.")
    assert run(capsys, *flags, "--resume")[0] == 0


@pytest.mark.parametrize("files", [None, [], ["slurm-1.out", ".lock"]])
def test_resume_starts_where_there_is_no_run_and_says_so(capsys, tmp_path, monkeypatch, files):
    monkeypatch.chdir(tmp_path)
    if files is not None:
        (tmp_path / "one").mkdir()
    for name in files or []:
        (tmp_path / "one" / name).write_text("")
    flags = ["train", "standard", *TINY, "--data.subset", "32", "--epochs", "1", "--out", "one", "--resume"]
    code, out, err = run(capsys, *flags)
    assert (code, err) == (0, "")
    assert out.startswith("No run in one yet: starting one.")
    code, out, _ = run(capsys, *flags)
    assert code == 0 and "starting one" not in out


def test_help_of_resume_says_that_it_starts_too(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "pgd", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").replace("|", " ").split())
    assert (
        "--resume, --no-resume Go on from the last checkpoint of the run folder, with its config; where there is no "
        "run yet, start one. What would make it another run, such as another recipe, is refused (docs/reliability.md). "
        "(default: False)" in text
    )


@pytest.mark.parametrize("options, folder", [(EvaluateOptions, "run"), (BenchmarkOptions, "model_name")])
def test_a_run_brings_its_data_wherever_it_stands_among_the_flags(tmp_path, options, folder):
    config = on_digits(recipe("standard"))
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    flags, name = ["--n", "6", "--data.seed", "7"], str(tmp_path)
    for words in ([name, *flags], [*flags, name], [*flags[:2], name, *flags[2:]]):
        read = read_of_run(options, words, "evaluate", folder)
        assert (str(getattr(read, folder)), read.n) == (name, 6)
        assert read.data == dataclasses.replace(config.data, seed=7)
    assert read_of_run(options, ["--n", "6", "elsewhere"], "evaluate", folder).data == DataConfig()


COLUMNS = ["doctor", "demo", "plan pgd", "train pgd", "evaluate", "table", "report", "benchmark", "compare", "submit"]


@pytest.mark.parametrize("command", COLUMNS)
@pytest.mark.parametrize("columns", [80, 120])
def test_help_fits_the_terminal_and_names_plain_values(capsys, monkeypatch, command, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.split(), "--help"])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    usage = " ".join(lines[: lines.index("")])
    assert usage.startswith(f"usage: robust-adapt {command} [-h] ") and len(usage) <= columns
    boxes = [line for line in lines[lines.index("") :] if line[:1] in "╭╰│+|"]
    assert boxes and max(len(line) for line in boxes) <= columns
    assert not any("{None}" in line for line in lines)


def test_none_is_a_value_of_an_optional_flag(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["train", "pgd", *TINY, "--data.subset", "32", "--epochs", "1", "--out", "one", "--controller.rule", "gap"]
    assert run(capsys, *flags, "--evaluation.deepfool-n", "None", "--controller.start", "2/255")[0] == 0
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    assert config["evaluation"]["deepfool_n"] is None and config["controller"]["start"] == 2 / 255


def test_doctor_prints_every_check_with_its_mend(capsys, monkeypatch):
    checks = [
        upstream.Check(name="good", status="ok", detail="1.0"),
        upstream.Check(name="[bold]bad", status="fail", detail="gone", fix="pip install bad"),
    ]
    monkeypatch.setattr(upstream, "doctor", lambda _root: checks)
    code, out, _ = run(capsys, "doctor")
    assert code == 1
    assert "ok good 1.0" in out
    assert "pip install bad" in out


def record_of(kind, **figures):
    names = [field.name for field in dataclasses.fields(kind)]
    known = {"eps": 8 / 255, "loss": 1.5} | figures
    return kind(**{name: known.get(name) for name in names})


@pytest.mark.parametrize(
    ("figures", "text"),
    [
        ({"attacks": {"pgd": 64}}, "loss 1.500  clean 90.0 % (validation)  robust 27.0 %  eps 8/255"),
        ({"attacks": {"pgd": 64}, "clean_accuracy": 0.8}, "loss 1.500  clean 80.0 %  robust 27.0 %  eps 8/255"),
        ({"attacks": {}, "clean_accuracy": 0.27}, "loss 1.500  clean 27.0 %"),
    ],
)
def test_progress_names_no_attack_that_did_not_run(figures, text):
    assert step_text(record_of(StepRecord, adv_accuracy=0.27, **figures), 0.9, "Linf") == text


def test_progress_is_a_line_an_epoch_without_a_terminal_and_says_the_time_left(capsys):
    progress = TrainingProgress(recipe("pgd"))
    progress.show(record_of(RunRecord, recipe="pgd", data="x", total_steps=8, steps_per_epoch=4))
    step = {"attacks": {"pgd": 1}, "adv_accuracy": 0.27}
    progress.show(record_of(StepRecord, step=4, **step))
    assert progress.task.description == "pgd epoch 1.0/2"
    judged = {
        "validation_clean": 0.5,
        "validation_adversarial": 0.25,
        "validation_attack": "PGD-10",
        "attacks": {"pgd": 1},
    }
    progress.show(record_of(EpochRecord, epoch=0, step=4, seconds=20, best=True, warnings=["careful"], **judged))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "warning careful"
    line = "epoch   0  loss 1.500  eps 8/255     validation: clean 50.0 %, PGD-10 25.0 %  best"
    assert lines[2] == f"{line}  26 images/s, 0:00:20 left"


def test_a_title_is_a_line_of_its_own_above_a_narrow_table(capsys):
    words = "wider than the table below it, and no less easy to read"
    table = grid(["a"], [["1"]], left=(), title=f"title, {words}", caption=f"caption, {words}")
    cli._show(Answer(record={}, text=[table]), verbose=False)
    first, *_, last = capsys.readouterr().out.splitlines()
    assert (first, last) == (f"title, {words}", f"caption, {words}")


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_table_fits_the_terminal(columns, count):
    console = Console(file=io.StringIO(), width=200)
    console.print(reporting.terminal_table([evaluation(f"model{each}", 1) for each in range(count)], width=columns))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    text = console.file.getvalue()
    assert ("[0.0, 11.0]" in text) == ((columns, count) not in [(80, 3), (80, 4)])
    assert ("(L2 0.50)" in text) == ((columns, count) in [(80, 1), (100, 1), (100, 2)])


def test_a_run_of_another_budget_says_so(tmp_path):
    config = recipe("pgd")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    options = BenchmarkOptions(model_name=str(tmp_path))
    assert _own_budget(options, config.ball) == []
    assert _own_budget(dataclasses.replace(options, eps=0.5), Ball("L2", 0.5)) == []
    assert _own_budget(options, Ball("Linf", "4/255")) == [
        "The run was trained for Linf 8/255 and is judged in Linf 4/255, the board's; its own: --norm Linf --eps 8/255"
    ]


def test_a_folder_name_cannot_leave_the_run_folder():
    assert _slug("folder:../../etc/<x>") == "-x-"
    assert _slug("folder:..") == "--"
