"""``benchmarks/precision.py``: real runs in both precisions, kept, and their paired differences."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import precision  # noqa: E402


def test_both_precisions_train_as_often_and_are_judged_alike(tmp_path, capsys):
    out, home = tmp_path / "runs", tmp_path / "home"
    flags = "--data digits --width 2 --epochs 0.2 --validation 60 --judged 100 130 --device cpu"
    arguments = [*flags.split(), "--out", str(out)]
    precision.main([*arguments, "--seeds", "0", "1", "--home", str(home)])
    names = [f"{each}-s{seed}" for each in ("bf16-mixed", "32-true") for seed in (0, 1)]
    records = {name: json.loads((home / name / "judged.json").read_text()) for name in names}
    runs = {name: json.loads((home / name / "run.json").read_text()) for name in names}
    assert [runs[name]["precision"] for name in names] == ["bf16-mixed"] * 2 + ["32-true"] * 2
    assert len({run["total_steps"] for run in runs.values()}) == 1
    assert len({record["images_sha256"] for record in records.values()}) == 1
    assert {record["n"] for record in records.values()} == {30}

    for name, clean, attacked in zip(names, (0.5, 0.6, 0.5, 0.5), (0.3, 0.3, 0.1, 0.3), strict=True):
        record = records[name]
        for row, accuracy in zip(record["attacks"], (clean, attacked), strict=True):
            row["accuracy"] = accuracy
        (out / name / "judged.json").write_text(json.dumps(record))
    capsys.readouterr()
    precision.main([*arguments, "--seeds", "0", "1"])  # nothing is trained or judged anew
    printed = capsys.readouterr().out
    assert "| bf16-mixed | 2 | 55.0 (50.0, 60.0) | 30.0 (30.0, 30.0) |" in printed
    assert "bf16-mixed above 32-true, points: Clean +5.0 [-58.5, +68.5], PGD-20 +10.0 [-117.1, +137.1]" in printed
