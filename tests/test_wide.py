"""``benchmarks/wide.py``: real runs, trained and judged once, and the same table from the records at home."""

import json
import sys
from pathlib import Path

from robust_adapt.config import Config
from robust_adapt.recipes import recipe

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import wide  # noqa: E402


def test_runs_are_trained_and_judged_once_and_the_table_can_be_made_again_from_the_records_at_home(
    capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr(wide, "JUDGED", (100, 130))
    monkeypatch.setattr(wide, "OTHERS", (130, 150))
    monkeypatch.setattr(wide, "JUDGES", {name: (8, conditions) for name, (_, conditions) in wide.JUDGES.items()})
    out = ["--out", str(tmp_path / "runs")]
    names = ["--runs", "one-step", "deepseek"]
    asked = [*out, *names, "--data", "digits", "--width", "2", "--epochs", "0.1", "--validation", "60"]
    asked += ["--judge", "apgd", "fgsm"]
    wide.main(asked)
    printed = capsys.readouterr().out
    assert "| Clean " in printed and "30 images" in printed and "apgd-ce, apgd-t" in printed
    assert "deepseek above one-step, Worst case: " in printed and "deepseek above one-step, apgd: " in printed
    assert "- deepseek, 20 other images: Clean " in printed
    monkeypatch.setattr(wide, "evaluate_model", None)  # nothing is done twice
    monkeypatch.setattr(wide.subprocess, "run", None)
    wide.main(asked)
    assert capsys.readouterr().out == printed
    wide.main([*out, *names, "--home", str(tmp_path / "home")])
    capsys.readouterr()
    wide.main(["--out", str(tmp_path / "home"), "--table"])
    assert capsys.readouterr().out == printed and not list((tmp_path / "home").rglob("*.pt"))
    config = Config.from_dict(json.loads((tmp_path / "home" / "deepseek" / "config.json").read_text()))
    named = recipe("deepseek")
    assert (config.attack, config.controller, config.loss) == (named.attack, named.controller, named.loss)
    wide.main(["--out", str(tmp_path), "--table"])
    assert capsys.readouterr().out == "No run is judged yet.\n"
