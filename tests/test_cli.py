"""The command line: what it prints, returns and refuses. Commands that train run on a few steps of the digits."""

import json
import re

import pytest

from robust_adapt import cli, upstream
from robust_adapt.cli.training import _slug

TINY = ["--data.name", "digits", "--data.validation", "60", "--model.width", "4", "--batch-size", "32"]


def run(capsys, *arguments):
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return code, " ".join(captured.out.split()), " ".join(captured.err.split())


def test_overview_names_every_command(capsys):
    code, out, _ = run(capsys)
    assert code == 0
    assert all(name in out for name in cli.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["trian"],
            "ConfigError Expected a known command, but got 'trian'; did you mean 'train'? "
            "Known: benchmark, compare, demo, doctor, evaluate, plan, submit, table, train.",
        ),
        (
            ["train", "pdg"],
            "ConfigError Expected a known recipe, but got 'pdg'; did you mean 'pgd'? "
            "Known: deepseek, literal, pgd, standard.",
        ),
        (
            ["train", "pgd", "--controller.target", "8"],
            "ConfigError Expected `controller.target` in [0, 1], pixel units, but got 8.0; did you mean 8/255?",
        ),
        (
            ["train", "pgd", "--controller.target", "-0.1"],
            "ConfigError Expected `controller.target` >= 0, but got -0.1; give the size of the perturbation, "
            "without a sign.",
        ),
        (
            ["train", "pgd", "--data.name", "digit"],
            "DataError Expected a known data set, but got 'digit'; did you mean 'digits'? "
            "Known: cifar10, cifar10.1, digits, folder:PATH.",
        ),
        (
            ["train", "pgd", *TINY, "--model.name", "ResNet81"],
            "ConfigError Expected a known model, but got 'ResNet81'; did you mean 'ResNet18'? "
            "Known: PreActResNet18, ResNet18, ResNet34, ResNet50. Or module:function.",
        ),
        (
            ["train", "pgd", *TINY, "--attack.attacks", "pgdd"],
            r"ConfigError Expected a known attack, but got 'pgdd'; did you mean 'pgd",
        ),
        (
            ["evaluate", "nowhere"],
            "CheckpointError Expected a run folder with config.json, but found none in nowhere; give the folder that "
            "`robust-adapt train` wrote.",
        ),
        (
            ["train", "pgd", "--data.offline", "--data.root", "nowhere"],
            "DataError Expected CIFAR-10 in 'nowhere', but it is not there and downloads are off; put "
            "cifar-10-batches-py there, or use `--data.name folder:PATH` or `--data.name digits`.",
        ),
    ],
)
def test_refusals_are_one_sentence_and_code_2(capsys, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert err.startswith(sentence)
    assert "Traceback" not in err


def test_a_fraction_that_is_none_is_refused_by_its_flag(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "pgd", "--controller.target", "8/0"])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert "--controller.target" in captured.out + captured.err
    assert "8/0" in captured.out + captured.err


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
    assert "Best epoch by validation" in out

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
        "9.7 -> 37.5",
        "n",
        "digits is not the official CIFAR-10",
    ):
        assert condition in rows


def test_a_second_run_into_the_same_folder_needs_resume(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["train", "standard", *TINY, "--epochs", "0.2", "--out", "one"]
    assert run(capsys, *flags)[0] == 0
    code, _, err = run(capsys, *flags)
    assert code == 2
    assert err == ("CheckpointError Expected a new run folder, but one holds a run; use --resume or another --out.")
    assert run(capsys, *flags, "--resume")[0] == 0


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


def test_a_folder_name_cannot_leave_the_run_folder():
    assert _slug("folder:../../etc/<x>") == "-x-"
    assert _slug("folder:..") == "--"
