"""The command line: what it prints, returns and refuses. Commands that train run on a few steps of the digits."""

import dataclasses
import json
import logging
import re
from pathlib import Path

import pytest
from lightning_fabric.utilities import rank_zero

from robust_adapt import cli, upstream
from robust_adapt.cli.benchmark import BenchmarkOptions
from robust_adapt.cli.evaluate import EvaluateOptions
from robust_adapt.cli.terminal import read_of_run
from robust_adapt.cli.train import _slug, step_text
from robust_adapt.config import DataConfig
from robust_adapt.recipes import on_digits, recipe
from robust_adapt.records import StepRecord

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


def test_fabric_says_nothing_in_between(capsys, caplog):
    cli.main([])
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

    code, out, _ = run(capsys, "evaluate", "one", "--rows", "Clean", "PGD-20", "--eps", "25/255")
    assert code == 0
    record = json.loads((tmp_path / "one" / "evaluation.json").read_text())
    assert [row["name"] for row in record["attacks"]] == ["Clean", "PGD-20"]
    assert record["eps"] == pytest.approx(25 / 255)
    assert re.search(r"PGD-20 .* 40 ", out)

    sections = ["--data.name", "digits", "--data.validation", "60", "--model.width", "4", "--evaluation.n", "40"]
    code, out, _ = run(
        capsys, "table", "--robust", "one", "--epochs", "0.5", "--eps", "0.1", "--evaluation.deepfool-n", "4", *sections
    )
    assert code == 0
    folder = tmp_path / "runs" / "table"
    assert {"table.html", "table.md", "table.csv", "table.json", "curves.png", "standard"} <= {
        path.name for path in folder.iterdir()
    }
    rows = (folder / "table.md").read_text()
    for condition in (
        "PGD-20 | Linf | 0.1 | 20 x 0.025 | 40",
        "n",
        "digits is not the official CIFAR-10",
    ):
        assert condition in rows
    assert "9.7 -> 37.5" not in rows  # the article's figures are CIFAR-10's


def test_two_runs_of_one_recipe_both_stand_in_the_table(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = [*DIGITS, "--model.width", "1", "--data.subset", "20", "--batch-size", "20", "--epochs", "1"]
    for seed, out in enumerate(["a/one", "b/one", "two"]):
        assert run(capsys, "train", "standard", *tiny, "--seed", str(seed), "--out", out)[0] == 0
    flags = ["--standard", "a/one", "--robust", "b/one", "two", "two/", "--evaluation.n", "2", "--eps", "0.1"]
    code, _, err = run(capsys, "table", *flags, *DIGITS)
    assert (code, err) == (0, "")
    folder = tmp_path / "runs" / "table"
    names = ["standard, a/one", "standard, b/one", "standard, two"]
    assert [record["model"] for record in json.loads((folder / "table.json").read_text())] == names
    assert (folder / "table.md").read_text().splitlines()[0] == (
        f"| attack | norm | eps | steps | n | {' | '.join(names)} | gain of {names[1]}, points | gain of {names[2]}, "
        "points | article |"
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


@pytest.mark.parametrize(
    ("attacks", "text"),
    [({"pgd": 64}, "eps 0.0314 loss 1.500 accuracy under attack 27.0 %"), ({}, "loss 1.500 accuracy 27.0 %")],
)
def test_progress_names_no_attack_that_did_not_run(attacks, text):
    figures = dict.fromkeys([field.name for field in dataclasses.fields(StepRecord)])
    record = StepRecord(**(figures | {"eps": 8 / 255, "loss": 1.5, "adv_accuracy": 0.27, "attacks": attacks}))
    assert step_text(record) == text


def test_a_folder_name_cannot_leave_the_run_folder():
    assert _slug("folder:../../etc/<x>") == "-x-"
    assert _slug("folder:..") == "--"
